"""Intervals that respect what belongs together: pairs of one prompt are not independent.

Everything here works on sums per cluster, so a resample is one matrix product. Clusters are prompts.
"""

import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from rlhf.stats.arrays import Floats, Ints

CHUNK = 4_000_000
"""Resampling weights held at once; bounds memory at 32 MB."""

BLOCKS = 5_000
"""More clusters than this are first pooled at random into this many: the standard error that 5 000 sums show is
within 1 % of the one that all clusters show (1/√(2·5 000), a standard deviation), and the time stays bounded."""

SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
"""Where a share, and a difference of two shares or a correlation, can lie."""

SAME = 1e-12
"""Intervals narrower than this show no spread."""

LEVEL = 0.95
"""How often an interval is to hold the truth."""

GRADES = 100
"""Steps of a statistic that depends on an order, when it is resampled."""


class ResampleOptions(TypedDict):
    """Options of every bootstrap: the number of resamples, and the seed; the same seed gives the same interval."""

    samples: int
    seed: int


class Estimate(NamedTuple):
    """A number with its 95 % interval; NaN where it is not known."""

    value: float
    low: float
    high: float

    def keys(self, name: str) -> dict[str, float]:
        """The number under `name`, its ends under `name/ci_low` and `name/ci_high`."""
        return {name: self.value, f"{name}/ci_low": self.low, f"{name}/ci_high": self.high}


def cluster_sums(values: Floats | Iterable[Floats], cluster: Ints) -> Floats:
    """Sums [C, S] over the pairs of each cluster [P] of the columns of values [P, S], or of S columns [P]."""
    codes, count = numbered(cluster)
    columns: Iterable[Floats] = values.T if isinstance(values, np.ndarray) else values
    found = [np.bincount(codes, column, minlength=count) for column in columns]
    return np.stack(found, axis=1) if found else np.zeros((count, 0))


def binned_sums(values: Floats, place: Ints, bins: int, cluster: Ints) -> Floats:
    """Sums [C, bins] of values [P] over the pairs that a cluster [P] has in each bin, place [P]."""
    codes, count = numbered(cluster)
    found = np.bincount(codes * bins + place, values, count * bins)
    return np.asarray(found, dtype=np.float64).reshape(count, bins)


def numbered(cluster: Ints) -> tuple[Ints, int]:
    """Clusters [P] numbered without gaps, in the order of their codes, and how many there are."""
    codes = np.unique(cluster, return_inverse=True)[1]
    return codes, int(codes.max(initial=-1)) + 1


def graded(values: Floats, grades: int = GRADES) -> tuple[Ints, int]:
    """Grade [P] of every value, rising, and how many there are: equal values, or their quantiles if these are more."""
    different = np.unique(values)
    if len(different) > grades:
        different = np.unique(np.quantile(values, np.linspace(0, 1, grades + 1)[1:]))
    return np.searchsorted(different, values, side="left").astype(np.int64), len(different)


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
    numerators: Floats, denominators: Floats, *, samples: int, seed: int, within: tuple[float, float] | None = None
) -> tuple[Floats, Floats]:
    """Percentile intervals of S ratios of sums over C clusters (Efron & Tibshirani 1993, ch. 13), stretched (`bounds`).

    A resample draws C clusters with replacement (multinomial weights w) and computes (w·numerators) /
    (w·denominators); resamples without any of a statistic's pairs are left out of its quantiles.

    Args:
        numerators: [C, S] sums per cluster.
        denominators: [C, S] sums per cluster, not negative.
        samples: resamples.
        seed: same seed, same interval.
        within: where the statistics can lie; intervals end there, and those that are the same in all clusters get
            `unanimous` ones.

    Returns:
        low [S] and high [S]. NaN where fewer than 2 clusters carry a statistic: nothing is known about its
        spread then, and whoever writes JSON leaves the key out.
    """
    count = numerators.shape[1]
    low, high = np.full(count, np.nan), np.full(count, np.nan)
    enough = (denominators > 0).sum(0) >= 2
    if not enough.any() or samples < 1:
        return low, high
    drawn = resampled_sums(np.hstack([numerators[:, enough], denominators[:, enough]]), samples=samples, seed=seed)
    tops, bottoms = np.split(drawn, 2, axis=1)
    units = (denominators > 0).sum(0)
    low[enough], high[enough] = bounds(ratio(tops, bottoms), units[enough])
    if within is None:
        return low, high
    low, high = np.maximum(low, within[0]), np.minimum(high, within[1])
    value = ratio(numerators.sum(0), denominators.sum(0))
    return unanimous(value, low, high, units, within=within)


