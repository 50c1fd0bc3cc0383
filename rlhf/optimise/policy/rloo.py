"""REINFORCE with a leave-one-out baseline (RLOO; Kool et al. 2019, Ahmadian et al. 2024).

A completion is one action: G of them per prompt, each with its shaped reward R. With A_i = R_i - mean_{j≠i} R_j the
gradient of -mean_i A_i · log π(y_i | x) is an unbiased estimate of -∇E[R], also where R holds -β · k1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def advantages(reward: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """A_i = R_i - mean of the others of the prompt; a group with a reward that is not finite teaches nothing (0).

    Raises:
        ValueError: fewer than two completions per prompt: nobody to compare with.
    """
    size = reward.shape[-1]
    if size < 2:
        raise ValueError(f"RLOO needs at least 2 completions per prompt, got {size}: task.completions=4")
    others = (reward.sum(-1, keepdim=True) - reward) / (size - 1)
    sound = torch.isfinite(reward).all(-1, keepdim=True)
    return torch.where(sound, reward - others, 0.0).detach()


def rloo_loss(logp: Float[Tensor, "P G"], reward: Float[Tensor, "P G"]) -> Float[Tensor, ""]:
    """-mean of A · log π over prompts and completions.

    Args:
        logp: log-probability of every completion: summed over its tokens, with gradient.
        reward: shaped reward of every completion, without gradient.
    """
    return -(advantages(reward) * logp).mean()
