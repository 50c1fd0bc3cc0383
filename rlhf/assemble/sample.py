"""`sample.py`: prompts to completions to tasks."""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.aliases import translated
from rlhf.assemble.loggers import quiet
from rlhf.assemble.schema.bounds import check_ranges
from rlhf.assemble.schema.commands import Sample


def sample(cfg: DictConfig) -> None:
    """Build what the configuration names and run it; prints what became of the completions."""
    check_ranges(cfg, Sample)
    from rlhf.collect.run import SamplingRun
    from rlhf.collect.sampling import Completer

    cfg = translated(cfg)
    quiet()
    if cfg.threads:
        import torch

        torch.set_num_threads(cfg.threads)
    source = hydra.utils.instantiate(cfg.data, _convert_="all")
    curation = hydra.utils.instantiate(cfg.curation, _convert_="all")
    policies = hydra.utils.instantiate(cfg.backend, _convert_="all")(source)
    sampler = hydra.utils.instantiate(cfg.sampler, _convert_="all")
    completer = Completer(
        policies, sampler, k=cfg.k, min_distance=cfg.min_distance, attempts=cfg.attempts, seed=cfg.seed
    )
    run = SamplingRun(
        Path(cfg.out),
        curation,
        completer,
        pick=hydra.utils.instantiate(cfg.pick, _convert_="all"),
        filtering=hydra.utils.instantiate(cfg.filter, _convert_="all"),
        settings=_settings(cfg),
        on_record=_progress,
    )
    print(_said(run(source)))
    print(f"tasks: {cfg.out}", flush=True)


def _said(report: dict[str, Any]) -> str:
    """What became of everything that was read."""
    prompts, records = report["prompts"], report["filters"]["records"]
    passed = {reason: n for reason, n in prompts["dropped"].items() if n}
    lines = [
        f"{report['unreadable']} rows could not be read" if report["unreadable"] else "",
        f"{prompts['chosen']} of {prompts['read']} prompts chosen, passed over: {passed or 'none'}",
        f"{records['kept']} of {records['read']} prompts with completions, dropped: "
        f"{report['filters']['completions_dropped'] or 'none'}",
        f"asked: {report['usage']}" if report["usage"] else "",
    ]
    return "\n".join(line for line in lines if line)


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """What the samples depend on; filters and picks come after and may change between two attempts."""
    keys = ("data", "model", "backend", "sampler", "curation", "k", "min_distance", "attempts", "seed", "limit")
    return {key: OmegaConf.to_container(cfg, resolve=True)[key] for key in keys}  # type: ignore[index, call-overload]


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 10 == 0 or done == total):
        print(f"\r{done}/{total} prompts", end="\n" if done == total else "", file=sys.stderr, flush=True)
