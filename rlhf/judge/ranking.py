"""Rank agreement inside each group, then averaged over groups; never pooled across prompts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rlhf.judge.intervals import cluster_bootstrap, cluster_sums
from rlhf.judge.table import Floats, Ints, Scored

CHUNK = 2_000_000
"""Comparisons of two completions held at once; bounds memory at some 16 MB per array."""


def stacks(scored: Scored, keep: NDArray[np.bool_]) -> Iterator[tuple[Ints, Floats, Floats, Floats]]:
    """Number [G_k] and reward, rank, length [G_k, k] of groups with k >= 2 kept completions, in stacks of equal k.

    Args:
        scored: the set.
        keep: [N] which completions take part.
    """
    group = scored.group[keep]
    sizes = np.bincount(group, minlength=len(scored.prompt))
    columns = [c[keep].astype(np.float64) for c in (scored.reward, scored.rank, scored.length)]
    for k in np.unique(sizes[sizes >= 2]):
        rows = (sizes == k)[group]
        reward, rank, length = (c[rows].reshape(-1, k) for c in columns)
        number = group[rows].reshape(-1, k)[:, 0]
        step = max(1, CHUNK // int(k) ** 2)
        for start in range(0, len(reward), step):
            part = slice(start, start + step)
            yield number[part], reward[part], rank[part], length[part]


def spearman(a: Floats, b: Floats) -> Floats:
    """Spearman's rho [G] of every row of a and b [G, k], ties at their mean rank; NaN where a row is constant."""
    x, y = (rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (a, b))
    return _ratio((x * y).sum(-1), np.sqrt((x**2).sum(-1) * (y**2).sum(-1)))


def kendall(a: Floats, b: Floats) -> Floats:
    """Kendall's tau-b [G] of every row of a and b [G, k]; NaN where a row is constant."""
    x, y = (np.sign(values[..., :, None] - values[..., None, :]) for values in (a, b))
    return _ratio((x * y).sum((-1, -2)), np.sqrt((x**2).sum((-1, -2)) * (y**2).sum((-1, -2))))


def ndcg(reward: Floats, rank: Floats) -> Floats:
    """Normalised discounted cumulative gain [G] of the order that the rewards [G, k] give (Järvelin & Kekäläinen 2002).

    An answer gains as many points as there are answers ranked below it; equal rewards share their places.
    """
    gain = (rank[:, :, None] < rank[:, None, :]).sum(-1).astype(np.float64)
    equal = reward[:, :, None] == reward[:, None, :]
    shared = (equal * gain[:, None, :]).sum(-1) / equal.sum(-1)
    discount = 1 / np.log2(np.arange(2, reward.shape[-1] + 2))
    found = np.take_along_axis(shared, np.argsort(-reward, axis=-1, kind="stable"), -1) @ discount
    return _ratio(found, -np.sort(-gain, axis=-1) @ discount)


def rank_values(scored: Scored) -> tuple[Ints, dict[str, Floats], int]:
    """Number [R] of every ranked group, its `spearman`, `kendall`, `top1`, `ndcg` [R], and how many had no order.

    Ranked are the groups whose votes rank at least two completions apart. A group on which the model gives only
    equal rewards has no correlation: it counts as 0, so that a model gains nothing by being silent where it is hard.
    """
    numbers, undefined = [np.zeros(0, np.int64)], 0
    rows: dict[str, list[Floats]] = {name: [np.zeros(0)] for name in ("spearman", "kendall", "top1", "ndcg")}
    for number, reward, rank, _ in stacks(scored, scored.rank >= 0):
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
    return np.concatenate(numbers), {name: np.concatenate(parts) for name, parts in rows.items()}, undefined


def rank_metrics(scored: Scored) -> dict[str, float]:
    """`spearman`, `kendall`, `top1`, `ndcg`, `n_ranked`, `n_rank_undefined` against the ranks that the votes give.

    Averages over the ranked groups, never over pooled prompts; see `rank_values`. `n_rank_undefined` counts the
    groups without an order of rewards (T51). `top1`: is the highest reward among the best ranked? Equal highest
    rewards share the credit. Unlike `pair_accuracy` it looks at one choice per group (T53); chance is the share of
    the best ranked.
    """
    numbers, values, undefined = rank_values(scored)
    out: dict[str, float] = {"n_ranked": len(numbers), "n_rank_undefined": undefined}
    return out | ({name: float(v.mean()) for name, v in values.items()} if len(numbers) else {})


def rank_intervals(scored: Scored, samples: int, seed: int) -> dict[str, float]:
    """95% intervals of the averages of `rank_metrics`, prompts resampled; NaN for a single prompt."""
    numbers, values, _ = rank_values(scored)
    sums = cluster_sums(np.column_stack([*values.values(), np.ones(len(numbers))]), scored.prompt[numbers])
    low, high = cluster_bootstrap(
        sums[:, :-1], np.repeat(sums[:, -1:], len(values), 1), samples=samples, seed=seed
    )
    return {f"{name}/ci_low": float(low[i]) for i, name in enumerate(values)} | {
        f"{name}/ci_high": float(high[i]) for i, name in enumerate(values)
    }


def length_metrics(scored: Scored) -> dict[str, float]:
    """How far the reward follows length: 0 not at all, 1 longer is always better.

    `length/spearman`: inside groups, averaged over those with unequal lengths and unequal rewards
    (`n_length_undefined` counts the others); `length/spearman_pooled`: over all completions.
    """
    inside = [spearman(reward, length) for _, reward, _, length in stacks(scored, np.isfinite(scored.reward))]
    rho = np.concatenate([np.zeros(0), *inside])
    defined = rho[~np.isnan(rho)]
    out: dict[str, float] = {"n_length_undefined": len(rho) - len(defined)}
    if len(defined):
        out["length/spearman"] = float(defined.mean())
    pooled = spearman(scored.reward[None], scored.length[None])[0]
    return out if np.isnan(pooled) else out | {"length/spearman_pooled": float(pooled)}


def _ratio(a: Floats, b: Floats) -> Floats:
    out = np.full(a.shape, np.nan)
    np.divide(a, b, out=out, where=b > 0)
    return out
