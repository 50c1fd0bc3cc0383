"""An ensemble's rewards [M, N] to one reward [N]: what the policy is optimised against (Coste et al. 2024).

Members are first put on one scale, each to mean 0 and spread 1 over the same answers: raw spreads are dominated by the
loudest member. Variances are population variances (ddof 0) everywhere: with 5 members the sample variance is
25% larger, and the penalties in the literature differ by just that.
"""

from collections.abc import Callable

import numpy as np

from rlhf.stats.arrays import Floats

Aggregator = Callable[[Floats], Floats]
"""`(members [M, N], standardised) -> reward [N]`."""


def standardise(members: Floats, reference: Floats | None = None) -> Floats:
    """Every member [M, N] to mean 0 and population spread 1 over `reference` [M, R]; a constant member becomes 0.

    Args:
        members: raw rewards.
        reference: rewards of the same members on other answers, such as those of the reference policy, that fix
            the scale; None = `members` themselves.
    """
    seen = members if reference is None else reference
    spread = seen.std(axis=-1, ddof=0, keepdims=True)
    return np.asarray((members - seen.mean(-1, keepdims=True)) / np.where(spread == 0, 1.0, spread))


def mean(members: Floats) -> Floats:
    """Mean over members."""
    return np.asarray(members.mean(0))


def median(members: Floats) -> Floats:
    """Median over members: one that has gone astray has no say."""
    return np.asarray(np.median(members, axis=0))


def worst_case(members: Floats) -> Floats:
    """The lowest member (WCO, Coste et al. 2024, eq. 5)."""
    return np.asarray(members.min(0))


def mean_minus_variance(members: Floats, weight: float = 0.5) -> Floats:
    """The mean less λ times the variance over members, ddof 0 (UWO, Coste et al. 2024, eq. 6).

    Args:
        members: [M, N], standardised.
        weight: λ >= 0, in units of 1 / standardised reward; 0 is the mean.

    Raises:
        ValueError: a negative weight, which would reward disagreement.
    """
    if not weight >= 0:
        raise ValueError(f"weight={weight:g}: the penalty on disagreement must be >= 0")
    return np.asarray(members.mean(0) - weight * variance(members))


def variance(members: Floats) -> Floats:
    """Population variance [N] over members (ddof 0); 0 where they agree."""
    return np.asarray(members.var(axis=0, ddof=0))
