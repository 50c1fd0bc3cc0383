"""Losses on whole rankings: Plackett-Luce, and the choice of the best of K.

Plackett-Luce builds a ranking by choices: the best is chosen among all with probability softmax(reward), then
the second among those that remain, and so on. One such choice is called a stage.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf.data.batch import Target
from rlhf.reward.pairs import differences, per_prompt, scores, sum_over, sum_over_pairs

LARGEST_TIED = 10  # largest K for which ties are averaged exactly: 2^K sets of remaining completions are enumerated


def observations(target: Target) -> Float[Tensor, " B"]:
    """How many observations a listwise loss sums over: sets that were ranked together, and weights of other pairs."""
    if target.ranked_set is None:
        return torch.ones_like(target.weight)
    members, apart = _observations(target)
    return sum(((own.sum(-1) > 1).to(apart.pairs.dtype) for own in members), apart.pairs)


@per_prompt
@sum_over(observations)
def plackett_luce(
    reward: Float[Tensor, "*M B K"], target: Target, *, top: int | None = None, unordered_tail: bool = False
) -> Float[Tensor, "*M B"]:
    """Negative log-likelihood of the ranking (Plackett 1975; Luce 1959): Σ over stages of lse(remaining) - r.

    A set of completions that votes ranked together is one observation; every other judged pair is one of its own, and
    Plackett-Luce of a pair is Bradley-Terry. So independent votes on pairs are not glued into a ranking that nobody
    gave. Completions that were not ranked (rank -1) take no part. Tied completions count as the mean of the
    log-likelihood over all orders inside the tie, so that two completions give `soft_label`, ties included.

    Args:
        top: only the first `top` places count (a top-m ranking); None = all. `top=1` is `pick_best`.
        unordered_tail: the last tied group was left unordered, not voted equal ("these two are the best, I
            did not look at the rest"): its inner stages do not count.

    Raises:
        ValueError: `top` < 1, or ties among more than `LARGEST_TIED` completions.
    """
    if top is not None and top < 1:
        raise ValueError(f"loss.top={top}: count at least the first place, or null for all of them")
    of_set = partial(_of_set, top=top, unordered_tail=unordered_tail)
    return _over_sets(of_set, scores(reward, target), target)


def _of_set(
    score: Float[Tensor, "*M B K"], rank: Int[Tensor, "B K"], *, top: int | None, unordered_tail: bool
) -> Float[Tensor, "*M B"]:
    """Plackett-Luce of one ranking per prompt."""
    ranked = rank >= 0
    score = torch.where(ranked, score, 0)
    ordered = ranked & ~(rank == rank.amax(-1, keepdim=True)) if unordered_tail else ranked
    stages = ordered.sum(-1, keepdim=True).clamp(max=top if top is not None else rank.shape[-1])
    above = ranked.unsqueeze(-2) & (rank.unsqueeze(-2) < rank.unsqueeze(-1))  # [i, j]: j stands above i
    tied = ranked.unsqueeze(-2) & (rank.unsqueeze(-2) == rank.unsqueeze(-1))
    size = tied.sum(-1).clamp(min=1)
    places = (stages - above.sum(-1)).clamp(min=0).minimum(size)  # of a tie's places, those that count
    chosen = ranked * places.to(score.dtype) / size
    if not ((size > 1) & (chosen > 0)).any():
        remaining, weight = (ranked.unsqueeze(-2) & ~above) | _diagonal(rank), chosen
    elif rank.shape[-1] <= LARGEST_TIED:
        remaining, weight = _tied_stages(rank, stages, score.dtype)
    else:
        raise ValueError(
            f"loss=plackett_luce averages ties exactly for at most {LARGEST_TIED} completions, got groups of "
            f"{rank.shape[-1]}: set max_group={LARGEST_TIED} or loss=ranking, or loss.unordered_tail=true where "
            "only the tail is tied"
        )
    return (weight * _logsumexp(score.unsqueeze(-2), remaining)).sum(-1) - (chosen * score).sum(-1)


@per_prompt
@sum_over(observations)
def pick_best(reward: Float[Tensor, "*M B K"], target: Target) -> Float[Tensor, "*M B"]:
    """Cross-entropy over the ranked completions with the best as the class (Ziegler et al. 2019, eq. 1).

    lse_j r_j - r_best; several tied for the best share the probability of the class evenly. Sets and pairs as in
    `plackett_luce`.
    """
    return _over_sets(_best_of_set, scores(reward, target), target)


def _best_of_set(score: Float[Tensor, "*M B K"], rank: Int[Tensor, "B K"]) -> Float[Tensor, "*M B"]:
    ranked, best = rank >= 0, rank == 0
    score = torch.where(ranked, score, 0)
    any_ranked = ranked.any(-1, keepdim=True)
    total = _logsumexp(score, ranked | ~any_ranked) * any_ranked.squeeze(-1)
    return total - (best * score).sum(-1) / best.sum(-1).clamp(min=1)


def _over_sets(
    of_set: Callable[[Tensor, Tensor], Tensor], score: Float[Tensor, "*M B K"], target: Target
) -> Float[Tensor, "*M B"]:
    """A listwise loss of every set that was ranked together, and Bradley-Terry of every other pair that was judged."""
    if target.ranked_set is None:
        return of_set(score, target.rank)
    members, apart = _observations(target)
    found = [of_set(score, torch.where(own, target.rank, -1)) for own in members]
    difference, p = differences(score, apart), target.win_prob
    cost = -p * logsigmoid(difference) - (1 - p) * logsigmoid(-difference)
    return sum(found, sum_over_pairs(cost, apart))


def _observations(target: Target) -> tuple[list[Bool[Tensor, "B K"]], Target]:
    """Members of every set that was ranked together, and the target with the other judged pairs alone."""
    sets = torch.full_like(target.rank, -1) if target.ranked_set is None else target.ranked_set
    same = (sets.unsqueeze(-1) == sets.unsqueeze(-2)) & (sets >= 0).unsqueeze(-1)
    members = [sets == n for n in range(int(sets.max()) + 1)]
    return members, replace(target, observed=target.observed & ~same)


def _diagonal(rank: Int[Tensor, "B K"]) -> Bool[Tensor, "K K"]:
    return torch.eye(rank.shape[-1], dtype=torch.bool, device=rank.device)


def _logsumexp(score: Float[Tensor, "... K"], member: Bool[Tensor, "... K"]) -> Float[Tensor, "*_"]:
    """The logarithm of Σ e^score over the members of each set; no set is empty."""
    return torch.where(member, score, -math.inf).logsumexp(-1)


def _tied_stages(
    rank: Int[Tensor, "B K"], stages: Int[Tensor, "B 1"], dtype: torch.dtype
) -> tuple[Bool[Tensor, "S K"], Float[Tensor, "B S"]]:
    """The sets of completions that can remain at a stage, and the probability that each one does.

    In a random order of a tie of g, the m completions that remain are a uniformly random subset of it: each has
    probability 1 / C(g, m). So the mean over g! orders is a sum over 2^g sets.

    Returns:
        member: the S = 2^K - 1 non-empty sets of completions.
        weight: how often each set remains, averaged over the orders inside ties; 0 past the first `stages`.
    """
    k = rank.shape[-1]
    places = torch.arange(k, device=rank.device)
    member = (torch.arange(1, 2**k, device=rank.device).unsqueeze(-1) >> places) & 1 == 1
    ranked, rank = (rank >= 0).unsqueeze(-2), rank.unsqueeze(-2)  # [B, 1, K] beside sets [S, K]
    worst = torch.iinfo(rank.dtype).max
    best = torch.where(member & ranked, rank, worst).amin(-1, keepdim=True)
    complete = (member | ~(ranked & (rank > best))).all(-1)  # whatever is worse still remains
    possible = complete & (ranked | ~member).all(-1)
    tie = ranked & (rank == best)
    ways = torch.tensor([[math.comb(g, m) for m in range(k + 1)] for g in range(k + 1)], device=rank.device)
    orders = ways[tie.sum(-1), (tie & member).sum(-1)].clamp(min=1)
    counts = ranked.sum(-1) - member.sum(-1) < stages
    return member, (possible & counts).to(dtype) / orders
