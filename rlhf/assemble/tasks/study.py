"""`task=study`: configuration to a study over worlds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.resume import only_from_the_start
from rlhf.assemble.schema.options import CONF
from rlhf.assemble.tasks.reward import run_folder, trainer_of
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.studies.study import StudyRun


def study_run(cfg: DictConfig) -> StudyRun:
    """What `task=study` needs. Raises RecordError where no study is named, or `ckpt` is."""
    only_from_the_start(cfg)
    if OmegaConf.is_missing(cfg.task, "study"):
        able = [p.stem for p in sorted(CONF.glob("experiment/*.yaml")) if "rlhf.studies" in p.read_text()]
        raise RecordError("nothing to measure", key="task.study", remedy=f"experiment= one of {', '.join(able)}")
    from rlhf.studies.study import StudyRun

    folder = run_folder()
    made = hydra.utils.instantiate(cfg.task.study, _convert_="all")
    return StudyRun(made, folder, trainer_of(cfg, folder, None, steps=0))
