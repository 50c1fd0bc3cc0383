"""Losses on whole rankings: Plackett-Luce, and the choice of the best of K.

Plackett-Luce builds a ranking by choices: the best is chosen among all with probability softmax(reward), then
the second among those that remain, and so on. One such choice is called a stage.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf.data.batch import Target
from rlhf.reward.pairs import differences, per_prompt, scores, sum_over, sum_over_pairs

LARGEST_TIED = 10  # longest ranking whose ties are averaged exactly: 2^K sets of remaining completions are enumerated


def observations(target: Target) -> Float[Tensor, " B"]:
    """How many observations a listwise loss sums over: weights of rankings, and of the judged pairs in none of them."""
    rankings, weight = _rankings(target)
    return weight.sum(-1) + _apart(target, rankings).pairs


@per_prompt
@sum_over(observations)
def plackett_luce(
    reward: Float[Tensor, "*M B K"], target: Target, *, top: int | None = None, unordered_tail: bool = False
) -> Float[Tensor, "*M B"]:
    """Negative log-likelihood of the rankings (Plackett 1975; Luce 1959): Σ over stages of lse(remaining) - r.

    Every ranking that was voted is one observation, and so is every judged pair in none of them: Plackett-Luce of a
    pair is Bradley-Terry. So votes are not glued into a ranking that nobody gave, which would stretch the rewards.
    Rankings of the same completions count once, at their mean. Tied completions count as the mean of the
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
    score, rank = _members(reward, target)
    ranked = rank >= 0
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
            f"loss=plackett_luce averages ties exactly for at most {LARGEST_TIED} completions, got rankings of "
            f"{rank.shape[-1]}: set max_group={LARGEST_TIED} or loss=ranking, or loss.unordered_tail=true where "
            "only the tail is tied"
        )
    cost = (weight * _logsumexp(score.unsqueeze(-2), remaining)).sum(-1) - (chosen * score).sum(-1)
    return _with_pairs(cost, reward, target)


@per_prompt
@sum_over(observations)
def pick_best(reward: Float[Tensor, "*M B K"], target: Target) -> Float[Tensor, "*M B"]:
    """Cross-entropy over the ranked completions with the best as the class (Ziegler et al. 2019, eq. 1).

    lse_j r_j - r_best; several tied for the best share the probability of the class evenly. Rankings and pairs as in
    `plackett_luce`.
    """
    score, rank = _members(reward, target)
    ranked, best = rank >= 0, (rank >= 0) & (rank == rank[..., :1])
    any_ranked = ranked.any(-1, keepdim=True)
    total = _logsumexp(score, ranked | ~any_ranked) * any_ranked.squeeze(-1)
    return _with_pairs(total - (best * score).sum(-1) / best.sum(-1).clamp(min=1), reward, target)


def _rankings(target: Target) -> tuple[Int[Tensor, "B R K"], Float[Tensor, "B R"]]:
    """The rankings and how much they count; one of less than two completions counts nothing."""
    rankings = target.rank.unsqueeze(1) if target.rankings is None else target.rankings
    told = ((rankings >= 0).sum(-1) > 1).to(target.weight.dtype)
    return rankings, told if target.ranking_weight is None else told * target.ranking_weight


def _apart(target: Target, rankings: Int[Tensor, "B R K"]) -> Target:
    """The target with the judged pairs alone that are in no ranking."""
    ranked = (rankings >= 0).float()
    return replace(target, observed=target.observed & (ranked.mT @ ranked == 0))


def _members(reward: Float[Tensor, "*M B K"], target: Target) -> tuple[Float[Tensor, "*M B R W"], Int[Tensor, "B R W"]]:
    """Rewards and ranks of the completions of every ranking, best first; after them 0 and -1, up to the longest."""
    rankings, _ = _rankings(target)
    width = max(1, int((rankings >= 0).sum(-1).max())) if rankings.numel() else 1
    order = torch.where(rankings >= 0, rankings, torch.iinfo(rankings.dtype).max).argsort(dim=-1, stable=True)
    order = order[..., :width]
    score = scores(reward, target)
    every = score.unsqueeze(-2).expand(*score.shape[:-1], order.shape[1], score.shape[-1])
    rank = rankings.gather(-1, order)
    return torch.where(rank >= 0, every.gather(-1, order.expand(*every.shape[:-1], width)), 0), rank


def _with_pairs(
    cost: Float[Tensor, "*M B R"], reward: Float[Tensor, "*M B K"], target: Target
) -> Float[Tensor, "*M B"]:
    """What the rankings cost by their weights, and Bradley-Terry of every judged pair that is in none of them."""
    rankings, weight = _rankings(target)
    apart = _apart(target, rankings)
    difference, p = differences(reward, apart), target.win_prob
    pairs = -p * logsigmoid(difference) - (1 - p) * logsigmoid(-difference)
    return (weight * cost).sum(-1) + sum_over_pairs(pairs, apart)


def _diagonal(rank: Int[Tensor, "B R W"]) -> Bool[Tensor, "W W"]:
    return torch.eye(rank.shape[-1], dtype=torch.bool, device=rank.device)


def _logsumexp(score: Float[Tensor, "... K"], member: Bool[Tensor, "... K"]) -> Float[Tensor, "*_"]:
    """The logarithm of Σ e^score over the members of each set; no set is empty."""
    return torch.where(member, score, -math.inf).logsumexp(-1)


def _tied_stages(
    rank: Int[Tensor, "B R W"], stages: Int[Tensor, "B R 1"], dtype: torch.dtype
) -> tuple[Bool[Tensor, "S W"], Float[Tensor, "B R S"]]:
    """The sets of completions that can remain at a stage, and the probability that each one does.

    In a random order of a tie of g, the m completions that remain are a uniformly random subset of it: each has
    probability 1 / C(g, m). So the mean over g! orders is a sum over 2^g sets.

    Returns:
        member: the S = 2^W - 1 non-empty sets of completions.
        weight: how often each set remains, averaged over the orders inside ties; 0 past the first `stages`.
    """
    k = rank.shape[-1]
    places = torch.arange(k, device=rank.device)
    member = (torch.arange(1, 2**k, device=rank.device).unsqueeze(-1) >> places) & 1 == 1
    ranked, rank = (rank >= 0).unsqueeze(-2), rank.unsqueeze(-2)  # [B, R, 1, W] beside sets [S, W]
    worst = torch.iinfo(rank.dtype).max
    best = torch.where(member & ranked, rank, worst).amin(-1, keepdim=True)
    complete = (member | ~(ranked & (rank > best))).all(-1)  # whatever is worse still remains
    possible = complete & (ranked | ~member).all(-1)
    tie = ranked & (rank == best)
    ways = torch.tensor([[math.comb(g, m) for m in range(k + 1)] for g in range(k + 1)], device=rank.device)
    orders = ways[tie.sum(-1), (tie & member).sum(-1)].clamp(min=1)
    counts = ranked.sum(-1) - member.sum(-1) < stages
    return member, (possible & counts).to(dtype) / orders
