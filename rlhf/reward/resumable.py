"""What every LightningModule here has in common: optimizer and schedule, exact resume, exact preference metrics."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
from jaxtyping import Float
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf.data.batch import Batch, TextBatch
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.reward.checkpoint import check_loaded, drop_frozen, random_state, renamed, set_random_state
from rlhf.reward.schedule import parameter_groups
from rlhf.reward.scoring.splits import Rewards, gather, scored, take


class ResumableModule(pl.LightningModule):
    """Optimizes what is trained in it; a run that is stopped anywhere goes on bit for bit.

    Args:
        optimizer: `(parameter groups) -> Optimizer`.
        schedule: `(optimizer, total_steps) -> LRScheduler`, stepped once per optimizer step.
        weight_decay: for matrices only.
    """

    def __init__(
        self,
        *,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self._optimizer, self._schedule, self.weight_decay = optimizer, schedule, weight_decay
        self.strict_loading = False  # frozen parameters are not in the checkpoint; `on_load_checkpoint` checks
        self.resume: Mapping[str, Any] | None = None
        self.wandb_id: str | None = None

    def restore_random_state(self) -> None:
        """To be called first in a training step: the random state of the checkpoint, once."""
        if self.resume is not None:
            set_random_state(self.resume)
            self.resume = None

    # ---------------------------------------------------------------------------------------- optimizing

    def groups(self) -> list[dict[str, Any]]:
        """What is trained, in the groups of `parameter_groups`."""
        return parameter_groups(self, self.weight_decay)

    def configure_optimizers(self) -> Any:
        """Optimizer over what is trained, schedule over all the steps of the run."""
        optimizer = self._optimizer(self.groups())
        total = int(self.trainer.estimated_stepping_batches)
        schedule = self._schedule(optimizer, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """As Lightning clips, but also for a fused optimizer in bf16, where there is no loss scale to undo."""
        precision = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(precision, MixedPrecision) and precision.scaler is None:
            clip_grad_norm_(self.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # --------------------------------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out frozen weights; add the random state, the W&B run and the precision."""
        checkpoint["state_dict"] = drop_frozen(self, checkpoint["state_dict"])
        checkpoint["random_state"] = random_state()
        checkpoint["wandb_id"] = self.wandb_id
        checkpoint["precision"] = str(self._trainer.precision) if self._trainer else "32-true"

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model; random state comes back before the next training step."""
        own, stored = self.state_dict(), renamed(checkpoint["state_dict"])
        checkpoint["state_dict"] = stored
        missing = [name for name in own if name not in stored]
        check_loaded(self, missing, [name for name in stored if name not in own])
        self.resume = checkpoint.get("random_state")
        taken = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader")
        if taken:
            self.trainer.datamodule.resume = taken[0]  # type: ignore[attr-defined]


class PreferenceModule(ResumableModule):
    """A module that gives every completion a reward, and is validated on preferences."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rewards: Rewards = {}

    def preference(self, batch: Batch | TextBatch) -> Float[Tensor, " N"]:
        """The one reward of every completion."""
        raise NotImplementedError

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Keep the rewards of the batch, scalars only."""
        take(self.rewards, batch, self.preference(batch))

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's rewards."""
        self.rewards = {}

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Exact metrics over the whole split: gathered over processes, repeats dropped, looked up by row."""
        rewards = gather(self.rewards)
        if self.trainer.sanity_checking:
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        metrics = evaluate(scored(data.rows["val"], data.distinct("val").of_rows(rewards)), bootstrap=0)
        shown = {"pair_accuracy", "nll", "ece"}
        wanted = {f"val/{k}": v for k, v in metrics.items() if k in shown and math.isfinite(v)}
        self.log_dict(wanted, prog_bar=True, sync_dist=True)
