"""Proximal policy optimisation (PPO; Schulman et al. 2017): tokens are the actions, a learned value is the baseline.

A rollout is used for several passes. With the ratio to the policy that sampled it
ρ_t = π(y_t | s_t) / π_old(y_t | s_t),

    L = -mean over completions of Σ_t min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε) A_t)

Before the first step ρ = 1, and ∇L is the policy gradient -Σ_t A_t ∇log π. Generalised advantages (GAE; Schulman et al.
2016), without discount unless γ says so, V = 0 after the last token:

    δ_t = r_t + γ V_{t+1} - V_t,    A_t = δ_t + γλ A_{t+1}

λ = 1 gives the return less V_t (unbiased whatever V is), λ = 0 the TD error δ_t. A completion of one
action, as a bandit's, has A = r - V for every λ.

Advantages are not whitened, as TRL does: where β·KL is in the reward, the shaped reward of the optimal policy
π_ref · exp(r/β) is the same for all completions, and dividing by its standard deviation would leave noise of size 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Advantages(NamedTuple):
    """advantage [B, T] and what values are to become, advantage + value [B, T]; without gradient, 0 where masked."""

    advantage: Float[Tensor, "B T"]
    target: Float[Tensor, "B T"]


@torch.no_grad()
def gae(
    reward: Float[Tensor, "B T"],
    value: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    lam: float,
    gamma: float = 1.0,
) -> Advantages:
    """Generalised advantages. Masked places are not steps: the next step of a token is the next unmasked one.

    Args:
        reward: of every token, as `ShapedReward.token_rewards`.
        value: expected sum of the rewards of this and all later tokens, given what stands before the token.
        mask: True on the completion's tokens.
        lam: λ in 0..1. gamma: γ in 0..1, per token.

    Raises:
        ValueError: λ or γ outside 0..1.
    """
    if not (0 <= lam <= 1 and 0 <= gamma <= 1):
        raise ValueError(f"algorithm.lam={lam}, gamma={gamma}: both lie in 0..1")
    running, later = torch.zeros_like(value[:, 0]), torch.zeros_like(value[:, 0])
    advantage = torch.zeros_like(value)
    for t in reversed(range(value.shape[1])):
        unmasked = mask[:, t]
        running = torch.where(
            unmasked, reward[:, t] + gamma * later - value[:, t] + gamma * lam * running, running
        )
        later = torch.where(unmasked, value[:, t], later)
        advantage[:, t] = torch.where(unmasked, running, 0.0)
    return Advantages(advantage, advantage + torch.where(mask, value, 0.0))


class Surrogate(NamedTuple):
    """loss with gradient; clipped: share of the tokens whose gradient the clip removed."""

    loss: Float[Tensor, ""]
    clipped: Float[Tensor, ""]


def clipped_surrogate(
    logp: Float[Tensor, "B T"],
    old_logp: Float[Tensor, "B T"],
    advantage: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip: float,
) -> Surrogate:
    """The clipped surrogate loss, summed over tokens, averaged over completions.

    The clip removes the gradient of a token where ρ > 1 + ε and A > 0, or ρ < 1 - ε and A < 0: where the step would
    lead further away. On the other sides the gradient stays, and leads back.

    Args:
        logp: log-probabilities under the policy, with gradient.
        old_logp: under the policy that sampled, without gradient.
        advantage: of every token.
        mask: True on the completion's tokens; anything may stand elsewhere.
        clip: ε > 0.

    Raises:
        ValueError: ε is not positive.
    """
    if not clip > 0:
        raise ValueError(f"algorithm.clip={clip:g} must be positive: with 0 nothing is learned")
    apart = torch.where(mask, logp, 0.0) - torch.where(mask, old_logp, 0.0)
    ratio, gain = apart.exp(), torch.where(mask, advantage, 0.0)
    free, held = ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain
    loss = -torch.minimum(free, held).sum(1).mean()
    return Surrogate(loss, ((held < free) & mask).sum() / mask.sum().clamp(min=1))
