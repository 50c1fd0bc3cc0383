"""Does sigmoid(r_a - r_b) mean what it says? Temperature, calibration errors, and the artefact a run stores.

Everything is symmetric in the two sides: with the preferred answer always first, every label is 1 and the usual
binary calibration error of a perfect model is 0.35.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from rlhf.stats.arrays import Floats, Ints

BINS = 15
"""Guo et al. 2017; of equal width over the confidences 0.5..1, so that all of them can be filled."""

LOG_RANGE = 10.0
"""Temperatures lie within exp(±10) of the root mean square difference."""

PRIOR_SCALE = 0.35
"""Scale of the prior of log T: chosen in a simulation, see docs/methods/evaluation.md."""
GAIN = 0.5
"""Nats that the validation votes must gain before T leaves 1: below it, the move is as likely noise."""
GRID = 41
"""Temperatures that are looked at before the nearest minimum is."""

WITHIN = 0.1
"""Correlation of what two pairs of a prompt say about the temperature."""


def nll(difference: Floats, win_prob: Floats) -> Floats:
    """Cross-entropy of every pair [P]: -p log σ(D) - (1-p) log σ(-D), in nats; no clamp, stable for any D."""
    return win_prob * np.logaddexp(0, -difference) + (1 - win_prob) * np.logaddexp(0, difference)


def fit_temperature(difference: Floats, win_prob: Floats, weight: Floats | None = None) -> float:
    """T > 0 that minimises the mean NLL of σ(D / T) (Guo et al. 2017); the NLL is convex in 1/T.

    Scaling the rewards scales T: fit(c·D) = c·fit(D), unless T = 1 is already the best. No finite T is best in two
    cases, both warned about. Rewards that order every pair as all its annotators did ask for T -> 0; their labels are
    then smoothed to 1/(n+2) and (n+1)/(n+2) (Platt 1999). Rewards that order the pairs no better than chance ask
    for T -> ∞ and get the largest one.

    Args:
        difference: [P] reward differences of the validation pairs, never of the test pairs.
        win_prob: [P] vote shares of the first, ties counting one half.
        weight: [P] how much each pair counts, >= 0; None = all alike.

    Returns:
        T; 1 where nothing beats it, so that fitting never raises the NLL it was fitted on.
    """
    weight = np.ones(len(difference)) if weight is None else weight
    used = (difference != 0) & (weight > 0)  # equal rewards give log 2 at any temperature
    if not used.any():
        return 1.0
    difference, win_prob, weight = difference[used], win_prob[used], weight[used]
    scale = float(np.sqrt(np.average(difference**2, weights=weight)))

    def mean_nll(temperature: float, target: Floats) -> float:
        return float(np.average(nll(difference / temperature, target), weights=weight))

    if np.average(difference * (win_prob - 0.5), weights=weight) <= 0:
        found = scale * math.exp(LOG_RANGE)
        warnings.warn(
            "the rewards order the validation pairs no better than chance: probabilities become one half "
            f"(temperature {found:.3g})",
            stacklevel=2,
        )
    else:
        found = _minimum(mean_nll, scale, _finite_target(difference, win_prob))
    return found if mean_nll(found, win_prob) < mean_nll(1.0, win_prob) else 1.0


def _finite_target(difference: Floats, win_prob: Floats) -> Floats:
    """The vote shares; smoothed where the rewards separate them, because then no T > 0 is best."""
    n = len(difference)
    if not np.array_equal(win_prob, difference > 0):
        return win_prob
    warnings.warn(
        f"the rewards order all {n} validation pairs as the votes do, which fits any low temperature: smoothed the "
        "votes (Platt 1999); more validation pairs make the probabilities reliable",
        stacklevel=3,
    )
    return (win_prob * n + 1) / (n + 2)


def _minimum(mean_nll: Callable[[float, Floats], float], scale: float, target: Floats) -> float:
    found = minimize_scalar(
        lambda log_t: mean_nll(scale * math.exp(log_t), target),
        bounds=(-LOG_RANGE, LOG_RANGE),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return scale * math.exp(float(found.x))


def fit_temperature_with_prior(
    difference: Floats, win_prob: Floats, cluster: Ints, weight: Floats | None = None
) -> float:
    """T >= 1 that minimises Σ w · nll(D / T) + log(1 + (log T / s)²): few prompts move it little from 1.

    The plain fit made calibration worse where validation was small: its error is of the size of what it mends. The
    prior, log T ~ Cauchy(0, s), s = `PRIOR_SCALE`, says that trained rewards are about on the scale of log-odds; its
    heavy tail gives way where the votes say that they are many times too large. Pairs of a
    prompt repeat each other: with m pairs on average each counts w = 1 / (1 + (m - 1) ρ), ρ = `WITHIN` (Kish 1965).
    Probabilities are never made surer (T < 1): the same part has also chosen the checkpoint, so it looks better than
    fresh data, and too sure costs more than too unsure.

    Args:
        difference, win_prob, weight: as in `fit_temperature`.
        cluster: [P] prompt of each pair.
    """
    weight = np.ones(len(difference)) if weight is None else weight
    if not weight.sum() > 0:
        return 1.0
    per_prompt = (weight > 0).sum() / len(np.unique(cluster[weight > 0]))
    effective = weight / (1 + (per_prompt - 1) * WITHIN)

    def objective(log_t: float) -> float:
        data = (effective * nll(difference / math.exp(log_t), win_prob)).sum()
        return float(data + math.log1p((log_t / PRIOR_SCALE) ** 2))

    grid = np.linspace(0, LOG_RANGE, GRID)  # two minima are possible: near 1, and where the votes are
    best = grid[int(np.argmin([objective(log_t) for log_t in grid]))]
    around = (max(0.0, best - grid[1]), best + grid[1])
    found = minimize_scalar(objective, bounds=around, method="bounded", options={"xatol": 1e-8})
    return math.exp(float(found.x)) if objective(float(found.x)) < objective(0.0) - GAIN else 1.0


def fold(probability: Floats, win_prob: Floats) -> tuple[Floats, Floats]:
    """Confidence max(p, 1-p) and vote share of the predicted side, [P] each; swapping sides changes neither.

    Confidences are rounded to 12 digits, because σ(D) and 1 - σ(-D) differ in the last one and would fall into
    two bins at an edge.

    Raises:
        ValueError: something outside [0, 1], such as reward differences instead of probabilities.
    """
    if len(probability) and not (probability.min() >= 0 and probability.max() <= 1):
        raise ValueError("probabilities must lie in [0, 1]; apply the sigmoid to reward differences first")
    confidence = np.maximum(probability, 1 - probability).round(12)
    agreement = np.where(probability > 0.5, win_prob, 1 - win_prob)
    return confidence, np.where(probability == 0.5, 0.5, agreement)  # p = 0.5 predicts no side


def equal_width(confidence: Floats, bins: int = BINS) -> Ints:
    """Bin [P] of each confidence among `bins` of equal width over [0.5, 1]; 1.0 is in the last one."""
    return np.minimum(((confidence - 0.5) * (2 * bins)).astype(np.int64), bins - 1)


def equal_count(confidence: Floats, bins: int = BINS) -> Ints:
    """Bin [P] of each confidence between quantiles (Nixon et al. 2019); equal confidences share a bin."""
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1]) if len(confidence) else np.zeros(0)
    return np.searchsorted(edges, confidence, side="right").astype(np.int64)


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram: mean confidence, share of votes that agreed, number of pairs."""

    confidence: float
    agreement: float
    count: int


