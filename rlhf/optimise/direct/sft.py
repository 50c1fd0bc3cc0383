"""Supervised fine-tuning: a policy learns to say the demonstrations."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from rlhf.data.batch import Batch
from rlhf.models.policy import CausalPolicy
from rlhf.reward.resumable import ResumableModule


class SftModule(ResumableModule):
    """Trains a policy on the completions whose label is a demonstration (`rlhf.labels.demonstrations`).

    Loss: -log π per token, averaged over a completion's tokens, then over the demonstrations of a prompt, so that every
    prompt counts the same. Metrics count every token the same.

    Args:
        policy: the model; its reference is not used.
        options: of `ResumableModule`.
    """

    def __init__(self, policy: CausalPolicy, **options: Any) -> None:
        super().__init__(**options)
        self.policy = policy
        policy.frozen = None
        self.totals = torch.zeros(2, dtype=torch.float64)

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch."""
        self.restore_random_state()
        nll, tokens = self._nll(batch)
        per_row = batch.unflatten(nll / tokens.clamp(min=1))
        shown = batch.unflatten((tokens > 0).float())
        per_group = per_row.sum(-1) / shown.sum(-1).clamp(min=1)
        loss = (per_group * batch.target.weight).sum() / batch.denominator
        self.log("train/loss", loss * batch.denominator / len(batch), batch_size=len(batch), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count nats and tokens."""
        self.count(batch)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch."""
        self.totals.zero_()

    def on_validation_epoch_end(self) -> None:
        """Nats per token over the whole split."""
        if not self.trainer.sanity_checking:
            self.log("val/nll", self.mean_nll(), prog_bar=True)

    def count(self, batch: Batch) -> None:
        """Add a batch's nats and tokens to the totals."""
        nll, tokens = self._nll(batch)
        self.totals += torch.stack([nll.sum(), tokens.sum()]).double().cpu()

    def mean_nll(self) -> float:
        """Nats per token of what was counted, over all processes."""
        totals = self.totals.clone()
        if dist.is_available() and dist.is_initialized():
            shares: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(shares, totals)
            totals = torch.stack(shares).sum(0)
        return float(totals[0] / totals[1])

    def _nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Nats and tokens of every completion, 0 where it is no demonstration."""
        rows: Any = batch.tokens
        shown = torch.isfinite(batch.target.score[batch.group, batch.place, 0])
        nll = -self.policy.logp(rows).sum(1)
        return torch.where(shown, nll, 0.0), rows.response_mask.sum(1) * shown
