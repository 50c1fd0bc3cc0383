"""The Bradley-Terry head on fixed features, exactly: maximum a posteriori by Newton, and its Laplace posterior.

    minimise  Σ_i votes_i [ q_i log(1 + e^-μ_i) + (1 - q_i) log(1 + e^μ_i) ] + λ/2 |θ|²,   μ = Zθ
    θ ~ N(θ̂, H⁻¹),   H = λI + Σ_i votes_i p_i (1 - p_i) z_i z_iᵀ        (MacKay 1992)

λ decides more than any selector: with a fixed one, whatever selector moves the labels towards it seems to win. So it is
chosen anew every round, for every selector alike, by cross-validation over prompts on labelled pairs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import expit
from sklearn.model_selection import GroupKFold, KFold

from rlhf.evaluation.metrics.calibration import nll
from rlhf.select.checks import option
from rlhf.stats.arrays import Floats, Ints, Rng

GRID = tuple(float(10.0**e) for e in np.arange(-1.5, 2.01, 0.5))
"""λ over the mean squared length of z: from nearly free to nearly silent."""

STEPS = 50
EXACT, ENOUGH = 1e-12, 1e-5
"""Newton stops when a step would lower the loss by less than this share of it: for the head, and inside the tuning."""


def information(p: Floats, *, votes: float = 1.0, reliability: float = 1.0) -> Floats:
    """Fisher information about μ in the votes on a pair with P(first is better) = p.

    A vote that follows Bradley-Terry with probability γ and is a coin otherwise has p̃ = γp + (1-γ)/2 and
    w_γ = γ² w² / (p̃ (1 - p̃)), which is w = p (1 - p) at γ = 1; m votes count m times.

    Args:
        p: any shape.
        votes: m > 0 per pair.
        reliability: γ in (0, 1].

    Raises:
        RecordError: votes or reliability outside their ranges.
    """
    option("reliability", reliability, 0, 1, above=True)
    option("votes", votes, 0, above=True)
    w = p * (1 - p)
    seen = reliability * p + (1 - reliability) / 2
    return np.asarray(votes * reliability**2 * w**2 / np.maximum(seen * (1 - seen), 1e-300))


def tie_information(mu: Floats, tie: float) -> Floats:
    """Fisher information about μ where a tie may be voted: Davidson (1970) with logits (μ/2, tie, -μ/2).

    w = ¼ [(p₁ + p₂) - (p₁ - p₂)²], which goes to p (1 - p) as tie → -∞.
    """
    logits = np.stack([mu / 2, np.broadcast_to(tie, np.shape(mu)), -mu / 2])
    odds = np.exp(logits - logits.max(0))
    first, _, second = odds / odds.sum(0)
    return np.asarray(((first + second) - (first - second) ** 2) / 4)


@dataclass(frozen=True)
class Posterior:
    """N(θ̂, H⁻¹): theta [d], the lower Cholesky factor of H [d, d], and the λ it was fitted with."""

    theta: Floats
    factor: Floats
    regularisation: float

    @classmethod
    def prior(cls, width: int, regularisation: float = 1.0) -> Posterior:
        """N(0, I / λ)."""
        return cls(np.zeros(width), np.sqrt(regularisation) * np.eye(width), regularisation)

    @cached_property
    def inverse_factor(self) -> Floats:
        """L⁻¹ [d, d]: one product per block of pairs is faster than solving for each."""
        return np.asarray(solve_triangular(self.factor, np.eye(len(self.theta)), lower=True))

    def variance(self, z: Floats) -> Floats:
        """s² [n] = zᵀ H⁻¹ z of differences z [n, d]."""
        white = z @ self.inverse_factor.T  # H = LLᵀ: squared lengths are posterior variances
        return np.asarray(np.einsum("nd,nd->n", white, white))

    def covariance(self) -> Floats:
        """H⁻¹ [d, d]."""
        return np.asarray(cho_solve((self.factor, True), np.eye(len(self.theta))))

    def draw(self, count: int, rng: Rng) -> Floats:
        """Samples of θ [count, d]."""
        noise = rng.standard_normal((len(self.theta), count))
        return np.asarray(self.theta + solve_triangular(self.factor, noise, lower=True, trans="T").T)


def fit(z: Floats, share: Floats, votes: Floats, regularisation: float) -> Posterior:
    """The posterior from labelled differences.

    Args:
        z: [m, d]
        share: [m] share of the votes for the first, 0..1.
        votes: [m] how many votes each has.
        regularisation: λ > 0.

    Raises:
        ValueError: λ is not positive.
    """
    if not regularisation > 0:
        raise ValueError(f"regularisation={regularisation} must be positive")
    rotated, basis = _row_space(z)
    theta = basis @ newton(rotated, share, votes, regularisation, np.zeros(rotated.shape[1]))
    w = votes * information(expit(z @ theta))
    precision = (z.T * w) @ z + regularisation * np.eye(z.shape[1])
    return Posterior(theta, np.tril(cho_factor(precision, lower=True)[0]), regularisation)


def newton(
    z: Floats, share: Floats, votes: Floats, regularisation: float, start: Floats, tolerance: float = EXACT
) -> Floats:
    """θ̂ [d] from `start`; steps are halved until the loss falls (it is strictly convex)."""
    theta, loss = start, _loss(z @ start, share, votes, regularisation, start)
    for _ in range(STEPS):
        p = expit(z @ theta)
        gradient = z.T @ (votes * (p - share)) + regularisation * theta
        hessian = (z.T * (votes * p * (1 - p))) @ z
        hessian[np.diag_indices_from(hessian)] += regularisation
        step = cho_solve(cho_factor(hessian, check_finite=False), gradient, check_finite=False)
        size, decrease = 1.0, float(gradient @ step)
        while True:
            new = theta - size * step
            new_loss = _loss(z @ new, share, votes, regularisation, new)
            if new_loss <= loss - 1e-4 * size * decrease or size < 1e-6:
                break
            size /= 2
        theta, loss = new, new_loss
        if decrease < tolerance * max(1.0, abs(loss)):
            break
    return theta


@dataclass(frozen=True)
class Tuned:
    """The chosen λ, its mean out-of-fold NLL per vote, and every pair's out-of-fold P(first is better) [m]."""

    regularisation: float
    nll: float
    out_of_fold: Floats


