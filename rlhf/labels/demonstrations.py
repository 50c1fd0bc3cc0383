"""Labels for imitation: which completions of a record a policy should learn to say.

`score[K, 1]` is 1 for a demonstration and NaN for a completion that is none; nothing is compared.
"""

import numpy as np

from rlhf.labels.aggregation import soft
from rlhf.labels.label import Label, no_rankings
from rlhf.labels.orders import above, compared_sets
from rlhf.records import Comparison
from rlhf.stats.arrays import Bools


def every(record: Comparison, *, criterion: str | None = None) -> Label:
    """All completions: to learn how they were sampled; votes of no criterion count."""
    return _label(np.ones(len(record.completions), dtype=bool))


def best(record: Comparison, *, criterion: str | None = None) -> Label:
    """The completions that nobody's votes put below another (rank 0); all of them where there are no votes."""
    label = soft(record, criterion=criterion)
    best = np.zeros(len(label.rank), dtype=bool)
    for places in compared_sets(label.observed):
        square = np.ix_(places, places)
        best[places] = ~above(label.win_prob[square], label.observed[square]).any(0)
    return _label(best if best.any() else np.ones(len(best), dtype=bool))


def _label(chosen: Bools) -> Label:
    k = len(chosen)
    none = np.zeros((k, k))
    score = np.where(chosen, 1.0, np.nan)[:, None]
    return Label(none, none, none.astype(bool), none, np.full(k, -1), score, none, *no_rankings(k))
