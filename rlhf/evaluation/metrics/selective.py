"""What is gained by answering only where the model is sure: risk-coverage curves (El-Yaniv & Wiener 2010)."""

from collections.abc import Sequence

import numpy as np

from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import Estimate, binned_sums, graded, ratio, resampled_sums, share_around
from rlhf.stats.ranks import ranks_of


def risk_coverage(confidence: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Coverage [P] and the accuracy [P] of the pairs that are at least as sure, most confident first.

    Pairs of equal confidence are kept or left together: all of them show the accuracy of their whole block.

    Args:
        confidence: [P], higher = surer.
        right: [P] credit, no NaN.
    """
    order = np.argsort(-confidence, kind="stable")
    n = len(order)
    place = ranks_of(-confidence[order], "max").astype(np.int64) - 1
    accuracy = np.cumsum(right[order]) / np.arange(1, n + 1)
    return (np.arange(1, n + 1) / n)[place], accuracy[place]


def area(confidence: Floats, right: Floats) -> float:
    """Area under the risk-coverage curve, the mean error over all coverages; lower is better."""
    return float(1 - risk_coverage(confidence, right)[1].mean())


def accuracy_at(confidence: Floats, right: Floats, coverage: float) -> float:
    """Accuracy of the share `coverage` of the pairs that the model is surest about."""
    reached, accuracy = risk_coverage(confidence, right)
    return float(accuracy[min(int(np.searchsorted(reached, coverage - 1e-12)), len(accuracy) - 1)])


def selective_intervals(
    confidence: Floats, right: Floats, cluster: Ints, coverages: Sequence[float], *, samples: int, seed: int
) -> tuple[Estimate, list[Estimate]]:
    """`area` and `accuracy_at` every coverage with 95 % intervals, clusters resampled.

    Pairs are resampled in grades of equal confidence or, where there are more of them, in a hundred quantiles of it;
    inside a grade the coverage is reached evenly.

    Args:
        confidence: [P], higher = surer.
        right: [P] credit; NaN has no right answer and does not count, but its prompt is drawn as everywhere.
        cluster: [P] prompt of every pair.
        coverages: each in 0..1.
        samples, seed: of the bootstrap.

    Returns:
        the area, and the accuracy at every coverage; intervals are NaN for fewer than 2 clusters.
    """
    used = np.isfinite(right)
    confidence, right = confidence[used], right[used]
    place, grades = np.zeros(len(used), np.int64), 1
    place[used], grades = graded(-confidence)
    each_one, credits = used.astype(np.float64), np.zeros(len(used))
    credits[used] = right
    sums = np.hstack([binned_sums(v, place, grades, cluster) for v in (each_one, credits)])
    if len(sums) < 2 or samples < 1:
        values = (area(confidence, right), *(accuracy_at(confidence, right, c) for c in coverages))
        whole, *several = (Estimate(value, np.nan, np.nan) for value in values)
        return whole, several
    drawn = np.vstack([sums.sum(0), resampled_sums(sums, samples=samples, seed=seed)])
    each, good = drawn[:, :grades], drawn[:, grades:]
    answered, gained = np.cumsum(each, axis=1), np.cumsum(good, axis=1)
    total = answered[:, -1]
    accuracy = gained / np.maximum(answered, 1)  # nothing answered: `each` is 0 too
    areas = 1 - ratio((each * accuracy).sum(1), total)
    found = []
    for coverage in coverages:
        wanted = coverage * total
        last = np.minimum((answered < wanted[:, None] - 1e-9).sum(1), grades - 1)
        row = np.arange(len(drawn))
        missing = answered[row, last] - wanted
        share = np.divide(missing, each[row, last], out=np.zeros(len(drawn)), where=each[row, last] > 0)
        reached = ratio(gained[row, last] - share * good[row, last], wanted)
        prompts = int((sums[:, : last[0] + 1].sum(1) > 0).sum())
        found.append(share_around(accuracy_at(confidence, right, coverage), reached, prompts))
    prompts = int((sums[:, :grades].sum(1) > 0).sum())
    return share_around(area(confidence, right), areas, prompts), found
