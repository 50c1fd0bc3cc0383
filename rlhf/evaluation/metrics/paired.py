"""Two models on the same pairs: is one better? Paired by pair, clustered by prompt, corrected for many comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rlhf.evaluation.metrics.slices import holm
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import (
    DIFFERENCE,
    cluster_bootstrap,
    cluster_sums,
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
    accuracy: float
    low: float
    high: float
    p: float
    mcnemar: float
    only_first: int
    only_second: int
    nll: float
    nll_low: float
    nll_high: float
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
    pairs = list(combinations(right, 2))
    found = [_one(right, loss, cluster, a, b, samples, seed) for a, b in pairs]
    tests = {name: holm([f[name] for f in found]) for name in ("p", "mcnemar", "nll_p")}
    return [
        Difference(a, b, **f | {name: adjusted[i] for name, adjusted in tests.items()})
        for i, ((a, b), f) in enumerate(zip(pairs, found, strict=True))
    ]


def _one(
    right: Mapping[str, Floats], loss: Mapping[str, Floats], cluster: Ints, a: str, b: str, samples: int, seed: int
) -> dict[str, Any]:  # fmt: skip
    from scipy.stats import binomtest  # slow to import, and wanted where models are compared only

    lead = right[a] - right[b]
    decided = np.isfinite(lead)
    lead = np.where(decided, lead, 0.0)
    worse = loss[a] - loss[b]
    tops = cluster_sums(np.column_stack([lead, worse]), cluster)
    bottoms = cluster_sums(np.column_stack([decided, np.ones(len(lead))]).astype(float), cluster)
    low, high = cluster_bootstrap(tops, bottoms, samples=samples, seed=seed)
    lead_mean = float(tops[:, 0].sum() / max(1.0, bottoms[:, 0].sum()))
    prompts = int((bottoms[:, 0] > 0).sum())
    low[0], high[0] = unanimous(lead_mean, low[0], high[0], prompts, within=DIFFERENCE)
    only_first, only_second = int((lead > 0.75).sum()), int((lead < -0.75).sum())
    discordant = only_first + only_second
    return {
        "accuracy": lead_mean,
        "low": float(low[0]),
        "high": float(high[0]),
        "p": bootstrap_p(tops[:, 0], samples=samples, seed=seed),
        "mcnemar": float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
        "only_first": only_first,
        "only_second": only_second,
        "nll": float(worse.mean()),
        "nll_low": float(low[1]),
        "nll_high": float(high[1]),
        "nll_p": bootstrap_p(tops[:, 1], samples=samples, seed=seed),
    }


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
