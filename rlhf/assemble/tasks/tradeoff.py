"""`task=tradeoff`: configuration to worlds and methods."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from rlhf.assemble.checks.rollouts import check_completions, check_seeds
from rlhf.assemble.loggers import job_loggers
from rlhf.assemble.resume import only_from_the_start
from rlhf.assemble.tasks.iterate import world_of
from rlhf.assemble.tasks.policy import gold_of
from rlhf.assemble.tasks.reward import run_folder
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.studies.tradeoff import TradeoffRun
    from rlhf.studies.tradeoff_methods import Method, TradeoffWorld


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
    from rlhf.optimise.policy.train import quick_trainer
    from rlhf.studies.tradeoff import TradeoffRun
    from rlhf.studies.tradeoff_methods import Dpo

    return TradeoffRun(
        folder=run_folder(),
        trainer=quick_trainer(1, job_loggers(cfg, run_folder())),
        world=partial(_world, cfg),
        seeds=list(cfg.task.seeds),
        policy=hydra.utils.instantiate(cfg.task.policy),
        kinds={name: partial(_trained, cfg.task, own) for name, own in cfg.task.trained.items()}
        | {"DPO": partial(Dpo, **cfg.task.dpo)},
        betas=list(cfg.task.betas),
        best_of=list(cfg.task.best_of),
        against=cfg.task.against,
    )


def _trained(task: DictConfig, own: DictConfig, beta: float) -> Method:
    from rlhf.studies.tradeoff_methods import TrainedMethod

    algorithm = hydra.utils.instantiate(own.algorithm)
    return TrainedMethod(algorithm, beta, own.learning_rate, task.steps, task.prompts, task.completions)


def _world(cfg: DictConfig, seed: int) -> TradeoffWorld:
    from rlhf.optimise.policy.prompts import hold_out
    from rlhf.studies.tradeoff_methods import TradeoffWorld

    source, records = world_of(cfg, seed)
    gold: Any = gold_of(source)
    if gold is None:
        raise RecordError(
            "task=tradeoff measures true rewards, which are known for the toy world only", key="data", remedy="data=toy"
        )
    prompts = hold_out(records, cfg.task.held_out)
    reward_source = hydra.utils.instantiate(cfg.task.reward_learner)(
        prompts.start, seed=seed, reads=gold if cfg.task.reads_qualities else None
    )
    return TradeoffWorld(prompts.start, prompts.tasks, prompts.held_out, gold, reward_source, seed)
