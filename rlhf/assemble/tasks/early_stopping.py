"""`task=early_stopping`: configuration to runs that nothing stops, and to the signs that would have stopped them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.checks.rollouts import at_key, check_completions, check_seeds
from rlhf.assemble.loggers import job_loggers
from rlhf.assemble.resume import folder_to_go_on_in
from rlhf.assemble.tasks.iterate import check_loop, loop_of
from rlhf.assemble.tasks.reward import run_folder
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.optimise.policy.early_stopping import StoppingRule
    from rlhf.studies.early_stopping import EarlyStoppingRun

EVALUATION_KEYS = ("seeds", "chosen_on", "chosen_seeds", "margin", "window", "signs")
"""Keys of the task that say what is made of the runs, not what they are."""


def early_stopping_run(cfg: DictConfig) -> EarlyStoppingRun:
    """What `task=early_stopping` needs; with `ckpt=<run folder>` it goes on there. Raises as `check_study` and
    `check_exact_gold`.
    """
    check_exact_gold(cfg)
    check_study(cfg)
    folder = folder_to_go_on_in(cfg, run_folder(), leaves="*/seed-*", free=EVALUATION_KEYS)
    from rlhf.optimise.policy.train import quick_trainer
    from rlhf.studies.early_stopping import EarlyStoppingRun

    task = cfg.task
    return EarlyStoppingRun(
        folder=folder,
        trainer=quick_trainer(1, job_loggers(cfg, folder)),
        worlds={str(world): partial(loop_of, _in_world(cfg, world)) for world in task.worlds},
        seeds=list(task.seeds),
        chosen_on=list(task.chosen_on),
        chosen_seeds=list(task.chosen_seeds),
        signs={str(n): (partial(_rule, s, task.window), list(s.levels)) for n, s in task.signs.items()},
        margin=task.margin,
    )


def check_worlds(cfg: DictConfig) -> None:
    """What can be seen before anything is loaded: `check_exact_gold`, and every world. Raises RecordError."""
    check_exact_gold(cfg)
    for world in cfg.task.worlds:
        with at_key(f"task.worlds.{world}"):
            check_loop(_in_world(cfg, world))


def check_exact_gold(cfg: DictConfig) -> None:
    """Raise RecordError where the policy's mean gold reward is not known exactly after every step."""
    if not getattr(hydra.utils.get_class(cfg.policy._target_), "exact_gold", False):
        raise RecordError(
            "task=early_stopping needs the mean gold reward after every step, which only the toy policy gives exactly",
            key="policy",
            remedy="policy=toy; to see when a sign warns a language model: task=iterate policy=language "
            "early_stopping=<sign>",
        )


def check_study(cfg: DictConfig) -> None:
    """Raise RecordError for too few completions, repeated seeds, unknown worlds, or levels evaluated where chosen."""
    task = cfg.task
    check_completions(cfg.algorithm, task.plan.completions, "task.plan.completions")
    check_seeds(task.seeds, "task.seeds")
    check_seeds(task.chosen_seeds, "task.chosen_seeds", least=1)
    if unknown := [world for world in task.chosen_on if world not in task.worlds]:
        raise RecordError(
            f"{', '.join(unknown)} not in task.worlds", key="task.chosen_on",
            remedy=f"of {', '.join(map(str, task.worlds))}",
        )  # fmt: skip
    if both := sorted({*task.seeds} & {*task.chosen_seeds}) if task.chosen_on else []:
        raise RecordError(
            f"{both} are in task.seeds too: levels must be evaluated on other runs than they were chosen on",
            key="task.chosen_seeds", remedy="other seeds",
        )  # fmt: skip


def _in_world(cfg: DictConfig, world: str) -> DictConfig:
    own = OmegaConf.merge(cfg, cfg.task.worlds[world])
    assert isinstance(own, DictConfig)
    return own


def _rule(sign: DictConfig, window: int, level: float) -> StoppingRule:
    """A rule of one sign, at this level."""
    from rlhf.optimise.policy.early_stopping import StoppingRule

    own = hydra.utils.instantiate(sign.sign, **{sign.level: level}, _convert_="all")
    return StoppingRule({"sign": own}, window=window)
