"""`task=study`: configuration to a study over worlds, its files and its logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.resume import only_from_the_start
from rlhf.assemble.run import run_folder, trainer_of
from rlhf.assemble.schema.options import CONF
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.studies.study import Findings, Study


@dataclass
class StudyRun:
    """What `study` needs."""

    study: Study
    folder: Path
    trainer: Any


def study_run(cfg: DictConfig) -> StudyRun:
    """What `task=study` needs. Raises RecordError where no study is named, or `ckpt` is."""
    only_from_the_start(cfg)
    if OmegaConf.is_missing(cfg.task, "study"):
        able = [
            p.stem for p in sorted((CONF / "experiment").glob("*.yaml")) if "rlhf.studies" in p.read_text()
        ]
        raise RecordError(
            "nothing to measure", key="task.study", remedy=f"experiment= one of {', '.join(able)}"
        )
    folder = run_folder()
    made = hydra.utils.instantiate(cfg.task.study, _convert_="all")
    return StudyRun(made, folder, trainer_of(cfg, folder, None, steps=0))


def study(run: StudyRun) -> dict[str, float]:
    """Measure every world, write what is found, and log both."""
    from rlhf.studies.study import run as measure

    def log(row: dict[str, float], step: int) -> None:
        for logger in run.trainer.loggers:
            logger.log_metrics(row, step=step)
        print(f"world {step + 1} of {run.study.worlds}", flush=True)

    found = measure(run.study, run.folder, log)
    _log(run, found)
    print((run.folder / f"{run.study.name}.md").read_text())
    return found.metrics


def _log(run: StudyRun, found: Findings) -> None:
    """The means after the last world; W&B has the table and the figure beside them."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in run.trainer.loggers:
        logger.log_metrics(found.metrics, step=run.study.worlds)
        if isinstance(logger, WandbLogger):
            columns, rows = _unique(found.columns), list(found.rows)
            logger.log_table(f"tables/{run.study.name}", columns=columns, data=rows)
            logger.log_image(f"figures/{run.study.name}", [str(run.folder / f"{run.study.name}.png")])


def _unique(names: list[str]) -> list[str]:
    return [name if names.index(name) == i else f"{name} {i}" for i, name in enumerate(names)]
