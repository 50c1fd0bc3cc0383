"""Rank agreement inside each prompt, then averaged over prompts; never pooled across prompts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rlhf.judge.table import Floats, Scored


def stacks(scored: Scored, keep: NDArray[np.bool_]) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Reward, rank and length [G_k, k] of all groups with k kept completions, one stack per k >= 2."""
    group = scored.group[keep]
    sizes = np.bincount(group, minlength=len(scored.prompt))
    columns = [c[keep].astype(np.float64) for c in (scored.reward, scored.rank, scored.length)]
    for k in np.unique(sizes[sizes >= 2]):
        rows = (sizes == k)[group]
        reward, rank, length = (c[rows].reshape(-1, k) for c in columns)
        yield reward, rank, length


def average_ranks(values: Floats) -> Floats:
    """Ranks 0..k-1 along the last axis, ties getting their mean rank."""
    less = values[..., None, :] < values[..., :, None]
    same = values[..., None, :] == values[..., :, None]
    ranks: Floats = less.sum(-1) + (same.sum(-1) - 1) / 2
    return ranks


def spearman(a: Floats, b: Floats) -> Floats:
    """Spearman's rho of every row [G]; NaN where a row of a or b is constant."""
    x, y = average_ranks(a), average_ranks(b)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    return _ratio((x * y).sum(-1), np.sqrt((x**2).sum(-1) * (y**2).sum(-1)))


def kendall(a: Floats, b: Floats) -> Floats:
    """Kendall's tau-b of every row [G]; NaN where a row of a or b is constant."""
    x = np.sign(a[..., :, None] - a[..., None, :])
    y = np.sign(b[..., :, None] - b[..., None, :])
    return _ratio((x * y).sum((-1, -2)), np.sqrt((x**2).sum((-1, -2)) * (y**2).sum((-1, -2))))


def rank_metrics(scored: Scored) -> dict[str, float]:
    """`spearman`, `kendall`, `top1`, `n_ranked`, `n_rank_undefined`.

    Averages over the prompts whose votes rank at least two completions apart. A prompt on which the model gives
    only equal rewards has no correlation: it counts as 0 and is counted in `n_rank_undefined` (T51).
    `top1`: is the highest reward among the best ranked; equal highest rewards share the credit.
    """
    rho, tau, top, undefined = [], [], [], 0
    for reward, rank, _ in stacks(scored, scored.rank >= 0):
        apart = rank.max(-1) > rank.min(-1)
        if not apart.any():
            continue
        reward, rank = reward[apart], rank[apart]
        constant = reward.max(-1) == reward.min(-1)
        undefined += int(constant.sum())
        rho.append(np.where(constant, 0.0, np.nan_to_num(spearman(reward, -rank))))
        tau.append(np.where(constant, 0.0, np.nan_to_num(kendall(reward, -rank))))
        highest = reward == reward.max(-1, keepdims=True)
        best = rank == rank.min(-1, keepdims=True)
        top.append((highest & best).sum(-1) / highest.sum(-1))
    if not rho:
        return {"n_ranked": 0}
    return {
        "spearman": float(np.concatenate(rho).mean()),
        "kendall": float(np.concatenate(tau).mean()),
        "top1": float(np.concatenate(top).mean()),
        "n_ranked": int(sum(map(len, rho))),
        "n_rank_undefined": undefined,
    }


def length_metrics(scored: Scored) -> dict[str, float]:
    """`length/spearman`: reward against length inside prompts, averaged; `length/spearman_pooled`: over all."""
    within = [spearman(reward, length) for reward, _, length in stacks(scored, np.isfinite(scored.reward))]
    defined = np.concatenate([np.zeros(0), *within])
    defined = defined[np.isfinite(defined)]
    out = {"length/spearman": float(defined.mean())} if len(defined) else {}
    if len(scored.reward) >= 2:
        ranks = [rankdata(c)[None, :] for c in (scored.reward, scored.length)]
        x, y = (r - r.mean() for r in ranks)
        pooled = _ratio((x * y).sum(-1), np.sqrt((x**2).sum(-1) * (y**2).sum(-1)))[0]
        out |= {"length/spearman_pooled": float(pooled)} if np.isfinite(pooled) else {}
    return out


def _ratio(a: Floats, b: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b > 0, a / b, np.nan)
