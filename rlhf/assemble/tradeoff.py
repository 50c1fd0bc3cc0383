"""`task=tradeoff`: configuration to worlds and methods."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from rlhf.assemble.iterate import quick_trainer, tasks_of, world_of
from rlhf.assemble.loggers import job_loggers
from rlhf.assemble.policy import toy_gold
from rlhf.assemble.run import run_folder

if TYPE_CHECKING:
    from rlhf.optimise.tradeoff import World


@dataclass
class TradeoffRun:
    """What `tradeoff` needs."""

    cfg: DictConfig
    folder: Path
    trainer: Any


def tradeoff_run(cfg: DictConfig) -> TradeoffRun:
    """What `task=tradeoff` needs."""
    return TradeoffRun(cfg, run_folder(), quick_trainer(1, job_loggers(cfg, run_folder())))


def tradeoff(run: TradeoffRun) -> dict[str, float]:
    """The table."""
    import torch

    from rlhf.optimise.controllers import Fixed
    from rlhf.optimise.progress import log_end
    from rlhf.optimise.shaper import Shaper
    from rlhf.optimise.tradeoff import BestOfN, Dpo, Method, Rloo, compare
    from rlhf.optimise.uncertainty import mean
    from rlhf.reward.schedule import constant

    task = run.cfg.task
    optimizing = {"optimizer": partial(torch.optim.Adam, lr=task.lr), "schedule": constant}

    def rloo(beta: float) -> Method:
        return Rloo(
            lambda: Shaper(Fixed(beta), mean),
            task.steps,
            task.prompts,
            task.completions,
            quick_trainer,
            optimizing,
        )

    methods: dict[str, Method] = {f"RLOO β={b:g}": rloo(b) for b in task.rloo_betas}
    methods |= {f"DPO β={b:g}": Dpo(b, lr=task.lr) for b in task.dpo_betas}
    methods |= {f"best of {n}": BestOfN(n) for n in task.best_of}
    worlds = [_world(run.cfg, seed) for seed in task.seeds]
    metrics = compare(methods, worlds, hydra.utils.instantiate(task.speaker), run.folder)
    print((run.folder / "tradeoff.md").read_text())
    log_end(run.trainer.loggers, metrics, run.folder)
    return metrics


def _world(cfg: DictConfig, seed: int) -> World:
    from rlhf.data.prompt_key import prompt_hash
    from rlhf.optimise.tradeoff import World
    from rlhf.record_types import RecordError

    source, records = world_of(cfg, seed)
    gold = toy_gold(source)
    if gold is None:
        raise RecordError(
            "task=tradeoff measures true rewards, which are known for the toy world only",
            key="data",
            remedy="data=toy",
        )
    tasks, held_out = tasks_of(records, cfg.task.held_out)
    known = {task.key for task in tasks}
    seen = [r for r in records if prompt_hash(r.prompt) in known]
    judge = hydra.utils.instantiate(cfg.task.teach)(
        seen, seed=seed, reads=gold if cfg.task.reads_qualities else None
    )
    return World(seen, tasks, held_out, gold, judge, seed)
