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

    win_prob [K, K], tie_prob [K, K], observed [K, K], margin [K, K], rank [K], score [K, A], rankings [R, K],
    ranking_weight [R], weight,
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
    rankings: Ints
    ranking_weight: Floats
    weight: float = 1.0
    pair_weight: Floats | None = None

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
    rankings, weight = rankings_among(label.rankings, label.ranking_weight, kept)
    cut |= {"rank": ranks_among(label.rank[list(kept)]), "rankings": rankings, "ranking_weight": weight}
    return replace(label, score=label.score[list(kept)], **cut)


def no_rankings(k: int) -> tuple[Ints, Floats]:
    """Rankings [0, K] and weights [0]."""
    return np.zeros((0, k), np.int64), np.zeros(0)


def ranks_among(rank: Ints) -> Ints:
    """Ranks of some completions [K] as 0, 1, 2, ... among themselves; -1 stays."""
    among = np.full(len(rank), -1)
    among[rank >= 0] = np.unique(rank[rank >= 0], return_inverse=True)[1]
    return among


def rankings_among(rankings: Ints, weight: Floats, kept: Sequence[int]) -> tuple[Ints, Floats]:
    """Rankings [R, K] and weights [R] of some completions: part of a Plackett-Luce ranking is one (Luce 1959)."""
    part = rankings[:, list(kept)]
    left = (part >= 0).sum(1) > 1
    rows = np.array([ranks_among(row) for row in part[left]], dtype=np.int64)
    return rows.reshape(int(left.sum()), len(kept)), weight[left]


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
    """The label of the pairs [K, K] that are kept; the others are no longer observed.

    A ranking of which a pair goes is one no more: its other pairs count as pairs.
    """
    cut = {name: value * kept for name in MATRICES if (value := getattr(label, name)) is not None}
    whole = whole_rankings(label.rankings, kept)
    return replace(label, rankings=label.rankings[whole], ranking_weight=label.ranking_weight[whole], **cut)


def whole_rankings(rankings: Ints, kept: Bools) -> Bools:
    """Which rankings [R] keep all their pairs [K, K]."""
    ranked = rankings >= 0
    pairs = ranked[:, :, None] & ranked[:, None, :] & ~np.eye(rankings.shape[1], dtype=bool)
    return np.asarray((~pairs | kept).all((1, 2)))
