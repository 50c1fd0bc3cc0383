"""`task=tradeoff`: configuration to worlds and methods."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from rlhf.assemble.checks.rollouts import check_completions, check_seeds
from rlhf.assemble.loggers import job_loggers
from rlhf.assemble.resume import only_from_the_start
from rlhf.assemble.run import run_folder
from rlhf.assemble.tasks.iterate import quick_trainer, tasks_of, world_of
from rlhf.assemble.tasks.policy import gold_of
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.studies.tradeoff_methods import Method, TradeoffWorld


@dataclass
class TradeoffRun:
    """What `tradeoff` needs."""

    cfg: DictConfig
    folder: Path
    trainer: Any


def tradeoff_run(cfg: DictConfig) -> TradeoffRun:
    """What `task=tradeoff` needs.

    Raises:
        RecordError: `ckpt` is named, a seed is named twice or alone, `against` is no n of `best_of`, or an algorithm
            needs more completions per prompt.
    """
    only_from_the_start(cfg)
    check_seeds(cfg.task.seeds, "task.seeds")
    if cfg.task.against not in cfg.task.best_of:
        raise RecordError(
            f"{cfg.task.against} is none of task.best_of={list(cfg.task.best_of)}", key="task.against",
            remedy=f"task.against={cfg.task.best_of[0]}, or add it to task.best_of" if cfg.task.best_of else
            "task.best_of=[4,24] task.against=24",
        )  # fmt: skip
    for own in cfg.task.trained.values():
        check_completions(own.algorithm, cfg.task.completions, "task.completions")
    return TradeoffRun(cfg, run_folder(), quick_trainer(1, job_loggers(cfg, run_folder())))


def tradeoff(run: TradeoffRun) -> dict[str, float]:
    """The table."""
    from rlhf.reward.files import log_end
    from rlhf.studies.tradeoff import compare

    task = run.cfg.task
    worlds = [_world(run.cfg, seed) for seed in task.seeds]
    methods = methods_of(task)
    contrasts = contrasts_of(task)
    make = hydra.utils.instantiate(task.policy)
    metrics = compare(methods, worlds, make, run.folder, contrasts=contrasts)
    print((run.folder / "tradeoff.md").read_text())
    log_end(run.trainer.loggers, metrics, run.folder)
    return metrics


def methods_of(task: DictConfig) -> dict[str, Method]:
    """Every trained method with every β, and best of every n."""
    import torch

    from rlhf.optimise.shaping.ensemble import mean
    from rlhf.optimise.shaping.kl_controllers import Fixed
    from rlhf.optimise.shaping.shaper import Shaper
    from rlhf.reward.schedule import constant
    from rlhf.studies.tradeoff_methods import BestOfNMethod, Dpo, TrainedMethod

    def trained(name: str, beta: float) -> Method:
        own = task.trained[name]
        return TrainedMethod(
            hydra.utils.instantiate(own.algorithm),
            lambda: Shaper(Fixed(beta), mean),
            task.steps,
            task.prompts,
            task.completions,
            quick_trainer,
            {"optimizer": partial(torch.optim.Adam, lr=own.learning_rate), "schedule": constant},
        )

    methods: dict[str, Method] = {f"{n} β={b:g}": trained(n, b) for n in task.trained for b in task.betas}
    methods |= {f"DPO β={b:g}": Dpo(b, **task.dpo) for b in task.betas}
    return methods | {f"best of {n}": BestOfNMethod(n) for n in task.best_of}


def contrasts_of(task: DictConfig) -> list[tuple[str, str]]:
    """Trained methods with each other at equal β, and each with best of the n that is named for it."""
    kinds = [*task.trained, "DPO"]
    pairs = [
        (f"{a} β={x:g}", f"{b} β={x:g}") for x in task.betas for a, b in combinations(reversed(kinds), 2)
    ]
    against = f"best of {task.against}"
    return pairs + [(f"{kind} β={x:g}", against) for kind in kinds for x in task.betas]


def _world(cfg: DictConfig, seed: int) -> TradeoffWorld:
    from rlhf.records import prompt_hash
    from rlhf.studies.tradeoff_methods import TradeoffWorld

    source, records = world_of(cfg, seed)
    gold = gold_of(source)
    if gold is None:
        raise RecordError(
            "task=tradeoff measures true rewards, which are known for the toy world only",
            key="data",
            remedy="data=toy",
        )
    tasks, held_out = tasks_of(records, cfg.task.held_out)
    known = {task.key for task in tasks}
    seen = [r for r in records if prompt_hash(r.prompt) in known]
    reward_source = hydra.utils.instantiate(cfg.task.reward_learner)(
        seen, seed=seed, reads=gold if cfg.task.reads_qualities else None
    )
    return TradeoffWorld(seen, tasks, held_out, gold, reward_source, seed)
