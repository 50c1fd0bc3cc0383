"""`task=early_stopping`: configuration to runs that nothing stops, and to the signs that would have stopped them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.checks.rollouts import at_key, check_completions, check_seeds
from rlhf.assemble.loggers import job_loggers
from rlhf.assemble.resume import folder_to_go_on_in
from rlhf.assemble.run import run_folder
from rlhf.assemble.tasks.iterate import check_loop, loop_of, quick_trainer, tabular_policy
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.studies.early_stopping import Make, Unstopped

EVALUATION_KEYS = ("seeds", "chosen_on", "chosen_seeds", "margin", "window", "signs")
"""Keys of the task that say what is made of the runs, not what they are."""


@dataclass
class EarlyStoppingRun:
    """What `early_stopping` needs."""

    cfg: DictConfig
    folder: Path
    trainer: Any


def early_stopping_run(cfg: DictConfig) -> EarlyStoppingRun:
    """What `task=early_stopping` needs; with `ckpt=<run folder>` it goes on there. Raises as `check_study` and
    `check_toy_policy`.
    """
    check_toy_policy(cfg)
    check_study(cfg)
    folder = folder_to_go_on_in(cfg, run_folder(), leaves="*/seed-*", free=EVALUATION_KEYS)
    return EarlyStoppingRun(cfg, folder, quick_trainer(1, job_loggers(cfg, folder)))


def check_worlds(cfg: DictConfig) -> None:
    """What can be seen before anything is loaded: `check_toy_policy`, and every world. Raises RecordError."""
    check_toy_policy(cfg)
    for world in cfg.task.worlds:
        with at_key(f"task.worlds.{world}"):
            check_loop(_in_world(cfg, world))


def check_toy_policy(cfg: DictConfig) -> None:
    """Raise RecordError where the policy is not the toy one, whose gold is exact after every step."""
    if hydra.utils.get_method(cfg.policy._target_) is not tabular_policy:
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


def early_stopping(run: EarlyStoppingRun) -> dict[str, float]:
    """The table."""
    from rlhf.reward.files import log_end
    from rlhf.studies.early_stopping import study

    task = run.cfg.task
    calibration = [_run(run, world, seed) for world in task.chosen_on for seed in task.chosen_seeds]
    runs = [_run(run, world, seed) for world in task.worlds for seed in task.seeds]
    signs = {str(name): (_make(task, sign), list(sign.levels)) for name, sign in task.signs.items()}
    metrics = study(calibration, runs, signs, run.folder, margin=task.margin)
    print((run.folder / "warnings.md").read_text())
    log_end(run.trainer.loggers, metrics, run.folder)
    return metrics


def _run(run: EarlyStoppingRun, world: str, seed: int) -> Unstopped:
    from rlhf.studies.early_stopping import unstopped

    cfg = _in_world(run.cfg, world)
    return unstopped(loop_of(cfg, run.folder / world / f"seed-{seed}", seed), world)


def _in_world(cfg: DictConfig, world: str) -> DictConfig:
    own = OmegaConf.merge(cfg, cfg.task.worlds[world])
    assert isinstance(own, DictConfig)
    return own


def _make(task: DictConfig, sign: DictConfig) -> Make:
    from rlhf.optimise.policy.early_stopping import StoppingRule

    def make(level: float) -> StoppingRule:
        own = hydra.utils.instantiate(sign.sign, **{sign.level: level}, _convert_="all")
        return StoppingRule({"sign": own}, window=task.window)

    return make
