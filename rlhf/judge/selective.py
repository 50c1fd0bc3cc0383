"""What is gained by answering only where the model is sure: risk-coverage curves (El-Yaniv & Wiener 2010)."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from rlhf.judge.table import Floats


def risk_coverage(confidence: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Coverage [P] and the accuracy [P] of the pairs that are at least as sure, most confident first.

    Pairs of equal confidence are kept or left together: all of them show the accuracy of their whole block.

    Args:
        confidence: [P], higher = surer.
        right: [P] credit, no NaN.
    """
    order = np.argsort(-confidence, kind="stable")
    n = len(order)
    place = rankdata(-confidence[order], method="max").astype(np.int64) - 1
    accuracy = np.cumsum(right[order]) / np.arange(1, n + 1)
    return (np.arange(1, n + 1) / n)[place], accuracy[place]


def area(confidence: Floats, right: Floats) -> float:
    """Area under the risk-coverage curve, the mean error over all coverages; lower is better."""
    return float(1 - risk_coverage(confidence, right)[1].mean())


def accuracy_at(confidence: Floats, right: Floats, coverage: float) -> float:
    """Accuracy of the share `coverage` of the pairs that the model is surest about."""
    reached, accuracy = risk_coverage(confidence, right)
    return float(accuracy[min(int(np.searchsorted(reached, coverage - 1e-12)), len(accuracy) - 1)])
