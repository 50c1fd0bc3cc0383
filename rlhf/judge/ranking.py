"""Rank agreement inside each group, then averaged over groups; never pooled across prompts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rlhf.judge.table import Floats, Scored

CHUNK = 2_000_000
"""Comparisons of two completions held at once; bounds memory at some 16 MB per array."""


def stacks(scored: Scored, keep: NDArray[np.bool_]) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Reward, rank and length [G_k, k] of groups with k >= 2 kept completions, in stacks of equal k.

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
        step = max(1, CHUNK // int(k) ** 2)
        for start in range(0, len(reward), step):
            part = slice(start, start + step)
            yield reward[part], rank[part], length[part]


def spearman(a: Floats, b: Floats) -> Floats:
    """Spearman's rho [G] of every row of a and b [G, k], ties at their mean rank; NaN where a row is constant."""
    x, y = (rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (a, b))
    return _ratio((x * y).sum(-1), np.sqrt((x**2).sum(-1) * (y**2).sum(-1)))


def kendall(a: Floats, b: Floats) -> Floats:
    """Kendall's tau-b [G] of every row of a and b [G, k]; NaN where a row is constant."""
    x, y = (np.sign(values[..., :, None] - values[..., None, :]) for values in (a, b))
    return _ratio((x * y).sum((-1, -2)), np.sqrt((x**2).sum((-1, -2)) * (y**2).sum((-1, -2))))


def rank_metrics(scored: Scored) -> dict[str, float]:
    """`spearman`, `kendall`, `top1`, `n_ranked`, `n_rank_undefined` against the ranks that the votes give.

    Averages over the groups whose votes rank at least two completions apart. A group on which the model gives only
    equal rewards has no correlation: it counts as 0, and is counted in `n_rank_undefined` (T51), so that a model
    gains nothing by being silent where it is hard.
    `top1`: is the highest reward among the best ranked? Equal highest rewards share the credit. Unlike
    `pair_accuracy` it looks at one choice per group (T53); chance is the share of the best ranked.
    """
    rho, tau, top, undefined = [], [], [], 0
    for reward, rank, _ in stacks(scored, scored.rank >= 0):
        apart = rank.max(-1) > rank.min(-1)
        reward, rank = reward[apart], rank[apart]
        undefined += int((reward.max(-1) == reward.min(-1)).sum())
        rho.append(np.nan_to_num(spearman(reward, -rank)))
        tau.append(np.nan_to_num(kendall(reward, -rank)))
        highest = reward == reward.max(-1, keepdims=True)
        best = rank == rank.min(-1, keepdims=True)
        top.append((highest & best).sum(-1) / highest.sum(-1))
    ranked = sum(map(len, rho))
    out: dict[str, float] = {"n_ranked": ranked, "n_rank_undefined": undefined}
    if not ranked:
        return out
    named = (("spearman", rho), ("kendall", tau), ("top1", top))
    return out | {name: float(np.concatenate(rows).mean()) for name, rows in named}


def length_metrics(scored: Scored) -> dict[str, float]:
    """How far the reward follows length: 0 not at all, 1 longer is always better.

    `length/spearman`: inside groups, averaged over those with unequal lengths and unequal rewards
    (`n_length_undefined` counts the others); `length/spearman_pooled`: over all completions.
    """
    inside = [spearman(reward, length) for reward, _, length in stacks(scored, np.isfinite(scored.reward))]
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
