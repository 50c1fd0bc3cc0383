"""Do the members of a set err together, and does their disagreement show where they err?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlhf.evaluation.metrics.ood import clustered_auroc
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.scored import Scored
from rlhf.stats.arrays import Floats


@dataclass(frozen=True)
class Robustness:
    """The members of a set beside the set.

    right         [M, P] credit of every member on the pairs that have a right answer
    combined      [P] credit of their combination
    correlation   [M, M] correlation of their errors; NaN where a member makes none, or only errors
    all_wrong     share of the pairs on which every member is wrong: what no combination can mend
    split         share of the pairs on which members differ about the winner
    disagreement  [P], standard deviation over members (M - 1 in the denominator) of their reward differences
    auroc         how well disagreement singles out the errors of the combination, with its interval
    """

    right: Floats
    combined: Floats
    correlation: Floats
    all_wrong: float
    split: float
    disagreement: Floats
    auroc: tuple[float, float, float] | None


def robustness(scored: Scored, members: Floats) -> Robustness | None:
    """None where there are fewer than 2 members or no pair with a right answer.

    Args:
        scored: the set under the combined reward.
        members: [M, N] rewards of the members, on one scale.
    """
    credit_now = credit(scored.difference, scored.win_prob)
    decided = np.isfinite(credit_now)
    if len(members) < 2 or not decided.any():
        return None
    difference = (members[:, scored.first] - members[:, scored.second])[:, decided]
    right = np.stack([credit(d, scored.win_prob[decided]) for d in difference])
    combined, cluster = credit_now[decided], scored.pair_prompt[decided]
    disagreement = (difference - difference[0]).std(0, ddof=1)  # exactly 0 where all are equal
    wrong = combined < 0.5
    auroc = None
    if wrong.any() and not wrong.all():
        auroc = clustered_auroc(disagreement[~wrong], disagreement[wrong], (cluster[~wrong], cluster[wrong]))
    return Robustness(
        right=right,
        combined=combined,
        correlation=_correlation(right),
        all_wrong=float((right < 0.5).all(0).mean()),
        split=float((right.min(0) != right.max(0)).mean()),
        disagreement=disagreement,
        auroc=auroc,
    )


def _correlation(right: Floats) -> Floats:
    centred = right - right.mean(1, keepdims=True)
    norm = np.sqrt((centred**2).sum(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(centred @ centred.T / np.outer(norm, norm))
