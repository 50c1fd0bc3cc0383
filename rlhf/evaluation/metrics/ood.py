"""Is an answer like those the model was trained on? Detectors on the pooled hidden states, and how good they are.

mahalanobis  (h - μ)ᵀ Σ⁻¹ (h - μ), Σ shrunk (Ledoit & Wolf 2004) (Lee et al. 2018)
laplace      (h - μ)ᵀ H⁻¹ (h - μ), H = λI + Σ_pairs p(1-p) Δh Δhᵀ: variance of the reward under a Gaussian
             posterior of the last layer (MacKay 1992; Kristiadi et al. 2020)
Both are fitted on training completions and travel with the exported model. scikit-learn is loaded where it is used: its
import costs a tenth of the time that evaluating 100,000 cached scores takes, and these need none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.special import expit, stdtrit

from rlhf.stats.arrays import Bools, Floats, Ints
from rlhf.stats.bootstrap import LEVEL, Estimate, binned_sums, cluster_sums, graded, resampled_sums, share, share_around
from rlhf.stats.ranks import ranks_of

QUANTILES = 1001
"""Steps of the stored distribution of a detector on held-out answers."""
ROUNDS = 100
"""Updates of the prior precision; it settles to 6 digits within a few dozen."""
MOST = 4096
"""Completions that statistics are fitted on, at most: bounds memory at MOST · D numbers."""


@dataclass(frozen=True)
class Reference:
    """What training features looked like.

    mean       [D]
    precision  [D, D], inverse of the shrunk covariance
    posterior  [D, D], covariance of the last layer's weights
    typical    detector -> [QUANTILES], its quantiles on held-out completions of the training distribution
    """

    mean: Floats
    precision: Floats
    posterior: Floats
    typical: Mapping[str, Floats] = field(default_factory=dict)

    def detect(self, features: Floats) -> dict[str, Floats]:
        """Both detectors [N] of features [N, D]."""
        centred = np.asarray(features, dtype=np.float64) - self.mean
        return {
            "mahalanobis": np.einsum("nd,de,ne->n", centred, self.precision, centred, optimize=True),
            "laplace": np.einsum("nd,de,ne->n", centred, self.posterior, centred, optimize=True),
        }

    def ood_score(self, detector: str, values: Floats) -> Floats:
        """Share [N] of held-out training-like answers that are less out of distribution: 0.5 is ordinary, 1 is beyond
        all.
        """
        known = self.typical[detector]
        return np.searchsorted(known, values, side="left") / len(known)

    def save(self, path: Path) -> None:
        """Write a safetensors file, in single precision."""
        columns = {"mean": self.mean, "precision": self.precision, "posterior": self.posterior}
        columns |= {f"typical/{name}": values for name, values in self.typical.items()}
        save_file({name: np.ascontiguousarray(v, dtype=np.float32) for name, v in columns.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what `save` wrote."""
        stored = {name: value.astype(np.float64) for name, value in load_file(path).items()}
        typical = {n.removeprefix("typical/"): v for n, v in stored.items() if n.startswith("typical/")}
        return cls(stored["mean"], stored["precision"], stored["posterior"], typical)


def fit_reference(features: Floats, reward: Floats, first: Ints, second: Ints, weight: Floats) -> Reference:
    """Statistics of training completions.

    Args:
        features: [N, D] pooled states.
        reward: [N] raw rewards.
        first, second: [P] completions of the labelled pairs.
        weight: [D] of the last layer.

    Raises:
        ValueError: fewer than 2 completions.
    """
    if len(features) < 2:
        raise ValueError("statistics of features need at least 2 completions")
    from sklearn.covariance import LedoitWolf

    features = np.asarray(features, dtype=np.float64)
    shrunk = LedoitWolf().fit(features)
    posterior = laplace_covariance(features[first] - features[second], reward[first] - reward[second], weight)
    return Reference(shrunk.location_, shrunk.precision_, posterior)


def laplace_covariance(difference: Floats, logit: Floats, weight: Floats) -> Floats:
    """Posterior covariance [D, D] of last-layer weights under a Bradley-Terry likelihood and a prior N(0, I/λ).

    λ = γ / |w|² with γ = Σ e_i / (e_i + λ) over the eigenvalues e of the likelihood's curvature (MacKay 1992),
    iterated to its fixed point.

    Args:
        difference: [P, D] feature differences of the pairs.
        logit: [P] reward differences.
        weight: [D] of the trained layer.
    """
    p = expit(logit)
    curvature = difference.T @ (difference * (p * (1 - p))[:, None])
    values, vectors = np.linalg.eigh(curvature)
    values = np.maximum(values, 0.0)
    norm2, precision = float(weight @ weight), 1.0
    for _ in range(ROUNDS if norm2 > 0 and values.max(initial=0) > 0 else 0):
        precision = max(float((values / (values + precision)).sum()) / norm2, 1e-12)
    return np.asarray((vectors / (values + precision)) @ vectors.T)


