"""The LightningModule around a reward model: one step for every loss, exact metrics, exact resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
from jaxtyping import Float
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf.data.batch import Batch, Target
from rlhf.data.pool import PoolBatch
from rlhf.judge.metrics import evaluate
from rlhf.reward.checkpoint import check_loaded, drop_frozen, random_state, set_random_state
from rlhf.reward.losses import LearnedDavidson, LearnedRaoKupper, centring, dpo
from rlhf.reward.model import RewardModel
from rlhf.reward.schedule import parameter_groups
from rlhf.reward.scoring import Rewards, gather, scored, take

Loss = Callable[[Tensor, Target], Tensor]
"""`(reward[*M, B, K], target) -> loss[*M, B]`; a module where the loss has parameters of its own."""


class RewardModule(pl.LightningModule):
    """Trains a `RewardModel` with any loss of `rlhf.reward.losses`.

    Args:
        model: tokens to rewards.
        loss: rewards and targets to one loss per group.
        optimizer: `(parameter groups) -> Optimizer`.
        schedule: `(optimizer, total_steps) -> LRScheduler`, stepped once per optimizer step.
        weight_decay: for matrices only.
        centring_weight: c of the regulariser c · mean((r_i + r_j)²) (Eisenstein et al. 2023, eq. 2).

    Raises:
        ValueError: the loss is `dpo`, which is about a policy.
    """

    def __init__(
        self,
        model: RewardModel,
        *,
        loss: Loss,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        weight_decay: float = 0.0,
        centring_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(loss, partial) and loss.func is dpo:
            raise ValueError(
                "loss=dpo reads a policy's log-ratios, not a head's rewards: use loss=pairwise here"
            )
        self.model, self.loss = model, loss
        self._optimizer, self._schedule = optimizer, schedule
        self.weight_decay, self.centring_weight = weight_decay, centring_weight
        self.strict_loading = (
            False  # frozen parameters are not in the checkpoint; `on_load_checkpoint` checks
        )
        self.rewards: Rewards = {}
        self.resume: Mapping[str, Any] | None = None
        self.wandb_id: str | None = None

    # -------------------------------------------------------------------------------------------- steps

    def step_loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The batch's loss: sum over groups of weight · loss, averaged over members, over the denominator."""
        head, output = self.model.head, self.model(batch.tokens)
        reward = batch.unflatten(head.explained(output, batch.length))
        if reward.shape[-2:] != batch.target.rank.shape:
            raise ValueError(
                f"rewards {tuple(reward.shape)} do not fit targets {tuple(batch.target.rank.shape)}"
            )
        per_group = self.loss(reward, batch.target)
        if self.centring_weight and per_group.shape == reward.shape[:-1]:
            per_group = per_group + self.centring_weight * centring(reward, batch.target)
        weight = batch.target.weight
        member = head.member_weight(batch.row)
        if member is not None:
            weight = weight * member
        total: Tensor = (per_group * weight).sum(-1).mean() / batch.denominator
        penalty = head.penalty(output, batch.length, batch.group)
        return total if penalty is None else total + penalty * len(batch) / batch.denominator

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch."""
        if self.resume is not None:
            set_random_state(self.resume)
            self.resume = None
        loss = self.step_loss(batch)
        self.log("train/loss", loss * batch.denominator / len(batch), batch_size=len(batch), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the rewards of the batch, scalars only."""
        self._keep(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the rewards of the batch, scalars only."""
        self._keep(batch)

    def predict_step(self, batch: PoolBatch) -> tuple[Tensor, Tensor]:
        """Rewards `[N]` of a pool's batch, and every member's `[M, N]` (the same `[N]` where there is one)."""
        members = self.model(batch.tokens)
        return self.model.head.combine(members).float().cpu(), members.float().cpu()

    def _keep(self, batch: Batch) -> None:
        reward = self.model.head.combine(self.model(batch.tokens))
        take(self.rewards, batch, reward)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's rewards."""
        self.rewards = {}

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Exact metrics over the whole split: gathered over processes, repeats dropped by row."""
        rewards = gather(self.rewards)
        if self.trainer.sanity_checking:
            return
        rows = self.trainer.datamodule.rows["val"]  # type: ignore[attr-defined]
        metrics = evaluate(scored(rows, rewards), bootstrap=0)
        shown = {"pair_accuracy", "nll", "ece"}
        wanted = {f"val/{k}": v for k, v in metrics.items() if k in shown and math.isfinite(v)}
        self.log_dict(wanted, prog_bar=True, sync_dist=True)

    # ---------------------------------------------------------------------------------------- optimizing

    def configure_optimizers(self) -> Any:
        """Optimizer over what is trained, schedule over all the steps of the run."""
        optimizer = self._optimizer(parameter_groups(self, self.weight_decay))
        total = int(self.trainer.estimated_stepping_batches)
        schedule = self._schedule(optimizer, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Any = None,
    ) -> None:
        """As Lightning clips, but also for a fused optimizer in bf16, where there is no loss scale to undo."""
        precision = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(precision, MixedPrecision) and precision.scaler is None:
            clip_grad_norm_(self.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # --------------------------------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out frozen weights; add the random state and the W&B run."""
        checkpoint["state_dict"] = drop_frozen(self, checkpoint["state_dict"])
        checkpoint["random_state"] = random_state()
        checkpoint["wandb_id"] = self.wandb_id

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model; random state comes back before the next training step."""
        own, stored = self.state_dict(), checkpoint["state_dict"]
        missing = [name for name in own if name not in stored]
        check_loaded(self, missing, [name for name in stored if name not in own])
        self.resume = checkpoint.get("random_state")
        taken = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader")
        if taken:
            self.trainer.datamodule.resume = taken[0]  # type: ignore[attr-defined]


def learned_tie_width(loss: Loss) -> float | None:
    """The tie parameter that the loss learned (Rao-Kupper's η or Davidson's ν), or None where it has none."""
    if isinstance(loss, LearnedRaoKupper):
        return float(loss.width.detach())
    return float(loss.nu.detach()) if isinstance(loss, LearnedDavidson) else None
