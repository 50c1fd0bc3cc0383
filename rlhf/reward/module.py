"""The LightningModule around a reward model: one step for every loss, exact metrics, exact resume."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf.data.batch import Batch, Target, TextBatch
from rlhf.data.weighing import Weighing, pairs, prompts
from rlhf.models.reward_model import RewardModel
from rlhf.reward.losses import LearnedDavidson, LearnedRaoKupper, centring, dpo
from rlhf.reward.pairs import divided, is_per_prompt, number_in
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
        weighing: what counts once; losses of one number per prompt count prompts.
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
        weighing: Weighing = pairs,
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule, weight_decay=weight_decay)
        if isinstance(loss, partial) and loss.func is dpo:
            raise ValueError("loss=dpo reads a policy's log-ratios, not a head's rewards: use loss=pairwise here")
        self.model, self.loss = model, loss
        self.centring_weight = centring_weight
        self.weighing = weighing_of(loss, weighing)

    # -------------------------------------------------------------------------------------------- steps

    def step_loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The batch's loss: sum over groups of units · mean loss, averaged over members, over the denominator."""
        head, output = self.model.head, self.model(batch.tokens)
        reward = batch.unflatten(head.explained(output, batch.length))
        if reward.shape[-2:] != batch.target.rank.shape:
            raise ValueError(f"rewards {tuple(reward.shape)} do not fit targets {tuple(batch.target.rank.shape)}")
        per_group = mean_loss(self.loss, reward, batch.target)
        if self.centring_weight and per_group.shape == reward.shape[:-1]:
            per_group = per_group + self.centring_weight * centring(reward, batch.target)
        weight = units = units_of(batch.target, self.weighing)
        weight = weight * batch.target.weight
        member = head.member_weight(batch.row)
        if member is not None:
            weight = weight * member
        total: Tensor = (per_group * weight).sum(-1).mean() / batch.denominator
        penalty = head.penalty(output, batch.length, batch.group)
        return total if penalty is None else total + penalty * units.sum() / batch.denominator

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch."""
        self.restore_random_state()
        loss = self.step_loss(batch)
        log_loss(self, loss, batch, self.weighing)
        return loss

    def preference(self, batch: Batch | TextBatch) -> Float[Tensor, " N"]:
        """The one reward of every completion."""
        return self.model.head.combine(self.model(batch.tokens))


def mean_loss(loss: Loss, reward: Float[Tensor, "*M B K"], target: Target) -> Float[Tensor, "*M B"]:
    """The loss per judged pair of each group, or per observation of another kind that it sums over."""
    return divided(loss(reward, target), number_in(loss, target))


def weighing_of(loss: Loss, asked: Weighing) -> Weighing:
    """What counts once under a loss."""
    return prompts if is_per_prompt(loss) else asked


def units_of(target: Target, weighing: Weighing) -> Float[Tensor, " B"]:
    """How much each group counts; see `rlhf.data.weighing`."""
    held = target.pairs
    units: Tensor = weighing(held, held if target.prompt_pairs is None else target.prompt_pairs)
    return units


def log_loss(module: PreferenceModule, loss: Float[Tensor, ""], batch: Batch, weighing: Weighing) -> None:
    """`train/loss`, the mean per unit (per judged pair, log 2 = 0.693 knows nothing), and how many pairs were met."""
    units = (units_of(batch.target, weighing) * batch.target.weight).sum()
    shown = loss.detach() * batch.denominator / torch.where(units > 0, units, 1)
    module.log("train/loss", shown, batch_size=len(batch), prog_bar=True)
    met = batch.target.observed.triu(1).sum().float()
    module.log("train/pairs_met", met, on_step=False, on_epoch=True, reduce_fx="sum", batch_size=len(batch))


def learned_tie_width(loss: Loss) -> float | None:
    """The tie parameter that the loss learned (Rao-Kupper's η or Davidson's ν), or None where it has none."""
    if isinstance(loss, LearnedRaoKupper):
        return float(loss.width.detach())
    return float(loss.nu.detach()) if isinstance(loss, LearnedDavidson) else None
