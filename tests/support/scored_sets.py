"""Scored sets for the tests: pairs given by their votes, ranked groups, and simulated ones."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from rlhf.evaluation.metrics.scored import Scored, ScoredGroup
from rlhf.stats.arrays import Floats


def group(
    reward: ArrayLike,
    win_prob: ArrayLike,
    *,
    prompt: str = "p",
    domain: str | None = None,
    length: ArrayLike | None = None,
    rank: ArrayLike | None = None,
    tie_prob: ArrayLike = 0.0,
    votes: float = 1.0,
) -> ScoredGroup:
    """A group with every pair labelled; `win_prob` and `tie_prob` are [K, K], of which the upper triangle counts."""
    reward = np.asarray(reward, dtype=float)
    k = len(reward)
    win, tie = (np.triu(np.broadcast_to(np.asarray(p, dtype=float), (k, k)), 1) for p in (win_prob, tie_prob))
    observed = ~np.eye(k, dtype=bool)
    return ScoredGroup(
        prompt=prompt,
        domain=domain,
        reward=reward,
        length=np.full(k, 10) if length is None else np.asarray(length),
        rank=np.full(k, -1) if rank is None else np.asarray(rank),
        win_prob=win + np.tril(1 - win.T, -1),
        tie_prob=tie + tie.T,
        observed=observed,
        votes=np.where(observed, votes, 0.0),
    )


def pair(
    first: float,
    second: float,
    wins: int,
    ties: int,
    losses: int,
    *,
    prompt: str = "p",
    domain: str | None = None,
    length: Sequence[int] = (10, 10),
) -> ScoredGroup:
    """Two completions with their rewards, and the votes that put the first above, level with, below the second."""
    votes = wins + ties + losses
    win, tie = (wins + ties / 2) / votes, ties / votes
    return group([first, second], win, prompt=prompt, domain=domain, length=length, tie_prob=tie, votes=votes)


def ranked(reward: ArrayLike, rank: ArrayLike, *, prompt: str = "p") -> ScoredGroup:
    """Completions with their rewards and ranks (0 = best); -1 is not ranked and even with everything."""
    order = np.asarray(rank)
    return group(reward, 0.5 - np.sign(order[:, None] - order[None, :]) / 2, rank=rank, prompt=prompt)


def of_pairs(difference: ArrayLike, win_prob: ArrayLike, prompt: ArrayLike | None = None) -> Scored:
    """One group of two per entry: the first has the reward `difference`, the second 0; one vote, equal lengths."""
    difference, win_prob = np.asarray(difference, dtype=float), np.asarray(win_prob, dtype=float)
    n = len(difference)
    return Scored(
        group=np.repeat(np.arange(n), 2),
        reward=np.stack([difference, np.zeros(n)], 1).ravel(),
        length=np.full(2 * n, 10.0),
        rank=np.full(2 * n, -1),
        prompt=np.arange(n) if prompt is None else np.asarray(prompt),
        domain=np.full(n, -1),
        first=np.arange(n) * 2,
        second=np.arange(n) * 2 + 1,
        win_prob=win_prob,
        tie_prob=np.zeros(n),
        votes=np.ones(n),
        domains=(),
    )


def simulate(prompts: int, k: int, rng: np.random.Generator, *, scale: float = 1.0) -> Scored:
    """K completions per prompt; one Bradley-Terry vote on each pair; the rewards are `scale` times the true ones."""
    groups = []
    for number in range(prompts):
        truth = rng.normal(size=k)
        won = rng.random((k, k)) < _sigmoid(truth[:, None] - truth[None, :])
        length = rng.integers(1, 100, k)
        rank = np.argsort(np.argsort(-truth))
        groups.append(group(scale * truth, won, prompt=str(number), length=length, rank=rank))
    return Scored.from_groups(groups)


def swapped(scored: Scored) -> Scored:
    """The same set with the two sides of every pair exchanged."""
    return replace(scored, first=scored.second, second=scored.first, win_prob=1 - scored.win_prob)


def random_groups(rng: np.random.Generator, count: int) -> list[ScoredGroup]:
    """Groups of two to five with integer rewards and ranks, so that some tie."""
    sizes = rng.integers(2, 6, count)
    return [
        group(rng.integers(-3, 4, k), 1.0, rank=rng.integers(0, 3, k), length=rng.integers(1, 50, k), prompt=str(i))
        for i, k in enumerate(sizes)
    ]


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))
