"""A label: what the votes on one record add up to. numpy only, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rlhf.record_types import Comparison


@dataclass(frozen=True, slots=True)
class Label:
    """Fields as in `rlhf.data.batch.Target`, for one record with K completions and A attributes.

    win_prob [K, K], tie_prob [K, K], observed [K, K], margin [K, K], rank [K], score [K, A], weight,
    and `votes` [K, K]: how many votes each pair got (a weighted count where votes are weighted).
    """

    win_prob: NDArray[np.float64]
    tie_prob: NDArray[np.float64]
    observed: NDArray[np.bool_]
    margin: NDArray[np.float64]
    rank: NDArray[np.int64]
    score: NDArray[np.float64]
    votes: NDArray[np.float64]
    weight: float = 1.0


Aggregation = Callable[[Comparison], Label]
"""Votes to a label. A record whose votes decide nothing gives a label with nothing observed."""


@runtime_checkable
class FittedAggregation(Protocol):
    """An aggregation that first learns from many records, e.g. who is reliable."""

    def fit(self, records: Iterable[Comparison]) -> Aggregation:
        """Learn from the records; returns the aggregation that labels them."""
