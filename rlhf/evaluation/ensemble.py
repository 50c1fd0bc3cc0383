"""Several sources as one: each on the scale of log-odds, then their mean (Coste et al. 2023: normalise first)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.score_source import Scores, ScoreSource
from rlhf.records import Comparison, RecordError
from rlhf.stats.arrays import Floats


class Ensemble:
    """Mean of calibrated rewards.

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
        return [
            self._together(parts) for parts in zip(*(s.score(records) for s in self.sources), strict=True)
        ]

    def _together(self, parts: Sequence[Scores]) -> Scores:
        pairs = zip(self.sources, parts, strict=True)
        members = np.stack([_log_odds(s.calibration, part.reward) for s, part in pairs])
        shared = set.intersection(*(set(p.ood_scores) for p in parts))
        return Scores(
            reward=members.mean(0),
            members=members,
            tokens=parts[0].tokens,
            ood_scores={d: np.mean([p.ood_scores[d] for p in parts], axis=0) for d in sorted(shared)},
            trimmed=any(p.trimmed for p in parts),
        )


def _log_odds(calibration: Calibration | None, reward: Floats) -> Floats:
    return reward if calibration is None else (reward - calibration.reward_mean) / calibration.temperature
