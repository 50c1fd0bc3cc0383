"""Anything that scores a record's completions: a run, a Hugging Face classifier, a policy's log-ratios, an LLM judge,
or several of them as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.records import Comparison, RecordError
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


class Ensemble:
    """Several sources as one: the mean of their calibrated rewards (Coste et al. 2023: normalise first).

    A member's rewards become (r - mean) / T with the mean and temperature of its own calibration, so that no member
    counts more because its scale is larger. The mean of log-odds is less sharp than its members: its own temperature
    is fitted anew.

    Args:
        sources: two or more with different names; a member without a calibration counts as it is.

    Raises:
        ValueError: names that repeat.
    """

    def __init__(self, sources: Sequence[ScoreSource], name: str = "ensemble") -> None:
        names = [s.name for s in sources]
        if len(set(names)) < len(names):
            raise RecordError(f"run={names}: every member once")
        self.name, self.sources = name, sources
        self.calibration: Calibration | None = None

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Members in the order of the sources; detectors that all members have, averaged."""
        return [self._together(parts) for parts in zip(*(s.score(records) for s in self.sources), strict=True)]

    @property
    def counts(self) -> dict[str, int]:
        """Completions that were asked for, and those that were read, over all sources that count them."""
        return dict(sum((Counter(getattr(source, "counts", {})) for source in self.sources), Counter()))

    def _together(self, parts: Sequence[Scores]) -> Scores:
        scales = [(0.0, 1.0) if (c := s.calibration) is None else (c.reward_mean, c.temperature) for s in self.sources]
        members = np.stack([(part.reward - mean) / t for part, (mean, t) in zip(parts, scales, strict=True)])
        shared = set.intersection(*(set(p.ood_scores) for p in parts))
        return Scores(
            reward=members.mean(0),
            members=members,
            tokens=parts[0].tokens,
            ood_scores={d: np.mean([p.ood_scores[d] for p in parts], axis=0) for d in sorted(shared)},
            trimmed=any(p.trimmed for p in parts),
        )
