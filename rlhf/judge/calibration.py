"""Does sigmoid(r_a - r_b) mean what it says? Temperature, calibration errors, and the artefact a run stores.

Everything is symmetric in the two sides: with the preferred answer always first, every label is 1 and the usual
binary calibration error of a perfect model is 0.35 (T49).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from rlhf.judge.table import Floats

BINS = 15
LOG_RANGE = 8.0
"""Temperatures lie in exp(-8)..exp(8)."""


def nll(difference: Floats, win_prob: Floats) -> Floats:
    """Cross-entropy of every pair: -p log σ(D) - (1-p) log σ(-D), in nats; stable for any D."""
    return win_prob * np.logaddexp(0, -difference) + (1 - win_prob) * np.logaddexp(0, difference)


def fit_temperature(difference: Floats, win_prob: Floats) -> float:
    """T > 0 that minimises the mean NLL of σ(D / T) (Guo et al. 2017); convex in 1/T.

    Args:
        difference: [P] reward differences of the validation pairs.
        win_prob: [P] vote shares of the first, ties counting one half.

    Returns:
        T within exp(±8); 1 where nothing beats it, so that fitting never raises the NLL it was fitted on.
    """
    if not len(difference) or not np.any(difference):
        return 1.0

    def mean_nll(log_t: float) -> float:
        return float(nll(difference / np.exp(log_t), win_prob).mean())

    found = minimize_scalar(
        mean_nll, bounds=(-LOG_RANGE, LOG_RANGE), method="bounded", options={"xatol": 1e-8}
    )
    return float(np.exp(found.x)) if found.fun < mean_nll(0.0) else 1.0


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram: stated confidence, share of votes that agreed, number of pairs."""

    confidence: float
    agreement: float
    count: int


def reliability(
    probability: Floats, win_prob: Floats, *, bins: int = BINS, adaptive: bool = False
) -> list[Bin]:
    """Confidence against agreement, folded onto the predicted side.

    confidence c = max(p, 1-p) in [0.5, 1], agreement = vote share of the predicted side.

    Args:
        probability: [P] stated P(first wins).
        win_prob: [P] vote shares of the first.
        bins: how many; of equal width over [0.5, 1].
        adaptive: bins of equal count instead (Nixon et al. 2019).
    """
    ahead = probability >= 0.5
    confidence = np.where(ahead, probability, 1 - probability)
    agreement = np.where(ahead, win_prob, 1 - win_prob)
    agreement = np.where(probability == 0.5, 0.5, agreement)  # no side is predicted
    if adaptive:
        order = np.argsort(confidence, kind="stable")
        parts = [p for p in np.array_split(order, bins) if len(p)]
    else:
        place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)  # 1.0 is in the last bin
        parts = [np.flatnonzero(place == b) for b in range(bins)]
        parts = [p for p in parts if len(p)]
    return [Bin(float(confidence[p].mean()), float(agreement[p].mean()), len(p)) for p in parts]


def ece(probability: Floats, win_prob: Floats, *, bins: int = BINS, adaptive: bool = False) -> float:
    """Expected calibration error: Σ_b n_b/n · |agreement_b - confidence_b| (Naeini et al. 2015), 0 is perfect."""
    table = reliability(probability, win_prob, bins=bins, adaptive=adaptive)
    total = sum(b.count for b in table)
    return sum(b.count * abs(b.agreement - b.confidence) for b in table) / total if total else 0.0


@dataclass(frozen=True)
class Calibration:
    """calibration.json: how a raw reward becomes a probability or a normalised reward.

    temperature     of the reward differences, fitted on validation pairs
    reward_mean, reward_std   over the validation completions
    n_pairs, n_completions    how many those were
    data_hash       which data
    tie_width       the tie parameter a tie loss learned, else None
    fitted_on       the split
    """

    temperature: float
    reward_mean: float
    reward_std: float
    n_pairs: int
    n_completions: int
    data_hash: str
    tie_width: float | None
    fitted_on: str

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be positive")

    @classmethod
    def identity(cls) -> Calibration:
        """Changes nothing: temperature 1, mean 0, std 1."""
        return cls(1.0, 0.0, 1.0, 0, 0, "", None, "nothing")

    def probability(self, a: float, b: float) -> float:
        """P(a beats b) = σ((a - b) / T) for raw rewards a and b."""
        return float(expit((a - b) / self.temperature))

    def normalise(self, reward: Floats) -> Floats:
        """(r - mean) / std: what a policy's KL coefficient should see (Ziegler et al. 2019)."""
        return (np.asarray(reward) - self.reward_mean) / (self.reward_std or 1.0)

    def to_json(self, path: Path) -> None:
        """Write calibration.json; numbers round-trip exactly."""
        path.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def from_json(cls, path: Path) -> Calibration:
        """Read calibration.json."""
        return cls(**json.loads(path.read_text()))