def cluster_mean(
    values: Floats, cluster: Ints, *, samples: int, seed: int, within: tuple[float, float] | None = None
) -> Estimate:
    """Mean of values [N] with its interval over clusters [N].

    Args:
        values: NaN does not count, but its cluster is drawn like the others, so that two means over the same
            clusters have the same resamples.
        cluster: what belongs together.
        samples, seed, within: as in `cluster_bootstrap`.
    """
    counted = np.isfinite(values)
    sums = cluster_sums([np.where(counted, values, 0.0), counted.astype(np.float64)], cluster)
    low, high = cluster_bootstrap(sums[:, :1], sums[:, 1:], samples=samples, seed=seed, within=within)
    value = float(values[counted].mean()) if counted.any() else float("nan")
    return Estimate(value, float(low[0]), float(high[0]))


def unanimous(
    value: Floats | float,
    low: Floats | float,
    high: Floats | float,
    clusters: Ints | int,
    *,
    within: tuple[float, float] = SHARE,
) -> tuple[Floats, Floats]:
    """Intervals where all clusters agree, so that resampling them shows no spread: high = low.

    None of n clusters differs, so with probability `LEVEL` at most a share ε = 1 - ((1 - LEVEL)/2)^(1/n) of all
    clusters does (Clopper & Pearson 1934; close to 3.7/n), and these may have any value that is possible. A
    share of 1 then lies in [1 - ε, 1], which is the exact binomial interval over clusters; 6 of 6 give [0.541, 1].

    Args:
        value, low, high: [...] statistics and their resampled intervals.
        clusters: [...] n, how many clusters carry each.
        within: the lowest and the highest value that is possible.

    Returns:
        low and high [...]; those with a spread, and NaN, as they were.
    """
    rare = 1 - ((1 - LEVEL) / 2) ** (1 / np.maximum(clusters, 1))
    same = np.asarray(high) - np.asarray(low) < SAME
    below, above = value - rare * (value - within[0]), value + rare * (within[1] - np.asarray(value))
    return np.where(same, below, low), np.where(same, above, high)


def ratio(tops: Floats, bottoms: Floats) -> Floats:
    """Elementwise, NaN where the bottom is not positive."""
    found = np.full(tops.shape, np.nan)
    np.divide(tops, bottoms, out=found, where=bottoms > 0)
    return found


def bounds(drawn: Floats, units: Ints | int) -> Floats:
    """Low and high [2, ...] of resamples [samples, ...] of so many `units`, each drawn with the others; NaN left out.

    The percentiles, stretched about the median by `stretched(units)`: resamples of few units are too alike. In
    simulations of 95% intervals plain percentiles held the truth 51, 79, 86, 90, 92 and 94 times in 100 at 2, 4, 6, 10,
    18 and 31 units; stretched ones 93, 94, 95, 95, 94 and 95 times where clusters are normal, 90, 92, 93, 94, 94 and 94
    times where they are ratios over 1 to 40 pairs.
    """
    tail = [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]
    if np.isfinite(drawn).all():
        low, middle, high = np.quantile(drawn, tail, axis=0)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a statistic that no resample defines stays NaN
            low, middle, high = np.nanquantile(drawn, tail, axis=0)
    factor = stretched(units)
    return np.stack([middle - factor * (middle - low), middle + factor * (high - middle)])


def stretched(units: Ints | int) -> Floats:
    """By how much percentiles of n = `units` resampled together fall short of a t interval: t_{n-1} √(n/(n-1)) / z.

    Resamples have the spread of the sample with divisor n, and their percentiles the tails of a normal distribution
    where Student's t has wider ones (Hesterberg 2015, section 5.3, who moves the percentiles instead; those of few
    units cannot reach beyond the sample). 1 for fewer than 2 units, of which no interval is shown.
    """
    n = np.maximum(np.asarray(units, dtype=np.float64), 2)
    factor = stdtrit(n - 1, (1 + LEVEL) / 2) * np.sqrt(n / (n - 1)) / ndtri((1 + LEVEL) / 2)
    return np.where(np.asarray(units) < 2, 1.0, factor)


