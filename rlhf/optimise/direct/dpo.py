"""Direct preference optimisation: a policy learns from preferences without a reward model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from rlhf.data.batch import Batch, Target
from rlhf.models.policy import CausalPolicy
from rlhf.reward.resumable import PreferenceModule


class DpoModule(PreferenceModule):
    """Trains a policy with a loss on log-ratios, `rlhf.reward.losses.dpo`: ties, vote shares and K > 2 included.

    The implicit reward β · log π/π_ref is what validation measures. It is known up to a constant per prompt: compare it
    within a prompt only.

    Args:
        policy: the policy; its reference is the model it starts from.
        loss: `(log_ratio[B, K], target) -> loss[B]`.
        beta: of the loss, for the implicit reward.
        options: of `ResumableModule`.
    """

    def __init__(
        self, policy: CausalPolicy, *, loss: Callable[[Tensor, Target], Tensor], beta: float, **options: Any
    ) -> None:
        super().__init__(**options)
        self.policy, self.loss, self.beta = policy, loss, beta

    def log_ratio(self, batch: Batch) -> Float[Tensor, " N"]:
        """Log-ratio, log π - log π_ref, of every completion, summed over its tokens."""
        rows: Any = batch.tokens
        difference: Tensor = self.policy.logp(rows) - self.policy.ref_logp(rows)
        return difference.sum(1)

    def preference(self, batch: Batch) -> Float[Tensor, " N"]:
        """The implicit reward."""
        return self.beta * self.log_ratio(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch."""
        self.restore_random_state()
        ratio = self.log_ratio(batch)
        per_group = self.loss(batch.unflatten(ratio), batch.target)
        loss: Tensor = (per_group * batch.target.weight).sum() / batch.denominator
        self.log("train/loss", loss * batch.denominator / len(batch), batch_size=len(batch), prog_bar=True)
        self.log("train/log_ratio", ratio.mean(), batch_size=len(batch))
        return loss
