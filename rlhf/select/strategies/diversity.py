"""Selectors that spread the batch: over prompts, over differences between responses, over clusters.

Differences have no sign: swapping a pair's sides must not matter. Distances are between lines,
|z_i ∓ z_j|² = |z_i|² + |z_j|² - 2 |z_i·z_j|, and where an orientation is needed, z points to the predicted winner.
"""

import heapq
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import MiniBatchKMeans, kmeans_plusplus

from rlhf.select.checks import option
from rlhf.select.pool import BLOCK, Candidates, PairPool, Selection
from rlhf.select.strategies.selector import Selector, at_random, chosen, fill, in_groups
from rlhf.select.strategies.uncertainty import laplace_power
from rlhf.stats.arrays import Floats, Ints, Rng

SAMPLE = 100_000
"""Most candidates that k-centre, clusters and BADGE look at (their `sample`); of more, a random part."""

PROMPTS = 20_000
"""Prompts on which clusters of prompts are fitted; all of them join the nearest."""


def k_centre(candidates: Candidates, budget: int, rng: Rng, *, sample: int = SAMPLE) -> Selection:
    """Response diversity: always the difference that is farthest from all labelled and chosen ones.

    Greedy k-centre (Gonzalez 1985; core-set, Sener & Savarese 2018), within twice the best radius.
    """
    option("sample", sample, 1)
    part = some(candidates, max(sample, budget), rng)
    z = matrix(part)
    length = (z**2).sum(1)
    known = part.pool.z(part.state.rows, np.float32)
    distance = length.copy() if not len(known) else np.full(len(z), np.inf, np.float32)
    for point in known:
        np.minimum(distance, length + point @ point - 2 * np.abs(z @ point), out=distance)
    places, radii = np.empty(budget, np.int64), np.empty(budget)
    for step in range(budget):
        places[step] = place = int(np.argmax(distance))
        radii[step] = np.sqrt(max(float(distance[place]), 0.0))
        np.minimum(distance, length + length[place] - 2 * np.abs(z @ z[place]), out=distance)
        distance[places[: step + 1]] = -1
    return chosen(part, places, radii, "k-centre: distance to all labelled")


def facility_location(
    candidates: Candidates, budget: int, rng: Rng, *, sample: int = 20_000, reference: int = 2_000
) -> Selection:
    """Representatives: F(S) = Σ_i max_{j in S} |cos(z_i, z_j)| over a reference sample, lazily greedy.

    Args:
        sample: most candidates looked at.
        reference: how many stand for the whole pool; what is labelled already counts as chosen.
    """
    option("sample", sample, 1)
    option("reference", reference, 1)
    part = some(candidates, max(sample, budget), rng)
    z = _unit(matrix(part))
    points = z[np.sort(rng.permutation(len(z))[:reference])]
    covered = np.zeros(len(points), np.float32)
    for known in _unit(part.pool.z(part.state.rows, np.float32)):
        np.maximum(covered, np.abs(points @ known), out=covered)

    def gain(place: int) -> float:
        return float(np.maximum(np.abs(points @ z[place]) - covered, 0).sum())

    heap = [(-gain(place), place, 0) for place in range(len(z))]
    heapq.heapify(heap)
    places, gains = np.empty(budget, np.int64), np.empty(budget)
    for step in range(budget):
        while heap[0][2] < step:
            heapq.heapreplace(heap, (-gain(heap[0][1]), heap[0][1], step))
        value, places[step], _ = heapq.heappop(heap)
        gains[step] = -value / len(points)
        np.maximum(covered, np.abs(points @ z[places[step]]), out=covered)
    return chosen(part, places, gains, "facility location: coverage gained")


def clusters(candidates: Candidates, budget: int, rng: Rng, *, sample: int = SAMPLE) -> Selection:
    """One representative, the nearest to the centre, of each of `budget` clusters of the differences."""
    part = some(candidates, max(sample, budget), rng)
    z = matrix(part) * part.side[:, None].astype(np.float32)
    if budget >= len(part):
        return at_random(part, budget, rng)
    found = _kmeans(z, budget, rng)
    distance = np.linalg.norm(z - found.cluster_centers_[found.labels_], axis=1)
    order = np.lexsort((distance, found.labels_))
    first = order[np.unique(found.labels_[order], return_index=True)[1]]
    selection = chosen(part, first, -distance[first], "cluster representative: minus distance to the centre")
    return fill(candidates, selection, budget, rng, "fewer clusters than asked for")


def badge(candidates: Candidates, budget: int, rng: Rng, *, sample: int = SAMPLE) -> Selection:
    """Gradients under the predicted label, (1 - max(p, 1-p)) z towards the winner, spread by k-means++.

    Ash et al. (2020): plain D² sampling, one trial per centre.
    """
    part = some(candidates, max(sample, budget), rng)
    unsure = np.minimum(part.probability, 1 - part.probability)
    gradient = matrix(part) * (part.side * unsure)[:, None].astype(np.float32)
    _, places = kmeans_plusplus(gradient, budget, random_state=int(rng.integers(2**31)), n_local_trials=1)
    places = places[np.sort(np.unique(places, return_index=True)[1])]
    length = np.linalg.norm(gradient[places], axis=1)
    selection = chosen(part, places, length, "BADGE: gradient length")
    return fill(candidates, selection, budget, rng, "gradients coincide")