def with_typical(reference: Reference, features: Floats) -> Reference:
    """The reference with the distribution of its detectors on held-out features [N, D]."""
    steps = np.linspace(0, 1, QUANTILES)
    typical = {name: np.quantile(values, steps) for name, values in reference.detect(features).items()}
    return Reference(reference.mean, reference.precision, reference.posterior, typical)


@dataclass(frozen=True, slots=True)
class Detection:
    """How well a score tells shifted from ordinary.

    auroc   P(the shifted one scores higher), ties one half
    aupr    average precision, shifted being positive; a random score has the share of shifted ones
    fpr95   share of ordinary ones called shifted where 95 % of the shifted ones are caught
    """

    auroc: Estimate
    aupr: Estimate
    fpr95: Estimate


def detection(
    ordinary: Floats, shifted: Floats, prompts: tuple[Ints, Ints], *, samples: int = 0, seed: int = 0
) -> Detection:
    """Rate a detector by its scores on ordinary [N] and shifted [S] completions.

    Args:
        ordinary, shifted: the scores; higher should mean farther out of distribution.
        prompts: code of the prompt of each of the ordinary and of the shifted ones; equal codes are one cluster.
        samples, seed: of the bootstrap; 0 leaves out the intervals of AUPR and FPR95.

    Raises:
        ValueError: one of the two is empty.
    """
    if not len(ordinary) or not len(shifted):
        raise ValueError("a detector is rated on ordinary and shifted examples, both at least one")
    from sklearn.metrics import average_precision_score, roc_curve

    truth = np.repeat([0, 1], [len(ordinary), len(shifted)])
    scores, cluster = np.concatenate([ordinary, shifted]), np.concatenate(prompts)
    false, caught, _ = roc_curve(truth, scores, drop_intermediate=False)
    rates = float(average_precision_score(truth, scores)), float(false[caught >= 0.95].min())
    drawn, count = _resampled(scores, truth == 1, cluster, samples, seed), len(np.unique(cluster))
    found = [Estimate(value, np.nan, np.nan) for value in rates]
    if drawn is not None:
        found = [share_around(value, column, count) for value, column in zip(rates, drawn, strict=True)]
    return Detection(clustered_auroc(ordinary, shifted, prompts), *found)


def _resampled(scores: Floats, shifted: Bools, cluster: Ints, samples: int, seed: int) -> tuple[Floats, Floats] | None:
    """AUPR and FPR95 [1 + samples] in grades of the score: of the set itself, and with its clusters resampled.

    Inside a grade false alarms rise evenly with what is caught. None where there is nothing to resample.
    """
    place, grades = graded(-scores)
    sides = (shifted.astype(float), (~shifted).astype(float))
    sums = np.hstack([binned_sums(side, place, grades, cluster) for side in sides])
    if len(sums) < 2 or samples < 1:
        return None
    drawn = np.vstack([sums.sum(0), resampled_sums(sums, samples=samples, seed=seed)])
    found, alarms = drawn[:, :grades], drawn[:, grades:]
    caught, false = np.cumsum(found, axis=1), np.cumsum(alarms, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may hold one side only: NaN, left out
        precision = caught / np.maximum(caught + false, 1)
        aupr = (found * precision).sum(1) / caught[:, -1]
        wanted, row = 0.95 * caught[:, -1], np.arange(len(drawn))
        last = np.minimum((caught < wanted[:, None] - 1e-9).sum(1), grades - 1)
        beyond = (caught[row, last] - wanted) / np.maximum(found[row, last], 1)
        fpr95 = (false[row, last] - beyond * alarms[row, last]) / false[:, -1]
    return aupr, fpr95


def clustered_auroc(ordinary: Floats, shifted: Floats, prompts: tuple[Ints, Ints]) -> Estimate:
    """Area under the ROC curve and its interval when examples of one prompt belong together (Obuchowski 1997).

    From the placements V (the share of the other side that an example beats), summed per cluster; on both sides
    together, because a prompt may have ordinary and shifted examples. The interval is Student's, cut at 0 and 1; NaN
    where fewer than 2 clusters are known.
    """
    n, s = len(ordinary), len(shifted)
    both = ranks_of(np.concatenate([ordinary, shifted]))
    rank_shifted = (both[n:] - ranks_of(shifted)) / n
    rank_ordinary = 1 - (both[:n] - ranks_of(ordinary)) / s
    area = float(rank_shifted.mean())
    influence = np.concatenate([(rank_ordinary - area) / n, (rank_shifted - area) / s])
    sums = cluster_sums(influence[:, None], np.concatenate(prompts))[:, 0]
    if len(sums) < 2:
        return Estimate(area, np.nan, np.nan)
    error = float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()))
    reach = error * float(stdtrit(len(sums) - 1, (1 + LEVEL) / 2))
    return share(area, area - reach, area + reach, len(sums))
