"""`task=crossvalidate`: configuration to folds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.evaluate import present
from rlhf.assemble.loggers import job_loggers
from rlhf.assemble.resume import folder_to_go_on_in
from rlhf.assemble.schema.options import CONF, option
from rlhf.assemble.tasks.reward import reward_run, run_folder
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.evaluation.crossvalidation import FoldModel
    from rlhf.reward.folds import FoldsRun

FREE = ("export",)
"""Keys of the task that may change between two visits."""


def check_folds(cfg: DictConfig) -> None:
    """Raise RecordError where the split has no folds, several devices are asked for, or no intervals."""
    if not str(cfg.split.get("_target_")).endswith(".FoldSplit"):
        raise RecordError(
            "task=crossvalidate tests every fold in turn, and this split has none", key="split",
            remedy="split=folds split.k=5 split.key=prompt, or domain, or a key of the record's meta",
        )  # fmt: skip
    if not cfg.bootstrap:
        raise RecordError("0: a report has intervals", key="bootstrap", remedy="bootstrap=1000")
    if cfg.trainer.devices not in (1, "1", "auto"):
        raise RecordError(
            f"{cfg.trainer.devices}: task=crossvalidate trains a fold on one device", key="trainer.devices",
            remedy="trainer.devices=1, or task=reward split=folds split.fold=<i> per fold",
        )  # fmt: skip


def crossvalidate_run(cfg: DictConfig) -> FoldsRun:
    """What `task=crossvalidate` needs."""
    from rlhf.evaluation.crossvalidation import CrossValidation
    from rlhf.optimise.policy.train import quick_trainer
    from rlhf.reward.folds import FoldsRun

    folder = folder_to_go_on_in(cfg, run_folder(), leaves="folds", free=FREE)
    sections = OmegaConf.load(CONF / "evaluate.yaml").sections
    sections.best_of_n = None  # it asks for the answers to a prompt, and here groups of prompts are one
    data = cfg.data.get("path") or cfg.data.get("hub") or cfg.data._target_.rpartition(".")[2]
    validation = CrossValidation(
        folder=folder,
        data=hydra.utils.instantiate(cfg.data),
        splitter=hydra.utils.instantiate(cfg.split, fold=0),
        train=partial(_train, cfg),
        aggregation=hydra.utils.instantiate(cfg.batches.eval_aggregation, _convert_="all"),
        sections=present(sections),
        about=f"{Path(str(data)).name}, every record under the model that was trained without its {cfg.split.key}",
        samples=cfg.bootstrap,
        seed=cfg.seed,
    )
    return FoldsRun(validation, quick_trainer(1, job_loggers(cfg, folder)))


def _train(cfg: DictConfig, fold: int, folder: Path) -> FoldModel:
    """Train a fold as `task=reward` would, or go on where it stopped; its configuration lies in its folder."""
    import pytorch_lightning as pl

    from rlhf.reward.folds import train_fold
    from rlhf.reward.pace import Pace

    own: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    own.split.fold, own.ckpt = fold, None
    own.task, own.logger = option("task", "reward"), option("logger", "csv")
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(own, folder / ".hydra" / "config.yaml")
    pl.seed_everything(cfg.seed, workers=True, verbose=False)  # whatever the folds before it have drawn
    last = folder / "checkpoints" / "last.ckpt"
    run = reward_run(own, folder=folder, checkpoint=last if last.is_file() else None)
    run.trainer.callbacks.insert(0, Pace())  # type: ignore[attr-defined]  # set by Lightning, not declared
    return train_fold(replace(run, export=cfg.task.export))
