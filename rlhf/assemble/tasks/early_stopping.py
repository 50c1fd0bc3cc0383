"""`task=warnings`: configuration to runs that nothing stops, and to the signs that would have stopped them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.algorithm import distinct, enough_completions
from rlhf.assemble.loggers import job_loggers
from rlhf.assemble.resume import folder_to_go_on_in
from rlhf.assemble.rollouts import told_of
from rlhf.assemble.run import run_folder
from rlhf.assemble.tasks.iterate import loop_of, quick_trainer, sound_loop, toy
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.studies.early_stopping import Make, Unstopped

JUDGING = ("seeds", "chosen_on", "chosen_seeds", "margin", "window", "signs")
"""Keys of the task that say what is made of the runs, not what they are."""


@dataclass
class WarningsRun:
    """What `warnings` needs."""

    cfg: DictConfig
    folder: Path
    trainer: Any


def warnings_run(cfg: DictConfig) -> WarningsRun:
    """What `task=warnings` needs; with `ckpt=<run folder>` it goes on there. Raises as `sound` and `exact`."""
    exact(cfg)
    sound(cfg)
    folder = folder_to_go_on_in(cfg, run_folder(), leaves="*/seed-*", free=JUDGING)
    return WarningsRun(cfg, folder, quick_trainer(1, job_loggers(cfg, folder)))


def early(cfg: DictConfig) -> None:
    """What can be seen before anything is loaded: `exact`, and every world. Raises RecordError."""
    exact(cfg)
    for world in cfg.task.worlds:
        with told_of(f"task.worlds.{world}"):
            sound_loop(_in_world(cfg, world))


def exact(cfg: DictConfig) -> None:
    """Raise RecordError where the policy is not the toy one, whose gold is exact after every step."""
    if hydra.utils.get_method(cfg.speaker._target_) is not toy:
        raise RecordError(
            "task=warnings needs the mean gold reward after every step, which only the toy policy gives exactly",
            key="speaker",
            remedy="speaker=toy; to see when a sign warns a language model: task=iterate speaker=language "
            "early_warning=<sign>",
        )


def sound(cfg: DictConfig) -> None:
    """Raise RecordError for too few completions, repeated seeds, unknown worlds, or levels judged where chosen."""
    task = cfg.task
    enough_completions(cfg.algorithm, task.plan.completions, "task.plan.completions")
    distinct(task.seeds, "task.seeds")
    distinct(task.chosen_seeds, "task.chosen_seeds", least=1)
    if unknown := [world for world in task.chosen_on if world not in task.worlds]:
        raise RecordError(
            f"{', '.join(unknown)} not in task.worlds", key="task.chosen_on",
            remedy=f"of {', '.join(map(str, task.worlds))}",
        )  # fmt: skip
    if both := sorted({*task.seeds} & {*task.chosen_seeds}) if task.chosen_on else []:
        raise RecordError(
            f"{both} are in task.seeds too: levels must be judged on other runs than they were chosen on",
            key="task.chosen_seeds", remedy="other seeds",
        )  # fmt: skip


def warnings(run: WarningsRun) -> dict[str, float]:
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


def _run(run: WarningsRun, world: str, seed: int) -> Unstopped:
    from rlhf.studies.early_stopping import unstopped

    cfg = _in_world(run.cfg, world)
    return unstopped(loop_of(cfg, run.folder / world / f"seed-{seed}", seed), world)


def _in_world(cfg: DictConfig, world: str) -> DictConfig:
    own = OmegaConf.merge(cfg, cfg.task.worlds[world])
    assert isinstance(own, DictConfig)
    return own


def _make(task: DictConfig, sign: DictConfig) -> Make:
    from rlhf.optimise.policy.early_stopping import EarlyWarning

    def make(level: float) -> EarlyWarning:
        own = hydra.utils.instantiate(sign.sign, **{sign.level: level}, _convert_="all")
        return EarlyWarning({"sign": own}, window=task.window)

    return make
