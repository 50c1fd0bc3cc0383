"""The published form of overoptimisation by RL (Gao et al. 2023), d = √KL in nats:

    R(d) = d (α - β log d)    its peak at d = exp(α/β - 1)

R is the gain in gold over the reference, R(0) = 0; linear in α and β, so least squares is exact. That of best-of-n is
`rlhf.evaluation.metrics.best_of_n.gao_fit`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlhf.stats.arrays import Floats


@dataclass(frozen=True)
class RlFit:
    """α and β, the share of variance explained (about the mean), and the d of the peak (inf where there is none)."""

    alpha: float
    beta: float
    r2: float
    peak: float


def fit_rl(d: ArrayLike, gain: ArrayLike) -> RlFit:
    """R = d (α - β log d); points at d = 0 carry no information and are left out."""
    x, y = np.asarray(d, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    x, y = x[x > 0], y[x > 0]
    alpha, beta, r2 = _least_squares(x, x * np.log(x), y)
    return RlFit(alpha, beta, r2, float(np.exp(alpha / beta - 1)) if beta > 0 else np.inf)


def _least_squares(one: Floats, two: Floats, y: Floats) -> tuple[float, float, float]:
    if len(y) < 3:
        raise ValueError(f"{len(y)} points: two coefficients need at least 3 to say how well they fit")
    columns = np.stack([one, -two], 1)
    (alpha, beta), *_ = np.linalg.lstsq(columns, y, rcond=None)
    rest = y - columns @ np.array([alpha, beta])
    return float(alpha), float(beta), float(1 - (rest @ rest) / ((y - y.mean()) @ (y - y.mean())))