def reliability(probability: Floats, win_prob: Floats, *, bins: int = BINS, adaptive: bool = False) -> list[Bin]:
    """Confidence against agreement in the bins that hold a pair, by rising confidence.

    Args:
        probability: [P] stated P(first wins).
        win_prob: [P] vote shares of the first.
        bins: how many.
        adaptive: bins of equal count instead of equal width.

    Raises:
        ValueError: as `fold`.
    """
    confidence, agreement = fold(probability, win_prob)
    place = (equal_count if adaptive else equal_width)(confidence, bins)
    count = np.bincount(place, minlength=bins)
    sums = np.bincount(place, confidence, bins), np.bincount(place, agreement, bins)
    return [
        Bin(float(sums[0][b] / count[b]), float(sums[1][b] / count[b]), int(count[b])) for b in np.flatnonzero(count)
    ]


def ece(probability: Floats, win_prob: Floats, *, bins: int = BINS, adaptive: bool = False) -> float:
    """Expected calibration error Σ_b n_b/n · |agreement_b - confidence_b| (Naeini et al. 2015); 0 is perfect.

    Adaptive: over bins of equal count, which no crowded bin dominates (Nixon et al. 2019).
    """
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

    Raises:
        ValueError: a temperature or a spread that cannot be.
    """

    temperature: float
    reward_mean: float
    reward_std: float
    n_pairs: int
    n_completions: int
    data_hash: str
    tie_width: float | None = None
    fitted_on: str = "val"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature} must be positive and finite")
        if not (math.isfinite(self.reward_mean) and 0 <= self.reward_std < math.inf):
            raise ValueError(f"reward_mean={self.reward_mean}, reward_std={self.reward_std} must be finite")

    @classmethod
    def identity(cls) -> Calibration:
        """Changes nothing: temperature 1, mean 0, std 1."""
        return cls(1.0, 0.0, 1.0, 0, 0, "", None, "nothing")

    def probability(self, a: Floats | float, b: Floats | float) -> Floats:
        """P(a beats b) = σ((a - b) / T) for raw rewards a and b, elementwise."""
        return np.asarray(expit((np.asarray(a, dtype=np.float64) - b) / self.temperature))

    def normalise(self, reward: Floats | float) -> Floats:
        """(r - mean) / std, which the KL coefficient of a policy refers to (Ziegler et al. 2019); std 0 counts as 1."""
        return (np.asarray(reward, dtype=np.float64) - self.reward_mean) / (self.reward_std or 1.0)

    def to_json(self, path: Path) -> None:
        """Write calibration.json; numbers round-trip exactly."""
        path.write_text(json.dumps(asdict(self), indent=2, allow_nan=False) + "\n")

    @classmethod
    def from_json(cls, path: Path) -> Calibration:
        """Read calibration.json.

        Raises:
            ValueError: the file is not one, with its name and what is wrong.
        """
        stored = json.loads(path.read_text())
        known = {f.name for f in fields(cls)}
        if not isinstance(stored, dict) or set(stored) != known:
            raise ValueError(f"{path}: a calibration has exactly the keys {', '.join(sorted(known))}")
        return cls(**stored)
