"""The LightningModule around a reward model: one step for every loss, exact metrics, exact resume."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf.data.batch import Batch, Target
from rlhf.models.reward_model import RewardModel
from rlhf.reward.losses import LearnedDavidson, LearnedRaoKupper, centring, dpo
from rlhf.reward.resumable import PreferenceModule

Loss = Callable[[Tensor, Target], Tensor]
"""`(reward[*M, B, K], target) -> loss[*M, B]`; a module where the loss has parameters of its own."""


class RewardModule(PreferenceModule):
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
        super().__init__(optimizer=optimizer, schedule=schedule, weight_decay=weight_decay)
        if isinstance(loss, partial) and loss.func is dpo:
            raise ValueError("loss=dpo reads a policy's log-ratios, not a head's rewards: use loss=pairwise here")
        self.model, self.loss = model, loss
        self.centring_weight = centring_weight

    # -------------------------------------------------------------------------------------------- steps

    def step_loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The batch's loss: sum over groups of weight · loss, averaged over members, over the denominator."""
        head, output = self.model.head, self.model(batch.tokens)
        reward = batch.unflatten(head.explained(output, batch.length))
        if reward.shape[-2:] != batch.target.rank.shape:
            raise ValueError(f"rewards {tuple(reward.shape)} do not fit targets {tuple(batch.target.rank.shape)}")
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
        self.restore_random_state()
        loss = self.step_loss(batch)
        self.log("train/loss", loss * batch.denominator / len(batch), batch_size=len(batch), prog_bar=True)
        return loss

    def preference(self, batch: Batch) -> Float[Tensor, " N"]:
        """The one reward of every completion."""
        return self.model.head.combine(self.model(batch.tokens))


def learned_tie_width(loss: Loss) -> float | None:
    """The tie parameter that the loss learned (Rao-Kupper's η or Davidson's ν), or None where it has none."""
    if isinstance(loss, LearnedRaoKupper):
        return float(loss.width.detach())
    return float(loss.nu.detach()) if isinstance(loss, LearnedDavidson) else None
