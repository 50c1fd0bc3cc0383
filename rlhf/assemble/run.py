"""`train.py`: build what the configuration names and hand it to the task."""

import sys

import hydra
from omegaconf import DictConfig

from rlhf.assemble.aliases import translated
from rlhf.assemble.announce import announce
from rlhf.assemble.checks.paths import check_augment, check_data, check_model
from rlhf.assemble.checks.renamed import refuse_old_names
from rlhf.assemble.checks.rollouts import check_room
from rlhf.assemble.loggers import finish_wandb, quiet
from rlhf.assemble.schema.bounds import check_ranges
from rlhf.assemble.schema.commands import Train
from rlhf.records import RecordError


def train(cfg: DictConfig) -> float:
    """`train.py`: build what the configuration names, hand it to the task, return the monitored metric.

    Raises:
        RecordError: numbers out of their range, models that are not there, before anything is loaded.
        FileNotFoundError: `model.path` is written as a folder, and there is none.
    """
    refuse_old_names(cfg, "train")
    cfg = translated(cfg)
    check_ranges(cfg, Train)
    check_room(cfg)
    check_model(cfg)
    check_augment(cfg)
    check_data(cfg.get("data"))
    _one_criterion(cfg)
    if "check" in cfg.task:
        hydra.utils.instantiate(cfg.task.check)(cfg)
    announce(cfg)
    import pytorch_lightning as pl
    import torch

    from rlhf.reward.checkpoint import better

    quiet()
    better(cfg.trainer.monitor)  # a name that is never measured is refused before anything is done
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    run = hydra.utils.instantiate(cfg.task.build)(cfg)
    try:
        metrics: dict[str, float] = hydra.utils.instantiate(cfg.task.run)(run)
    finally:
        for logger in run.trainer.loggers:
            logger.finalize("success")
        finish_wandb()
    if run.trainer.is_global_zero:
        print(f"{getattr(run, 'result', 'run')}: {run.folder}", flush=True)
    if metrics.get("doctor/failed"):
        sys.exit(1)
    return metrics.get(cfg.trainer.monitor, float("nan"))


def _one_criterion(cfg: DictConfig) -> None:
    """Training labels and the labels it is evaluated by must be about the same votes."""
    for key in ("criterion", "attributes"):
        trained, evaluated = cfg.aggregation.get(key), cfg.batches.eval_aggregation.get(key)
        if trained != evaluated:
            raise RecordError(
                f"aggregation.{key}={trained}, but validation and test are labelled by "
                f"batches.eval_aggregation.{key}={evaluated}: give {key}={trained or 'null'} once, for both"
            )
