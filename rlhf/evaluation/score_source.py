"""Anything that scores a record's completions: a run, a Hugging Face classifier, a policy's log-ratios, a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.records import Comparison
from rlhf.stats.arrays import Floats


@dataclass(frozen=True, slots=True)
class Scores:
    """What a source says about the K completions of one record, in their order.

    reward    [K], NaN where the source could not read a completion (too long): it is left out, and counted
    members   [M, K], rewards of the members of an ensemble; M = 1 where there is one
    tokens    [K], length in the source's tokens; 0 where it does not know
    features  [K, D], pooled hidden states, or None where the source has none
    ood_scores   detector -> [K], higher = further from what the source was trained on; see
                 `rlhf.evaluation.metrics.ood`
    trimmed   was the prompt cut to make room?
    """

    reward: Floats
    members: Floats
    tokens: Floats
    features: Floats | None = None
    ood_scores: Mapping[str, Floats] = field(default_factory=dict)
    trimmed: bool = False

    @classmethod
    def plain(cls, reward: Sequence[float]) -> Scores:
        """Rewards alone."""
        row = np.asarray(reward, dtype=np.float64)
        return cls(row, row[None, :], np.zeros(len(row)))


class ScoreSource(Protocol):
    """Scores records; state such as a model sits in it.

    name         short, unique in a report: heads its rows and columns
    calibration  temperature of its reward differences; None = fitted on the validation part of the data
    """

    name: str
    calibration: Calibration | None

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """One `Scores` per record, in their order; the same whatever else is in the list."""
        ...
