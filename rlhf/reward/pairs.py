"""From rewards of completions to the labelled pairs of a prompt: what every loss on pairs starts and ends with."""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.data.batch import Target

F = TypeVar("F")


def scores(reward: Float[Tensor, "*M B K"], target: Target) -> Float[Tensor, "*M B K"]:
    """Rewards in fp32 at least (fp64 stays), with 0 on padding whatever stood there: inf, NaN or -100.

    Raises:
        ValueError: the rewards and the target are not of the same groups.
    """
    if reward.shape[-2:] != target.candidate.shape:
        raise ValueError(
            f"reward is {list(reward.shape)}, target has {list(target.candidate.shape)} completions: "
            "losses need reward[..., B, K]; flat rewards become groups by batch.unflatten(reward)"
        )
    full = torch.promote_types(reward.dtype, torch.float32)
    return torch.where(target.candidate, reward.to(full), 0)


def differences(reward: Float[Tensor, "*M B K"], target: Target) -> Float[Tensor, "*M B K K"]:
    """D[i, j] = r_i - r_j where the pair was labelled, 0 elsewhere."""
    score = scores(reward, target)
    return torch.where(target.observed, score.unsqueeze(-1) - score.unsqueeze(-2), 0)


def sum_over_pairs(value: Float[Tensor, "*M B K K"], target: Target) -> Float[Tensor, "*M B"]:
    """Weighted sum of value[i, j] over the labelled pairs i < j of each prompt; 0 for a prompt without any."""
    weights = target.weights
    return torch.where(weights > 0, value * weights, 0).sum((-2, -1))


def mean_over_pairs(value: Float[Tensor, "*M B K K"], target: Target) -> Float[Tensor, "*M B"]:
    """Weighted mean of value[i, j] over the labelled pairs i < j of each prompt; 0 for a prompt without any."""
    return per_pair(sum_over_pairs(value, target), target)


def per_pair(total: Float[Tensor, "*M B"], target: Target) -> Float[Tensor, "*M B"]:
    """A sum over the labelled pairs of each prompt as a mean; 0 stays 0."""
    return divided(total, target.pairs)


def divided(total: Float[Tensor, "*M B"], number: Float[Tensor, " B"]) -> Float[Tensor, "*M B"]:
    """Sums as means over so many; 0 stays 0."""
    return total / torch.where(number > 0, number, 1)


def per_prompt(loss: F) -> F:
    """Mark a loss under which prompts count once; under others labelled pairs do."""
    loss.per_prompt = True  # type: ignore[attr-defined]
    return loss if hasattr(loss, "number") else sum_over(lambda target: torch.ones_like(target.weight))(loss)


def sum_over(number: Callable[[Target], Tensor]) -> Callable[[F], F]:
    """Mark a loss that is a sum over `number(target)` [B] things of a prompt; others are sums over labelled pairs."""

    def mark(loss: F) -> F:
        loss.number = number  # type: ignore[attr-defined]
        return loss

    return mark


def is_per_prompt(loss: object) -> bool:
    """Do prompts count once under this loss, with or without its options?"""
    return getattr(getattr(loss, "func", loss), "per_prompt", False)


def number_in(loss: object, target: Target) -> Float[Tensor, " B"]:
    """How many pairs, or observations of another kind, the loss of every prompt is a sum over."""
    number: Callable[[Target], Tensor] | None = getattr(getattr(loss, "func", loss), "number", None)
    return target.pairs if number is None else number(target)
