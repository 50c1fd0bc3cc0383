"""Batches that tell most about the head together: greedy log-determinant of the posterior's precision.

    F(S) = log det(H + Σ_{i in S} w_i z_i z_iᵀ) - log det H,   F(S + i) - F(S) = log(1 + w_i z_iᵀ A⁻¹ z_i)

F is monotone and submodular: the greedy batch has at least 1 - 1/e of the best one's value (Nemhauser et al. 1978; for
Bradley-Terry designs Guo et al. 2018). Gains only fall, so an old gain is an upper bound and most are never looked at
again (lazy greedy, Minoux 1978): the batch is the same, memory is one number per candidate.
"""

from __future__ import annotations

import heapq

import numpy as np

from rlhf.select.choosing import chosen
from rlhf.select.pool import Candidates, Floats, Ints, Selection
from rlhf.select.uncertainty import vote_information

BLOCK = 256


def log_det(
    candidates: Candidates, budget: int, rng: np.random.Generator, *, reliability: float = 1.0, votes: float = 1.0,
    cost_power: float = 0.0, cap: float | None = None,
) -> Selection:  # fmt: skip
    """The greedy batch: what is already chosen counts, so near-copies are not chosen twice.

    Args:
        candidates, budget: as everywhere.
        rng: not used; equal gains go to the first by id.
        reliability: γ of an annotator.
        votes: m votes to be bought on each.
        cost_power: gains count per cost^power.
        cap: differences longer than this quantile (0..1) of all lengths are shortened to it, so that a few extreme
            pairs, which a linear head fits worst, do not win by their length alone; None leaves them.
    """
    weight = vote_information(candidates, reliability, votes)
    if cap is not None:
        weight = weight * _shorten(candidates, cap)
    price = candidates.pool.cost[candidates.rows] ** cost_power
    places, gains = greedy(candidates, weight, price, budget)
    return chosen(candidates, places, gains, "log-det gain")


def _shorten(candidates: Candidates, quantile: float) -> Floats:
    """Factor on w [n] that does what shortening z to the quantile of |z| does."""
    length = candidates.each(lambda z: (z**2).sum(1))
    return np.asarray(np.minimum(1, np.quantile(length, quantile) / np.maximum(length, 1e-300)))


def greedy(candidates: Candidates, weight: Floats, price: Floats, budget: int) -> tuple[Ints, Floats]:
    """Places of the greedy batch in order [k], and the gain of each when it was chosen [k], in nats per price."""
    covariance = candidates.state.posterior.covariance()
    bound = np.log1p(weight * candidates.variance) / price
    order = np.argsort(-bound, kind="stable")
    seen = 0
    heap: list[tuple[float, int, int]] = []
    places = np.empty(budget, dtype=np.int64)
    gains = np.empty(budget)

    def push(block: Ints, step: int) -> None:
        z = candidates.pool.z(candidates.rows[block])
        fresh = np.log1p(weight[block] * np.einsum("nd,nd->n", z @ covariance, z)) / price[block]
        for gain, place in zip(fresh.tolist(), block.tolist(), strict=True):
            heapq.heappush(heap, (-gain, place, step))

    for step in range(budget):
        while True:
            if seen < len(order) and (not heap or bound[order[seen]] >= -heap[0][0]):
                push(order[seen : seen + BLOCK], step)
                seen += BLOCK
            elif heap[0][2] == step:
                break
            else:
                stale: list[int] = []
                while heap and heap[0][2] < step and len(stale) < BLOCK // 8:
                    stale.append(heapq.heappop(heap)[1])
                push(np.array(stale), step)
        gain, place, _ = heapq.heappop(heap)
        places[step], gains[step] = place, -gain
        direction = covariance @ candidates.pool.z(candidates.rows[[place]])[0]
        length = float(candidates.pool.z(candidates.rows[[place]])[0] @ direction)
        covariance -= np.outer(direction, direction) * (weight[place] / (1 + weight[place] * length))
    return places, gains
