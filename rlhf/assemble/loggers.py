"""What a run says, and where: W&B, the console, the table of a sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger


def wandb_logger(
    *, cfg: DictConfig, folder: Path, checkpoint: Path | None, project: str, entity: str | None,
    offline: bool, tags: Sequence[str],
) -> Logger:  # fmt: skip
    """One W&B run per job; the jobs of a sweep share a group; a resumed job goes on in its own run."""
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    from rlhf.reward.checkpoint import stored_wandb_id

    hydra_cfg = HydraConfig.get()
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    logger = WandbLogger(
        project=project,
        entity=entity,
        offline=offline,
        tags=list(tags),
        save_dir=str(folder),
        name=f"{hydra_cfg.job.num}:{folder.parent.name}" if sweep else folder.name,
        group=Path(hydra_cfg.sweep.dir).name if sweep else None,
        id=stored_wandb_id(checkpoint) or wandb.sdk.lib.runid.generate_id(),
        resume="allow",
        settings=wandb.Settings(silent=True),
    )
    # Lightning 2.6 passes anonymous=None on, and W&B takes any value for a setting to warn about
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    logger.log_hyperparams({**config, "overrides": list(hydra_cfg.overrides.task)})
    return logger


def job_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """The chosen logger of a task of many trainings, for the job as a whole.

    Its W&B run is noted in `logger.ckpt` of the folder, so that a job that goes on there goes on in its own run.
    """
    import torch

    note = folder / "logger.ckpt"
    logger = hydra.utils.instantiate(cfg.logger)(cfg=cfg, folder=folder, checkpoint=note if note.is_file() else None)
    if logger is None:
        return []
    torch.save({"wandb_id": str(logger.version)}, note)
    return [logger]


def no_logger(**_: object) -> None:
    """For `logger=csv`: nothing beside the CSV log."""


def keep_earlier(path: Path) -> None:
    """Give a log that is there already the next free name, `metrics.1.csv`, ...: the CSV logger would delete it."""
    if path.is_file() and os.environ.get("LOCAL_RANK", "0") == "0":
        number = 1
        while (kept := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
            number += 1
        path.rename(kept)


def finish_wandb() -> None:
    """End this job's W&B run, so that the next job of a sweep gets its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def quiet() -> None:
    """Leave warnings that a user can act on; drop chatter about what this project does on purpose."""
    import logging
    import warnings

    from transformers.utils import logging as hf

    hf.set_verbosity_error()
    hf.disable_progress_bar()
    for chatty in ("utilities.rank_zero", "trainer.connectors"):
        logging.getLogger(f"pytorch_lightning.{chatty}").setLevel(logging.WARNING)
    for known in (
        "in eval mode at the start of training",  # rollouts are without dropout
        "overridden `transfer_batch_to_device`",
        "does not have many workers",
        "Experiment logs directory .* exists and is not empty",  # they are kept
        "The `srun` command is available",
        "LeafSpec",  # inside pytorch-lightning 2.6
        "smaller than the logging interval",
        "Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", f".*{known}.*")


class SweepTableCallback(Callback):
    """Hydra callback: at the end of a sweep, one table over its jobs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write comparison.csv and comparison.md at the sweep's root; learning curves too, where jobs left some."""
        from rlhf.evaluation.sweep_table import write_comparison

        root = Path(config.hydra.sweep.dir)
        for path in write_comparison(root):
            print(f"comparison: {path}", flush=True)
        curves = sorted(root.glob("*/curve.csv"))
        if curves:
            from rlhf.select.loop.learning_curve import combine

            print(f"comparison: {combine(curves, root)}", flush=True)