def tune(
    z: Floats, share: Floats, votes: Floats, groups: Ints, *, folds: int = 4, grid: Sequence[float] = GRID,
    seed: int = 0,
) -> Tuned:  # fmt: skip
    """λ by cross-validation: whole prompts are left out, the NLL of their votes decides.

    Args:
        z, share, votes: as in `fit`, m >= 2 pairs.
        groups: [m] codes of the prompts.
        folds: at most; fewer where there are fewer prompts, and over pairs where there is one prompt.
        grid: candidates for λ, in units of the mean |z|².
        seed: of the folds.
    """
    unit = max(float((z**2).sum(1).mean()), 1e-12)
    rotated, _ = _row_space(z)
    steps = sorted(grid, reverse=True)
    predicted = np.full((len(steps), len(z)), np.nan)
    prompts = len(np.unique(groups))
    kind, units = (GroupKFold, prompts) if prompts > 1 else (KFold, len(groups))
    cut = kind(min(folds, units), shuffle=True, random_state=seed)
    for train, test in cut.split(groups, groups=groups if prompts > 1 else None):
        theta: Floats = np.zeros(rotated.shape[1])
        for i, step in enumerate(steps):
            theta = newton(rotated[train], share[train], votes[train], step * unit, theta, ENOUGH)
            predicted[i, test] = rotated[test] @ theta
    mean = (nll(predicted, share) * votes).sum(1) / votes.sum()
    best = int(np.argmin(mean))
    return Tuned(steps[best] * unit, float(mean[best]), np.asarray(expit(predicted[best])))


def _row_space(z: Floats) -> tuple[Floats, Floats]:
    """Z in coordinates of its own rows [m, r] and the basis [d, r], r = min(m, d): θ̂ lies there, and Newton is r³."""
    if z.shape[0] >= z.shape[1]:
        return z, np.eye(z.shape[1])
    basis, coordinates = np.linalg.qr(z.T)
    return coordinates.T, basis


def _loss(mu: Floats, share: Floats, votes: Floats, regularisation: float, theta: Floats) -> float:
    return float((votes * nll(mu, share)).sum() + regularisation / 2 * (theta @ theta))