def prompt_coverage(
    candidates: Candidates, budget: int, rng: Rng, *, within: Selector = laplace_power,
    clusters: int | None = None, power: float = 0.5,
) -> Selection:  # fmt: skip
    """Quotas over clusters of prompts in proportion to size^power, so that rare kinds of prompts are asked about.

    What is labelled already counts towards the quotas.

    Args:
        within: how pairs are chosen in a cluster.
        clusters: of prompts, by k-means on their embeddings; None = as many as the budget.
        power: 1 = as the pool is, 0 = all clusters alike.
    """
    option("clusters", clusters, 1)
    option("power", power, 0)
    code = _prompt_clusters(candidates, min(clusters or budget, budget), rng)
    here = code[candidates.pool.prompt[candidates.rows]]
    labelled = code[candidates.pool.prompt[candidates.state.rows]]
    size = np.bincount(here, minlength=code.max() + 1)
    quota = quotas(size.astype(float) ** power, size, budget, np.bincount(labelled, minlength=len(size)))
    return in_groups(candidates, here, quota, within, rng, lambda _, reason: f"prompt coverage: {reason}")


def quotas(share: Floats, size: Ints, budget: int, done: Ints | None = None) -> Ints:
    """Whole numbers [c] that add up to the budget: filled up one by one where (done + given) / share is lowest.

    Args:
        share: [c] >= 0, relative.
        size: [c] most that can be given.
        budget: at most the sum of `size`.
        done: [c] what was given before.
    """
    done = np.zeros(len(size), np.int64) if done is None else done
    given = np.zeros(len(size), np.int64)
    share = np.maximum(share / max(share.sum(), 1e-300), 1e-9)
    for _ in range(budget):
        behind = np.where(given < size, (done + given + 1) / share, np.inf)
        given[int(np.argmin(behind))] += 1
    return given


def some(candidates: Candidates, most: int, rng: Rng) -> Candidates:
    """All candidates, or a random part where there are more than `most`."""
    if len(candidates) <= most:
        return candidates
    return candidates.only(np.sort(rng.permutation(len(candidates))[:most]))


def matrix(candidates: Candidates) -> Floats:
    """All differences at once, single precision."""
    return candidates.pool.z(candidates.rows, np.float32)


def _unit(z: Floats) -> Floats:
    return np.asarray(z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12))


def _prompt_clusters(candidates: Candidates, count: int, rng: Rng) -> Ints:
    """Cluster [P] of every prompt code; prompts are their own clusters where there are no more than `count`.

    Clusters are fitted on a sample of the candidates' prompts; the others join the nearest.
    """
    pool = candidates.pool
    prompts = int(pool.prompt.max()) + 1
    if prompts <= count:
        return np.arange(prompts)
    here = np.unique(pool.prompt[candidates.rows])
    embedded = _prompt_features(pool)
    found = _kmeans(embedded(np.sort(rng.permutation(here)[:PROMPTS])), min(count, len(here)), rng)
    blocks = np.array_split(np.arange(prompts), -(-prompts // BLOCK))
    return np.concatenate([found.predict(embedded(block)) for block in blocks]).astype(np.int64)


def _prompt_features(pool: PairPool) -> Callable[[Ints], Floats]:
    """Codes of prompts to their embeddings, single precision: given, or the mean over the prompt's completions."""
    if pool.prompt_features is not None:
        given = pool.prompt_features
        return lambda codes: np.asarray(given[codes], np.float32)
    sides = [pool.left] if pool.right is None else [pool.left, pool.right]
    owner = np.full(len(pool.features), -1)
    for side in sides:
        owner[side] = pool.prompt
    seen = np.flatnonzero(owner >= 0)
    shape = (int(pool.prompt.max()) + 1, len(owner))
    belongs = csr_array((np.ones(len(seen), np.float32), (owner[seen], seen)), shape=shape)
    size = np.maximum(belongs.sum(1), 1)

    def mean(codes: Ints) -> Floats:
        part = belongs[codes]
        rows = pool.features[part.indices].astype(np.float32)
        shape = (len(codes), len(rows))
        total = csr_array((part.data, np.arange(len(rows)), part.indptr), shape=shape) @ rows
        return np.asarray(total / size[codes, None], np.float32)

    return mean


def _kmeans(points: Floats, count: int, rng: Rng) -> MiniBatchKMeans:
    seed = int(rng.integers(2**31))
    return MiniBatchKMeans(count, batch_size=4096, n_init=1, max_no_improvement=5, random_state=seed).fit(points)
