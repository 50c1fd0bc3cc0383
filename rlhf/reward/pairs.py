"""From rewards of completions to the labelled pairs of a prompt: what every loss on pairs starts and ends with."""

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.data.batch import Target


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
    """Sum of value[i, j] over the labelled pairs i < j of each prompt; 0 for a prompt without any."""
    return torch.where(target.observed.triu(1), value, 0).sum((-2, -1))


def mean_over_pairs(value: Float[Tensor, "*M B K K"], target: Target) -> Float[Tensor, "*M B"]:
    """Mean of value[i, j] over the labelled pairs i < j of each prompt; 0 for a prompt without any."""
    return sum_over_pairs(value, target) / target.observed.triu(1).sum((-2, -1)).clamp(min=1)
