"""Rank agreement inside each group, then averaged over groups; never pooled across prompts."""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlhf.evaluation.metrics.scored import Scored
from rlhf.labels.orders import above, compared_sets
from rlhf.stats.arrays import Bools, Floats, Ints
from rlhf.stats.bootstrap import (
    DIFFERENCE,
    SHARE,
    Estimate,
    cluster_bootstrap,
    cluster_mean,
    cluster_sums,
    ratio,
    unanimous,
)
from rlhf.stats.ranks import ranks_of

CHUNK = 2_000_000
"""Comparisons of two completions held at once; bounds memory at some 16 MB per array."""


def stacks(scored: Scored, keep: Bools, sets: Ints | None = None) -> Iterator[tuple[Ints, Floats, Floats, Floats]]:
    """Number [G_k] and reward, rank, length [G_k, k] of groups with k >= 2 kept completions, in stacks of equal k.

    Args:
        scored: the set.
        keep: [N] which completions take part.
        sets: [N] numbers of other groups than those of the set.
    """
    sets = scored.group if sets is None else sets
    items = np.flatnonzero(keep)[np.argsort(sets[keep], kind="stable")]
    group = sets[items]
    sizes = np.bincount(group, minlength=1)
    columns = [c[items].astype(np.float64) for c in (scored.reward, scored.rank, scored.length)]
    for k in np.unique(sizes[sizes >= 2]):
        rows = (sizes == k)[group]
        reward, rank, length = (c[rows].reshape(-1, k) for c in columns)
        number = group[rows].reshape(-1, k)[:, 0]
        step = max(1, CHUNK // int(k) ** 2)
        for start in range(0, len(reward), step):
            part = slice(start, start + step)
            yield number[part], reward[part], rank[part], length[part]


def connected_sets(scored: Scored) -> Ints:
    """Number [N] of the set of completions that comparisons connect."""
    compared = coo_array((np.ones(len(scored.first)), (scored.first, scored.second)), shape=(len(scored.group),) * 2)
    return np.asarray(connected_components(compared, directed=False)[1], dtype=np.int64)


def spearman(a: Floats, b: Floats) -> Floats:
    """Spearman's rho [G] of every row of a and b [G, k], ties at their mean rank; NaN where a row is constant."""
    x, y = (ranks_of(values) - (values.shape[-1] + 1) / 2 for values in (a, b))
    return ratio((x * y).sum(-1), np.sqrt((x**2).sum(-1) * (y**2).sum(-1)))


def spearman_influence(a: Floats, b: Floats) -> tuple[float, Floats]:
    """Spearman's rho of a and b [N], ties at their mean rank, and the influence [N] of every entry on it.

    With F and G the mid-distribution functions less one half, rho = N / √(A B) of N = mean FG, A = mean F²,
    B = mean G². An entry moves them itself and by moving the ranks of all others, k(x, y) = [x < y] + [x = y] / 2:
    dN_i = F_i G_i + mean_j k(a_i, a_j) G_j + mean_j k(b_i, b_j) F_j - 3 N, and so on (Croux & Dehon 2010). The
    influences have mean 0; both are NaN where a or b is constant.
    """
    n = len(a)
    f, g = ((ranks_of(values) - 0.5) / n - 0.5 for values in (a, b))
    product, f2, g2 = (float(v.mean()) for v in (f * g, f * f, g * g))  # not BLAS: its sums depend on threads
    if not f2 > 0 or not g2 > 0:
        return np.nan, np.full(n, np.nan)
    by_a, by_b = _above(a, np.stack([g, f])), _above(b, np.stack([f, g]))
    d_product = f * g + by_a[0] + by_b[0] - 3 * product
    d_f2, d_g2 = f**2 + 2 * by_a[1] - 3 * f2, g**2 + 2 * by_b[1] - 3 * g2
    rho = product / np.sqrt(f2 * g2)
    return float(rho), d_product / np.sqrt(f2 * g2) - rho / 2 * (d_f2 / f2 + d_g2 / g2)


def correlation(a: Floats, b: Floats, cluster: Ints, *, samples: int, seed: int) -> Estimate:
    """Spearman of a and b [N] over all entries together, with its interval over clusters; NaN where one is constant.

    From the influence function (`spearman_influence`): exact to first order.
    """
    rho, influence = spearman_influence(a, b)
    found = cluster_mean(rho + influence, cluster, samples=samples, seed=seed)
    return Estimate(rho, *np.clip([found.low, found.high], -1.0, 1.0).tolist())


def _above(x: Floats, values: Floats) -> Floats:
    """mean_j k(x_i, x_j) values_j [V, N] of values [V, N], k = 1 where x_j is larger, one half where it is equal."""
    _, place = np.unique(x, return_inverse=True)
    sums = np.stack([np.bincount(place, row) for row in values])
    larger = sums.sum(1, keepdims=True) - np.cumsum(sums, axis=1) + sums / 2
    return np.asarray(larger[:, place] / len(x))


def kendall(a: Floats, b: Floats) -> Floats:
    """Kendall's tau-b [G] of every row of a and b [G, k]; NaN where a row is constant."""
    x, y = (np.sign(values[..., :, None] - values[..., None, :]) for values in (a, b))
    return ratio((x * y).sum((-1, -2)), np.sqrt((x**2).sum((-1, -2)) * (y**2).sum((-1, -2))))


def ndcg(reward: Floats, rank: Floats) -> Floats:
    """Normalised discounted cumulative gain [G] of the order that the rewards [G, k] give (Järvelin & Kekäläinen 2002).

    An answer gains as many points as there are answers ranked below it; equal rewards share their places.
    """
    gain = (rank[:, :, None] < rank[:, None, :]).sum(-1).astype(np.float64)
    equal = reward[:, :, None] == reward[:, None, :]
    shared = (equal * gain[:, None, :]).sum(-1) / equal.sum(-1)
    discount = 1 / np.log2(np.arange(2, reward.shape[-1] + 2))
    found = np.take_along_axis(shared, np.argsort(-reward, axis=-1, kind="stable"), -1) @ discount
    return ratio(found, -np.sort(-gain, axis=-1) @ discount)


NAMES = ("spearman", "kendall", "top1", "ndcg")


def rank_values(scored: Scored) -> tuple[Ints, dict[str, Floats], int]:
    """Number [R] of every ranked group, its `spearman`, `kendall`, `top1`, `ndcg` [R], and how many had no order.

    Ranked are the groups whose votes rank at least two completions apart. A group on which the model gives only
    equal rewards has no correlation: it counts as 0, so that a model gains nothing by being silent where it is hard.
    Where votes compared only some pairs, only these count, and what follows from them (`of_partial_order`); `top1` and
    `ndcg` are then NaN where no best one is known.
    """
    numbers, undefined = [np.zeros(0, np.int64)], 0
    rows: dict[str, list[Floats]] = {name: [np.zeros(0)] for name in NAMES}
    whole = _compared_throughout(scored)
    for number, reward, rank, _ in stacks(scored, (scored.rank >= 0) & whole[scored.group]):
        apart = rank.max(-1) > rank.min(-1)
        reward, rank = reward[apart], rank[apart]
        undefined += int((reward.max(-1) == reward.min(-1)).sum())
        numbers.append(number[apart])
        rows["spearman"].append(np.nan_to_num(spearman(reward, -rank)))
        rows["kendall"].append(np.nan_to_num(kendall(reward, -rank)))
        highest = reward == reward.max(-1, keepdims=True)
        best = rank == rank.min(-1, keepdims=True)
        rows["top1"].append((highest & best).sum(-1) / highest.sum(-1))
        rows["ndcg"].append(ndcg(reward, rank))
    for group in np.flatnonzero(~whole):
        found = _of_group(scored, int(group))
        if found is not None:
            numbers.append(np.array([group]))
            for name, value in zip(NAMES, found, strict=True):
                rows[name].append(np.array([value]))
    return np.concatenate(numbers), {name: np.concatenate(parts) for name, parts in rows.items()}, undefined


def _compared_throughout(scored: Scored) -> Bools:
    """Was every two of the group's judged completions compared [G]?"""
    count = len(scored.prompt)
    pairs = np.bincount(scored.pair_group, minlength=count)
    judged = np.zeros(len(scored.reward), dtype=bool)
    judged[scored.first] = judged[scored.second] = True
    k = np.bincount(scored.group[judged], minlength=count)
    return np.asarray(pairs == k * (k - 1) // 2)


def _of_group(scored: Scored, group: int) -> tuple[float, ...] | None:
    """The four values of one group, over the sets of completions that its comparisons connect; None without order."""
    start, stop = np.searchsorted(scored.group, [group, group + 1])
    win_prob, observed = np.zeros((2, stop - start, stop - start))
    pairs = slice(*np.searchsorted(scored.pair_group, [group, group + 1]))
    i, j = scored.first[pairs] - start, scored.second[pairs] - start
    win_prob[i, j], win_prob[j, i] = scored.win_prob[pairs], 1 - scored.win_prob[pairs]
    observed[i, j] = observed[j, i] = 1
    reward, found, weights = scored.reward[start:stop], [], []
    for places in compared_sets(observed > 0):
        square = np.ix_(places, places)
        over = above(win_prob[square], observed[square] > 0)
        if over.any():
            found.append(of_partial_order(reward[places], over))
            weights.append(over.sum())
    if not found:
        return None
    values, weight = np.array(found), np.array(weights, dtype=np.float64)[:, None]
    known = np.isfinite(values)
    return tuple(ratio((np.where(known, values, 0) * weight).sum(0), (known * weight).sum(0)).tolist())


def of_partial_order(reward: Floats, over: Bools) -> tuple[float, float, float, float]:
    """Spearman, Kendall, top-1, NDCG of rewards [K] against a partial order [K, K]; a perfect model has 1 in each.

    Only pairs with an order count. Kendall is the mean of their signs s_ij. Spearman weighs them by their distance,
    rho = Σ d_ij s_ij / Σ d_ij, d_ij = difference in (completions above - completions below): for a total order without
    ties this is Spearman's rho, since Σ d² = 2 Σ over inversions of the distance (Durbin & Stuart 1951). Top-1
    needs one that stands above all others, NDCG a total order; else they are NaN.
    """
    level = over.sum(0) - over.sum(1)
    signs = np.sign(reward[:, None] - reward[None, :])[over]
    distance = (level[None, :] - level[:, None])[over]
    rho, tau = float((distance * signs).sum() / distance.sum()), float(signs.mean())
    below, highest = over.sum(1), reward == reward.max()
    known = below.max() == len(over) - 1
    top = float(highest[below.argmax()] / highest.sum()) if known else np.nan
    total = over.sum() == len(over) * (len(over) - 1) / 2
    return rho, tau, top, float(ndcg(reward[None], -below[None].astype(np.float64))[0]) if total else np.nan


def rank_metrics(scored: Scored) -> dict[str, float]:
    """`spearman`, `kendall`, `top1`, `ndcg`, `n_ranked`, `n_rank_undefined` against the ranks that the votes give.

    Averages over the ranked groups, never over pooled prompts; see `rank_values`. `n_rank_undefined` counts the
    groups without an order of rewards. `top1`: is the highest reward among the best ranked? Equal highest
    rewards share the credit. Unlike `pair_accuracy` it looks at one choice per group; chance is the share of
    the best ranked.
    """
    numbers, values, undefined = rank_values(scored)
    out: dict[str, float] = {"n_ranked": len(numbers), "n_rank_undefined": undefined}
    return out | {name: float(np.nanmean(v)) for name, v in values.items() if np.isfinite(v).any()}


def rank_intervals(scored: Scored, samples: int, seed: int) -> dict[str, float]:
    """95% intervals of the averages of `rank_metrics`, prompts resampled; NaN for a single prompt."""
    numbers, values, _ = rank_values(scored)
    columns = np.column_stack(list(values.values()))
    known = np.isfinite(columns)
    sums = cluster_sums(np.where(known, columns, 0), scored.prompt[numbers])
    counts = cluster_sums(known.astype(np.float64), scored.prompt[numbers])
    low, high = cluster_bootstrap(sums, counts, samples=samples, seed=seed)
    whole, carrying = ratio(sums.sum(0), counts.sum(0)), (counts > 0).sum(0)
    for i, name in enumerate(values):
        if carrying[i] >= 2:
            within = SHARE if name in ("top1", "ndcg") else DIFFERENCE
            low[i], high[i] = unanimous(whole[i], low[i], high[i], int(carrying[i]), within=within)
    ends = (("ci_low", low), ("ci_high", high))
    return {f"{name}/{end}": float(each[i]) for end, each in ends for i, name in enumerate(values)}


def length_spearman(scored: Scored) -> tuple[Ints, Floats]:
    """Number [R] of every group of 2 or more, and its Spearman of reward and length [R]; NaN where one is constant."""
    found = [(n, spearman(reward, length)) for n, reward, _, length in stacks(scored, np.isfinite(scored.reward))]
    numbers, rho = zip((np.zeros(0, np.int64), np.zeros(0)), *found, strict=True)
    return np.concatenate(numbers), np.concatenate(rho)


def length_metrics(scored: Scored) -> dict[str, float]:
    """How far the reward follows length: 0 not at all, 1 longer is always better.

    `length/spearman`: inside groups, averaged over those with unequal lengths and unequal rewards
    (`n_length_undefined` counts the others); `length/spearman_pooled`: over all completions.
    """
    rho = length_spearman(scored)[1]
    defined = rho[~np.isnan(rho)]
    out: dict[str, float] = {"n_length_undefined": len(rho) - len(defined)}
    if len(defined):
        out["length/spearman"] = float(defined.mean())
    pooled = spearman(scored.reward[None], scored.length[None])[0]
    return out if np.isnan(pooled) else out | {"length/spearman_pooled": float(pooled)}
