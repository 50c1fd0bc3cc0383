"""`task=iterate`: configuration to the loop over generations, once or as an ablation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.checks.rollouts import at_key, check_completions, check_rollouts, check_seeds
from rlhf.assemble.loggers import job_loggers
from rlhf.assemble.resume import folder_to_go_on_in
from rlhf.assemble.schema.bounds import check_ranges
from rlhf.assemble.schema.commands import Train
from rlhf.assemble.schema.options import option
from rlhf.assemble.tasks.policy import causal_rollout_policy, gold_of
from rlhf.assemble.tasks.reward import reward_run, run_folder
from rlhf.assemble.tasks.tuning import optimizing
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.optimise.iterate.generation import Loop
    from rlhf.optimise.iterate.run import IterateRun
    from rlhf.records import Comparison
    from rlhf.reward.training import RewardRun
    from rlhf.studies.ablation import AblationRun


def check_iterate(cfg: DictConfig) -> None:
    """Refuse what the configuration alone says cannot be run, under every condition. Raises RecordError."""
    check_loop(cfg)
    for name, change in (cfg.task.conditions or {}).items():
        with at_key(f"task.conditions.{name}"):
            own = _condition(cfg, change)
            check_ranges(own, Train)
            check_loop(own)


def check_loop(cfg: DictConfig) -> None:
    """`check_rollouts`, and in a generated world, whose size is known, enough held-out prompts. Raises RecordError."""
    from rlhf.optimise.limits import check_oversight, held_out_of

    check_rollouts(cfg)
    if "size" in cfg.data:  # a generated world; it may repeat a prompt, so these are the most there are
        check_oversight(cfg.task.plan.oversight, held_out_of(cfg.data.size, cfg.task.held_out))


def iterate_run(cfg: DictConfig) -> IterateRun | AblationRun:
    """What `task=iterate` needs; with `ckpt=<run folder>` it goes on there.

    Raises:
        RecordError: the algorithm needs more completions per prompt, or a seed of an ablation is named twice or alone.
    """
    check_completions(cfg.algorithm, cfg.task.plan.completions, "task.plan.completions")
    if cfg.task.conditions:
        check_seeds(cfg.task.seeds, "task.seeds")
    folder = folder_to_go_on_in(cfg, run_folder(), leaves="**/generation-0", free=("seeds",))
    from rlhf.optimise.iterate.run import IterateRun
    from rlhf.optimise.policy.train import quick_trainer
    from rlhf.studies.ablation import AblationRun

    trainer = quick_trainer(1, job_loggers(cfg, folder))
    if not cfg.task.conditions:
        return IterateRun(loop_of(cfg, folder, cfg.seed), trainer)
    loops = {str(name): partial(loop_of, _condition(cfg, c)) for name, c in cfg.task.conditions.items()}
    return AblationRun(folder, trainer, loops, list(cfg.task.seeds))


def iterate(run: IterateRun | AblationRun) -> dict[str, float]:
    """One loop, or `task.conditions` with `task.seeds`."""
    from rlhf.optimise.iterate.run import IterateRun, run_iterate
    from rlhf.studies.ablation import run_ablation

    return run_iterate(run) if isinstance(run, IterateRun) else run_ablation(run)


def loop_of(cfg: DictConfig, folder: Path, seed: int) -> Loop:
    """The loop of one seed: another world of prompts and votes, another policy run.

    Raises:
        RecordError: it needs the true rewards and the data has none, or `shaping` names a domain that it has not.
    """
    from rlhf.optimise.iterate.generation import Loop
    from rlhf.optimise.iterate.pair_selection import PairSelection
    from rlhf.optimise.policy.prompts import hold_out
    from rlhf.optimise.shaping.kl_controllers import check_domains

    cfg = OmegaConf.merge(cfg, {"seed": seed})  # type: ignore[assignment]
    source, records = world_of(cfg, seed)
    prompts = hold_out(records, cfg.task.held_out)
    gold = gold_of(source)
    shaper = hydra.utils.instantiate(cfg.shaping, _convert_="all")
    check_domains(shaper.controller, {r.domain for r in records})
    return Loop(
        folder=folder,
        policy=hydra.utils.instantiate(cfg.policy)(gold, partial(causal_rollout_policy, cfg)),
        start=prompts.start,
        tasks=prompts.tasks,
        held_out=prompts.held_out,
        reward_learner=_reward_learner(cfg, folder, gold),
        shaper=shaper,
        trainer=partial(_trainer, cfg),
        optimizing=optimizing(cfg),
        plan=hydra.utils.instantiate(cfg.task.plan),
        gold=gold,
        pair_selection=PairSelection(
            hydra.utils.instantiate(cfg.selector, _convert_="all"),
            partial(hydra.utils.instantiate, cfg.features, _convert_="all"),
        ),
        sampler=hydra.utils.instantiate(cfg.sampler, _convert_="all"),
        filtering=partial(hydra.utils.instantiate, cfg.task.filter, _convert_="all"),
        label_source=_label_source(cfg, gold, seed),
        algorithm=hydra.utils.instantiate(cfg.algorithm),
        early_stopping=hydra.utils.instantiate(cfg.early_stopping, _convert_="all"),
        seed=seed,
    )


def world_of(cfg: DictConfig, seed: int) -> tuple[Any, list[Comparison]]:
    """The data and its records; a generated world is another one for every seed, a file stays what it is."""
    source = hydra.utils.instantiate(cfg.data, **({"seed": seed} if "seed" in cfg.data else {}))
    return source, list(source.records())


def _label_source(cfg: DictConfig, gold: Any, seed: int) -> Any:
    """Who votes on answers; None = people. Raises RecordError for simulated ones who would not know the truth."""
    from rlhf.annotate.simulated import SimulatedAnnotators, gold_in_meta

    if cfg.task.label_source is None:
        return None
    label_source = hydra.utils.instantiate(cfg.task.label_source, seed=seed, _convert_="all")
    if gold is None and isinstance(label_source, SimulatedAnnotators) and label_source.gold is gold_in_meta:
        raise RecordError(
            "simulated annotators need the true rewards, which are known for data=toy only", key="task.label_source",
            remedy="task.label_source=null: people vote; or a reward model as the truth: "
            "'+task.label_source.gold={_target_: rlhf.annotate.judges.gold_of, folder: <run>}'",
        )  # fmt: skip
    return label_source.vote


def _reward_learner(cfg: DictConfig, folder: Path, gold: Any) -> Any:
    """Records and seed to a reward model; one that trains whole models is told how and where."""
    learner = hydra.utils.instantiate(cfg.reward_learner, _convert_="all")
    if "build" in cfg.reward_learner:
        return replace(learner, build=partial(learner.build, cfg), folder=folder / "rewards")
    more = {"reads": gold} if cfg.task.reads_qualities else {}
    return lambda records, seed: learner(records, seed=seed, **more)


def reward_learner_run(cfg: DictConfig, changes: dict[str, Any], *, folder: Path, source: Any, seed: int) -> RewardRun:
    """A run of the task `reward` on these records, with the settings of `reward_learner.changes`."""
    own: Any = OmegaConf.merge(cfg, changes, {"seed": seed})
    own.logger = option("logger", "csv")
    own.aggregation = own.batches.eval_aggregation
    own.policy = None  # the policy's learning rate is not the reward model's
    return reward_run(own, folder=folder, source=source)


def _condition(cfg: DictConfig, change: DictConfig) -> DictConfig:
    """The configuration under one condition: other `shaping` and `early_stopping`, other keys of the task."""
    other: dict[Any, Any] = {g: option(g, change[g]) if g in change else cfg[g] for g in ("shaping", "early_stopping")}
    other["shaping"] = OmegaConf.merge(other["shaping"], change.get("override", {}))
    return OmegaConf.create({**cfg, **other, "task": OmegaConf.merge(cfg.task, change.get("task", {}))})


def _trainer(cfg: DictConfig, steps: int) -> Any:
    """The trainer of the group, for so many steps, writing nothing."""
    return hydra.utils.instantiate(
        cfg.trainer, max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
