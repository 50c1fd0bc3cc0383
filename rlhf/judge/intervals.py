"""Intervals that respect what belongs together: pairs of one prompt are not independent."""

from __future__ import annotations

import numpy as np

from rlhf.judge.table import Floats, Ints

CHUNK = 4_000_000
"""Resampling weights held at once; bounds memory at 32 MB."""


def cluster_sums(values: Floats, cluster: Ints) -> Floats:
    """Sums [C, S] of the columns of values [P, S] over the pairs of each cluster."""
    codes = np.unique(cluster, return_inverse=True)[1]
    out = np.zeros((codes.max(initial=-1) + 1, values.shape[1]))
    np.add.at(out, codes, values)
    return out


def cluster_bootstrap(
    numerators: Floats, denominators: Floats, *, samples: int, seed: int, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Percentile intervals of S ratios of sums over C clusters, clusters resampled with replacement.

    Every resample draws C clusters (multinomial weights w) and computes (w · numerators) / (w · denominators):
    Efron & Tibshirani 1993, ch. 8; clusters = prompts.

    Args:
        numerators, denominators: [C, S] sums per cluster.
        samples: resamples.
        seed: same seed, same interval.
        level: coverage.

    Returns:
        low [S] and high [S]; NaN where fewer than 2 clusters carry a statistic.
    """
    clusters, count = numerators.shape
    rng = np.random.default_rng(seed)
    stacked = np.hstack([numerators, denominators])
    sums = []
    step = max(1, CHUNK // max(1, clusters))
    for start in range(0, samples, step):
        n = min(step, samples - start)
        weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=n)
        sums.append(weights @ stacked)
    drawn = np.concatenate(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(drawn[:, count:] > 0, drawn[:, :count] / drawn[:, count:], np.nan)
    tail = (1 - level) / 2
    low, high = np.full(count, np.nan), np.full(count, np.nan)
    enough = ((denominators > 0).sum(0) >= 2) & np.isfinite(ratios).any(0)
    if enough.any():
        low[enough], high[enough] = np.nanquantile(ratios[:, enough], [tail, 1 - tail], axis=0)
    return low, high
