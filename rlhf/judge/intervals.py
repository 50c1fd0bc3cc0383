"""Intervals that respect what belongs together: pairs of one prompt are not independent (T52).

Everything here works on sums per cluster, so a resample is one matrix product. Clusters are prompts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlhf.judge.table import Floats, Ints

CHUNK = 4_000_000
"""Resampling weights held at once; bounds memory at 32 MB."""

BLOCKS = 10_000
"""More clusters than this are first pooled at random into this many: the standard error that 10 000 sums show is
within 1 % of the one that all clusters show, and the time stays bounded."""


def t_interval(values: Floats) -> tuple[float, float]:
    """The ends of the 95% t interval of the mean of independent values [N], N >= 2."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def cluster_sums(values: Floats, cluster: Ints) -> Floats:
    """Sums [C, S] of the columns of values [P, S] over the pairs of each cluster [P]."""
    codes = np.unique(cluster, return_inverse=True)[1]
    count = int(codes.max(initial=-1)) + 1
    columns = [np.bincount(codes, column, minlength=count) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def resampled_sums(sums: Floats, *, samples: int, seed: int) -> Floats:
    """Totals [samples, S] after drawing as many clusters as there are, with replacement, from sums [C, S]."""
    if len(sums) > BLOCKS:
        sums = cluster_sums(sums, _pooled(len(sums), seed))
    weights = _drawn(len(sums), samples, seed)
    step = max(1, CHUNK // len(sums))
    totals = [weights[start : start + step].astype(np.float64) @ sums for start in range(0, samples, step)]
    return np.concatenate(totals)


@lru_cache(maxsize=4)
def _pooled(clusters: int, seed: int) -> Ints:
    """Block of every cluster, at random."""
    block: Ints = np.random.default_rng([seed, clusters]).permutation(clusters) % BLOCKS
    return block


@lru_cache(maxsize=4)
def _drawn(clusters: int, samples: int, seed: int) -> NDArray[np.uint16]:
    """How often [samples, clusters] each cluster is drawn; a report asks for the same again and again."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // clusters)
    equal = np.full(clusters, 1 / clusters)
    drawn = [
        rng.multinomial(clusters, equal, size=min(step, samples - start)).astype(np.uint16)
        for start in range(0, samples, step)
    ]
    return np.concatenate(drawn)


def cluster_bootstrap(
    numerators: Floats, denominators: Floats, *, samples: int, seed: int, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Percentile intervals of S ratios of sums over C clusters (Efron & Tibshirani 1993, ch. 13).

    A resample draws C clusters with replacement (multinomial weights w) and computes (w·numerators) /
    (w·denominators); resamples without any of a statistic's pairs are left out of its quantiles.

    Args:
        numerators: [C, S] sums per cluster.
        denominators: [C, S] sums per cluster, not negative.
        samples: resamples.
        seed: same seed, same interval.
        level: coverage.

    Returns:
        low [S] and high [S]. NaN where fewer than 2 clusters carry a statistic: nothing is known about its
        spread then, and whoever writes JSON leaves the key out.
    """
    count = numerators.shape[1]
    low, high = np.full(count, np.nan), np.full(count, np.nan)
    enough = (denominators > 0).sum(0) >= 2
    if not enough.any() or samples < 1:
        return low, high
    drawn = resampled_sums(
        np.hstack([numerators[:, enough], denominators[:, enough]]), samples=samples, seed=seed
    )
    tops, bottoms = np.split(drawn, 2, axis=1)
    ratios = np.full(tops.shape, np.nan)
    np.divide(tops, bottoms, out=ratios, where=bottoms > 0)
    tail = (1 - level) / 2
    low[enough], high[enough] = np.nanquantile(ratios, [tail, 1 - tail], axis=0)
    return low, high


def ece_interval(
    gaps: Floats, pairs: Floats, *, samples: int, seed: int, level: float = 0.95
) -> tuple[float, float, float] | None:
    """Interval of a calibration error, and the error that a calibrated model would show on as many pairs.

    With g_b the sum of (agreement - confidence) over the pairs of bin b, ECE = Σ_b |g_b| / n. Noise makes |g_b|
    larger, never smaller, so resampled errors lie above the estimate as the estimate lies above the truth, and a
    percentile interval often misses both. The interval is therefore the reflected one (Davison & Hinkley 1997,
    eq. 5.6), 2·ECE - quantiles of resampled errors, and it starts at 0 where the error is no larger than the
    level's quantile of what resampling noise alone shows, Σ_b |g*_b - g_b| / n. Bins stay as they are.
    It holds the truth a little less often than the level says: 87 times in 100 with 500 pairs and an error of 0.1.

    Args:
        gaps: [C, B] sums per cluster and bin.
        pairs: [C] pairs per cluster.
        samples: resamples.
        seed: same seed, same interval.
        level: coverage.

    Returns:
        low, high, and the mean of the noise alone; None where there are fewer than 2 clusters.
    """
    if len(gaps) < 2 or samples < 1:
        return None
    drawn = resampled_sums(np.column_stack([gaps, pairs]), samples=samples, seed=seed)
    total = drawn[:, -1]
    full, count = gaps.sum(0), pairs.sum()
    estimate = float(np.abs(full).sum() / count)
    errors = np.abs(drawn[:, :-1]).sum(1) / total
    noise = np.abs(drawn[:, :-1] / total[:, None] - full / count).sum(1)
    tail = (1 - level) / 2
    q_low, q_high = np.quantile(errors, [tail, 1 - tail])
    by_chance = estimate <= np.quantile(noise, level)
    low = 0.0 if by_chance else max(0.0, 2 * estimate - float(q_high))
    return low, max(estimate, 2 * estimate - float(q_low)), float(noise.mean())