def share(value: float, low: float, high: float, units: int) -> Estimate:
    """A share with its interval, `unanimous` where all units agree, cut at 0 and 1."""
    ends = unanimous(value, low, high, units)
    return Estimate(value, max(0.0, float(ends[0])), min(1.0, float(ends[1])))


def share_around(value: float, drawn: Floats, units: int) -> Estimate:
    """A `share` and its percentiles of resamples [1 + samples] on a grid, the first of them the share itself.

    They are moved by what `value`, which has no grid, differs from the first: all have the grid's error alike.
    """
    low, high = bounds(drawn[1:], units) + (value - drawn[0])
    return share(value, low, high, units)


def lowest_interval(tops: Floats, bottoms: Floats, units: int) -> tuple[float, float]:
    """Interval of the lowest of S ratios, which slice is lowest being unknown: a simultaneous band.

    With t the level's quantile over resamples of max_s |a*_s - a_s| / se_s, all S true ratios lie within
    a_s ± t se_s at once with that probability (Romano & Wolf 2005), and then the lowest of them lies between
    min_s (a_s - t se_s) and min_s (a_s + t se_s). It is wider than the lowest slice's own interval, which forgets
    that the slice was chosen for being low; quantiles of resampled minima would lie below the truth where slices are
    alike. In simulations of 5 to 20 slices it held the truth 97 to 99 times in 100.

    Args:
        tops, bottoms: [1 + samples, S], the sums themselves and then their resamples.
        units: clusters of the slice with the fewest; the band is `stretched` by them.

    Returns:
        low and high, within 0..1; NaN where a slice's spread is not known.
    """
    ratios = ratio(tops, bottoms)
    value, drawn = ratios[0], ratios[1:]
    error = np.nanstd(drawn, axis=0)
    if not np.isfinite(error).all():
        return np.nan, np.nan
    away = np.abs(drawn - value) / np.where(error > 0, error, np.inf)
    reach = error * np.quantile(np.nan_to_num(away).max(1), LEVEL) * stretched(units)
    return max(0.0, float((value - reach).min())), min(1.0, float((value + reach).min()))


def ece_bounds(
    gaps: Floats, drawn_gaps: Floats, pairs: float, drawn_pairs: Floats, units: int
) -> tuple[float, float, float]:
    """Interval of a calibration error, and the error that a calibrated model would show on as many pairs.

    With g_b the sum of (agreement - confidence) over the pairs of bin b, ECE = Σ_b |g_b| / n. Noise makes |g_b|
    larger, never smaller, so resampled errors lie above the estimate as the estimate lies above the truth, and a
    percentile interval often misses both. The interval is therefore the reflected one (Davison & Hinkley 1997,
    eq. 5.6), 2·ECE - quantiles of resampled errors, and it starts at 0 where the error is no larger than the
    level's quantile of what resampling noise alone shows, Σ_b |g*_b - g_b| / n. Bins stay as they are.
    It holds the truth a little less often than the level says: 87 times in 100 with 500 pairs and an error of 0.1.

    Args:
        gaps, drawn_gaps: [B] sums per bin over all clusters, and their resamples [samples, B].
        pairs, drawn_pairs: the number of pairs, and its resamples [samples].
        units: clusters.

    Returns:
        low, high, and the mean of the noise alone.
    """
    estimate = float(np.abs(gaps).sum() / pairs)
    errors = np.abs(drawn_gaps).sum(1) / drawn_pairs
    noise = np.abs(drawn_gaps / drawn_pairs[:, None] - gaps / pairs).sum(1)
    q_low, q_high = bounds(errors, units)
    by_chance = estimate <= np.quantile(noise, LEVEL) * stretched(units)
    low = 0.0 if by_chance else max(0.0, 2 * estimate - float(q_high))
    return low, min(1.0, max(estimate, 2 * estimate - float(q_low))), float(noise.mean())
