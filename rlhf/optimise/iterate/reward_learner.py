"""A reward model of `task=iterate` that is a run of `task=reward`: the whole model, trained on all votes so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.optimise.shaping.reward_source import RunReward
from rlhf.records import Comparison
from rlhf.reward.training import RewardRun, train_reward
from rlhf.select.loop.fine_tuning import LabelledRecords


@dataclass(frozen=True)
class RewardRunLearner:
    """Records to the reward source that a run of `task=reward` leaves; a run that is there already is taken as it is.

    Args:
        build: (changes, folder, source, seed) -> everything a training run needs; made from the configuration.
        changes: settings in which these runs differ from the policy's.
        folder: where the runs go, one per set of records.
    """

    build: Callable[..., RewardRun]
    changes: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    def __call__(self, records: Sequence[Comparison], seed: int) -> RunReward:
        """The reward source."""
        source = LabelledRecords(list(records))
        own = self.folder / f"{len(records):06d}-{seed}-{source.fingerprint[:8]}"
        if not (own / "metrics.json").is_file():
            own.mkdir(parents=True, exist_ok=True)
            train_reward(self.build(dict(self.changes), folder=own, source=source, seed=seed))
        return RunReward([own])
