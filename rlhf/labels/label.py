"""A label: what the votes on one record add up to. numpy only, no torch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rlhf.records import Comparison
from rlhf.stats.arrays import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Label:
    """Fields as in `rlhf.data.batch.Target`, for one record with K completions and A attributes.

    win_prob [K, K], tie_prob [K, K], observed [K, K], margin [K, K], rank [K], score [K, A], weight,
    `ranked_set` [K]: number of the set of completions that votes ranked together, -1 = none; None = all ranked ones,
    `votes` [K, K]: how many votes each pair got (a weighted count where votes are weighted), and
    `pair_weight` [K, K]: how much each pair counts; None = 1 where it is observed.
    """

    win_prob: Floats
    tie_prob: Floats
    observed: Bools
    margin: Floats
    rank: Ints
    score: Floats
    votes: Floats
    weight: float = 1.0
    pair_weight: Floats | None = None
    ranked_set: Ints | None = None

    def pairs(self) -> list[tuple[int, int]]:
        """The observed pairs (i, j), i < j, by rows."""
        return [(i, j) for i, j in np.argwhere(np.triu(self.observed, 1)).tolist()]


MATRICES = ("win_prob", "tie_prob", "observed", "margin", "votes", "pair_weight")
"""Fields [K, K] of a label."""

Aggregation = Callable[[Comparison], Label]
"""Votes to a label. A record whose votes decide nothing gives a label with nothing observed."""


@runtime_checkable
class FittedAggregation(Protocol):
    """An aggregation that first learns from many records, e.g. who is reliable."""

    def fit(self, records: Iterable[Comparison]) -> Aggregation:
        """Learn from the records; returns the aggregation that labels them."""


def informative(label: Label) -> bool:
    """Does the label say anything: a labelled pair, a rating, or two ranked completions?"""
    return bool(label.observed.any() or np.isfinite(label.score).any() or (label.rank >= 0).sum() > 1)


def restricted(label: Label, kept: Sequence[int]) -> Label:
    """The label of the completions that are kept; ranks keep their order."""
    if len(kept) == len(label.rank):
        return label
    square = np.ix_(kept, kept)
    cut = {name: value[square] for name in MATRICES if (value := getattr(label, name)) is not None}
    sets = None if label.ranked_set is None else label.ranked_set[list(kept)]
    rank = ranks_among(label.rank[list(kept)], sets)
    return replace(label, rank=rank, ranked_set=sets, score=label.score[list(kept)], **cut)


def ranks_among(rank: Ints, sets: Ints | None = None) -> Ints:
    """Ranks of some completions [K] as 0, 1, 2, ... among themselves, set [K] by set; -1 stays."""
    among = np.full(len(rank), -1)
    for one in np.unique(sets) if sets is not None else [None]:
        own = (rank >= 0) if one is None else (rank >= 0) & (sets == one)
        among[own] = np.unique(rank[own], return_inverse=True)[1]
    return among


def without_identical(label: Label, contents: Sequence[Any]) -> Label:
    """Pairs of equal contents (texts or tokens) teach nothing: they are no longer observed.

    Their ranks go too, where the label ranks one above the other.
    """
    if len({str(c) for c in contents}) == len(contents):
        return label
    groups = np.unique([str(c) for c in contents], return_inverse=True)[1]
    same = groups[:, None] == groups[None, :]
    if not (same & label.observed).any():
        return label
    clash = (same & (label.rank[:, None] != label.rank[None, :])).any(1)
    return replace(only_pairs(label, ~same), rank=np.where(clash, -1, label.rank))


def only_pairs(label: Label, kept: Bools) -> Label:
    """The label of the pairs [K, K] that are kept; the others are no longer observed."""
    return replace(label, **{name: value * kept for name in MATRICES if (value := getattr(label, name)) is not None})
