"""Ensemble rewards to one score and an uncertainty penalty: score - penalty is what the policy is paid.

Members come z-normalised on reference samples, so that none counts for its scale. Variances are population variances
(ddof 0) everywhere: with K = 5 members, the sample variance would make every penalty a quarter larger.
Coste et al. 2023 (mean, worst case, mean - λ·var); Eisenstein et al. 2023.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

DDOF = 0


class EnsembleScore(NamedTuple):
    """score [B] and penalty [B] >= 0, in units of normalised reward."""

    score: Float[Tensor, " B"]
    penalty: Float[Tensor, " B"]


Aggregator = Callable[[Tensor], EnsembleScore]
"""`members [M, B] -> EnsembleScore`."""


def normalise(
    members: Float[Tensor, "M B"], mean: Float[Tensor, " M"], std: Float[Tensor, " M"]
) -> Float[Tensor, "M B"]:
    """Every member with its own mean and standard deviation on reference samples.

    Raises:
        ValueError: a member gave the same reward to every reference sample.
    """
    if not bool((std > 0).all()):
        flat = (std <= 0).nonzero().flatten().tolist()
        raise ValueError(f"members {flat} of the reward model give every sample the same reward: nothing to optimise")
    return (members - mean[:, None]) / std[:, None]


def mean(members: Float[Tensor, "M B"]) -> EnsembleScore:
    """The mean over members."""
    return EnsembleScore(members.mean(0), torch.zeros_like(members[0]))


def median(members: Float[Tensor, "M B"]) -> EnsembleScore:
    """The median over members; the mean of the middle two where their number is even."""
    return EnsembleScore(members.quantile(0.5, dim=0), torch.zeros_like(members[0]))


def worst_case(members: Float[Tensor, "M B"]) -> EnsembleScore:
    """The lowest member (WCO): mean minus how far below it the lowest lies."""
    centre = members.mean(0)
    return EnsembleScore(centre, (centre - members.amin(0)).clamp(min=0))


def mean_minus_variance(members: Float[Tensor, "M B"], *, weight: float) -> EnsembleScore:
    """Mean - λ · variance (UWO); λ = `weight`, 0.1 to 1 with normalised members."""
    return EnsembleScore(members.mean(0), _weight(weight) * members.var(0, correction=DDOF))


def mean_minus_std(members: Float[Tensor, "M B"], *, weight: float) -> EnsembleScore:
    """Mean - k · standard deviation, a lower confidence bound; k = `weight`."""
    return EnsembleScore(members.mean(0), _weight(weight) * members.std(0, correction=DDOF))


def spread(members: Float[Tensor, "M B"]) -> Float[Tensor, " B"]:
    """Standard deviation over members: the ensemble's disagreement."""
    return members.std(0, correction=DDOF)


def _weight(weight: float) -> float:
    if weight < 0:
        raise ValueError(f"weight={weight:g} of the uncertainty penalty must be >= 0")
    return weight
