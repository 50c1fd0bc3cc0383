"""Several models on the same pairs: is one better than another, and do the members of a set err together?

Paired by pair, clustered by prompt, corrected for many comparisons.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from rlhf.evaluation.metrics.ood import clustered_auroc
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.scored import Scored
from rlhf.evaluation.metrics.slices import holm
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import (
    DIFFERENCE,
    Estimate,
    ResampleOptions,
    cluster_bootstrap,
    cluster_sums,
    ratio,
    resampled_sums,
    stretched,
    unanimous,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first less the second.

    accuracy  difference with its interval, prompts resampled
    p         two-sided, from the same resamples (share on the other side of 0, twice), corrected by Holm
    mcnemar   exact two-sided p of McNemar (1947) on the pairs where one is right and the other wrong, corrected
              by Holm; it takes pairs as independent, which pairs of one prompt are not: with many pairs per prompt
              it is too small
    only_first, only_second  those pairs
    nll       difference of calibrated NLL with its interval, in nats; negative = the first is better
    nll_p     two-sided, as p, corrected by Holm
    """

    first: str
    second: str
    accuracy: Estimate
    p: float
    mcnemar: float
    only_first: int
    only_second: int
    nll: Estimate
    nll_p: float


def differences(
    right: Mapping[str, Floats], loss: Mapping[str, Floats], cluster: Ints, *, samples: int, seed: int
) -> list[Difference]:
    """Every two of the models.

    Args:
        right: name -> [P] credit, NaN where a pair has no right answer (the same pairs for all).
        loss: name -> [P] calibrated NLL.
        cluster: [P] prompt of every pair.
        samples, seed: of the bootstrap.
    """
    from scipy.stats import binomtest  # slow to import, and wanted where models are compared only

    resamples: ResampleOptions = {"samples": samples, "seed": seed}
    found = []
    for first, second in combinations(right, 2):
        lead, worse = right[first] - right[second], loss[first] - loss[second]
        decided = np.isfinite(lead)
        lead = np.where(decided, lead, 0.0)
        tops = cluster_sums(np.column_stack([lead, worse]), cluster)
        bottoms = cluster_sums(np.column_stack([decided, np.ones(len(lead))]).astype(float), cluster)
        low, high = cluster_bootstrap(tops, bottoms, **resamples)
        value, prompts = float(tops[:, 0].sum() / max(1.0, bottoms[:, 0].sum())), int((bottoms[:, 0] > 0).sum())
        ends = unanimous(value, low[0], high[0], prompts, within=DIFFERENCE)
        only_first, only_second = int((lead > 0.75).sum()), int((lead < -0.75).sum())
        discordant = only_first + only_second
        one = Difference(
            first,
            second,
            accuracy=Estimate(value, float(ends[0]), float(ends[1])),
            p=bootstrap_p(tops[:, 0], **resamples),
            mcnemar=float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
            only_first=only_first,
            only_second=only_second,
            nll=Estimate(float(worse.mean()), float(low[1]), float(high[1])),
            nll_p=bootstrap_p(tops[:, 1], **resamples),
        )
        found.append(one)
    p, mcnemar, nll_p = (holm([getattr(d, name) for d in found]) for name in ("p", "mcnemar", "nll_p"))
    return [replace(d, p=p[i], mcnemar=mcnemar[i], nll_p=nll_p[i]) for i, d in enumerate(found)]


def bootstrap_p(sums: Floats, *, samples: int, seed: int) -> float:
    """Two-sided p of "the sum over clusters is 0": twice the smaller share of resamples on either side of 0.

    Resamples are `stretched` about the sum, so that p < 0.05 where the 95% interval excludes 0. At least 2 /
    (samples + 1), and at least 2^(1 - C): as rare as it is that all of C clusters have one sign by chance. NaN for
    fewer than 2 clusters or no resamples.
    """
    if len(sums) < 2 or samples < 1:
        return np.nan
    drawn = resampled_sums(sums[:, None], samples=samples, seed=seed)[:, 0]
    carrying = int((sums != 0).sum())
    away = sums.sum() + (drawn - sums.sum()) * stretched(len(sums))
    side = min(int((away <= 0).sum()), int((away >= 0).sum()))
    return float(min(1.0, max(2 * (side + 1) / (samples + 1), 2.0 ** (1 - carrying))))


@dataclass(frozen=True)
class Robustness:
    """The members of a set beside the set.

    right         [M, P] credit of every member on the pairs that have a right answer
    combined      [P] credit of their combination
    correlation   [M, M] correlation of their errors; NaN where a member makes none, or only errors
    disagreement  [P], standard deviation over members (M - 1 in the denominator) of their reward differences
    auroc         how well disagreement singles out the errors of the combination, with its interval
    """

    right: Floats
    combined: Floats
    correlation: Floats
    disagreement: Floats
    auroc: Estimate | None


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
    wrong, auroc = combined < 0.5, None
    if wrong.any() and not wrong.all():
        auroc = clustered_auroc(disagreement[~wrong], disagreement[wrong], (cluster[~wrong], cluster[wrong]))
    centred = right - right.mean(1, keepdims=True)
    norm = np.sqrt((centred**2).sum(1))
    return Robustness(right, combined, ratio(centred @ centred.T, np.outer(norm, norm)), disagreement, auroc)
