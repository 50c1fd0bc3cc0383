"""Intervals over few seeds, as wide as few seeds demand.

A plain percentile bootstrap over n values has the spread of the sample with divisor n and the tails of a normal
distribution: in simulations with normal differences its 95% intervals held the truth 51 times in 100 at 2 seeds, 79
at 4, 89 at 8 and 92 at 20. So means get a t interval, and what is no mean an expanded percentile interval.
"""

from collections.abc import Mapping

import numpy as np
from scipy import stats

from rlhf.stats.arrays import Floats

FEW = 5
"""With fewer seeds an interval says little, whatever its kind."""


def t_interval(values: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Ends of the t interval of the mean over the first axis of values [S, ...], S >= 2, each of the other shape.

    Student (1908): mean ± t_{(1+level)/2, S-1} · s / √S, s with divisor S - 1.
    """
    seeds = len(values)
    half = stats.t.ppf((1 + level) / 2, seeds - 1) * values.std(0, ddof=1) / np.sqrt(seeds)
    return np.asarray(values.mean(0) - half), np.asarray(values.mean(0) + half)


def expanded_tail(seeds: int, level: float = 0.95) -> float:
    """Share of the resamples left out at each end: α' = Φ(-√(n/(n-1)) · t_{(1+level)/2, n-1}), n = `seeds` >= 2.

    Hesterberg (2015, section 5.3): for a mean the percentiles α' and 1 - α' then reach as far as a t interval,
    as long as there are resamples so far out: those of a mean stay within the sample's range, which holds the truth
    50 times in 100 at 2 seeds and 87 at 4.
    """
    t = stats.t.ppf((1 + level) / 2, seeds - 1)
    return float(stats.norm.cdf(-np.sqrt(seeds / (seeds - 1)) * t))


def expanded(drawn: Floats, seeds: int, level: float = 0.95) -> tuple[Floats, Floats]:
    """Ends of the expanded percentile interval of resamples [B, ...], drawn from `seeds` >= 2 independent units."""
    tail = expanded_tail(seeds, level)
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return low, high


def caution(seeds: Mapping[str, int]) -> str:
    """How the intervals were made, and a warning where a selector's comparison has fewer than `FEW` seeds.

    Args:
        seeds: name of a selector's run -> paired seeds.
    """
    counts = [count for count in seeds.values() if count >= 2]
    if not counts:
        return "No intervals: they need two seeds or more."
    said = (
        "Intervals are 95% over seeds, of each row alone: t for differences of means, expanded percentile bootstrap "
        "for labels saved."
    )
    few = ", ".join(f"{name} ({count})" for name, count in sorted(seeds.items()) if count < FEW)
    return f"{said} Caution: an interval of fewer than {FEW} seeds means little: {few}." if few else said
