"""The whole model, trained anew (cold) or on (warm) every round by the task `reward`.

This confirms, slowly, what research mode found. Validation prompts keep all their votes for early
stopping and the temperature: they are not counted as obtained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.records import Comparison, Vote, dump
from rlhf.reward.checkpoint import load_weights
from rlhf.reward.training import RewardRun, train_reward
from rlhf.select.embeddings import hidden_states
from rlhf.select.laplace import GRID
from rlhf.select.loop.learners import Labels, Learner, LinearLearner, TrainedRound, with_features
from rlhf.select.pool import PairPool
from rlhf.select.pool_builder import BuiltPool


@dataclass
class LabelledRecords:
    """Records as a source: what was obtained under `meta.split: train`, validation and test as they are."""

    kept: list[Comparison]
    skipped: list[str] = field(default_factory=list)
    skipped_count: int = 0

    def records(self) -> Iterator[Comparison]:
        """The records from the start."""
        return iter(self.kept)

    @property
    def fingerprint(self) -> str:
        """Changes with any record."""
        digest = sha256()
        for record in self.kept:
            digest.update(repr(dump(record)).encode("utf-8", "replace"))
        return digest.hexdigest()


@dataclass(frozen=True)
class FineTune(Learner):
    """A learner that trains trunk and head.

    Args:
        build: (folder, source) -> everything a training run needs; made from the configuration.
        warm: start from the last round's weights instead of from the beginning.
        folds: of the cross-validation that fits the posterior on the trained hidden states.
        built: set by `begin`.
        folder: set by `begin`: every round's run is kept there.
    """

    build: Callable[..., RewardRun]
    warm: bool = False
    folds: int = 4
    built: BuiltPool | None = None
    folder: Path = Path()

    def begin(self, built: BuiltPool, folder: Path) -> FineTune:
        """The learner of one selector's run."""
        return replace(self, built=built, folder=folder / "fits")

    def __call__(self, pool: PairPool, labels: Labels, seed: int) -> TrainedRound:
        """Train, or load what was trained on these labels before; then a posterior on the new hidden states."""
        assert self.built is not None, "call begin first"
        own = self.folder / f"{len(labels.rows):06d}-{int(labels.votes.sum()):06d}"
        run = self.build(folder=own, source=self._source(self.built, labels))
        run.data.setup()
        best = own / "checkpoints" / "best.ckpt"
        if not (own / "metrics.json").is_file():
            before = self._before(own)
            if self.warm and before is not None:
                load_weights(run.module, before)
            own.mkdir(parents=True, exist_ok=True)
            train_reward(run)
        load_weights(run.module, best)
        answers = [*self.built.answers, *self.built.policy]
        model = run.module.model.eval()
        with torch.inference_mode():
            every = hidden_states(model, run.data.renderer, [(a.prompt, a.text) for a in answers])
            hidden, target = np.split(every, [len(self.built.answers)])
            members = model.head(torch.from_numpy(hidden))
            rewards = model.head.combine(members).double().numpy()
        temperature = Calibration.from_json(own / "calibration.json").temperature
        several = members.double().numpy() if members.ndim == 2 else None
        seen = with_features(pool, hidden, several, None if pool.target is None else target)
        head = LinearLearner(folds=self.folds, grid=GRID)(seen, labels, seed)
        return replace(head, rewards=rewards / temperature)

    def _before(self, own: Path) -> Path | None:
        """The best checkpoint of the last smaller set of labels."""
        done = sorted(p.parent for p in self.folder.glob("*/metrics.json") if p.parent.name < own.name)
        return done[-1] / "checkpoints" / "best.ckpt" if done else None

    def _source(self, built: BuiltPool, labels: Labels) -> LabelledRecords:
        records = [_marked(record, split) for split, record in built.evaluation]
        for row, share, votes in zip(labels.rows, labels.share, labels.votes, strict=True):
            if votes > 0:
                records.append(_marked(_voted(built.task(int(row)), float(share), float(votes)), "train"))
        return LabelledRecords(records)


def _voted(task: Comparison, share: float, votes: float) -> Comparison:
    """The pair with as many votes of probability `share` as it was given, at least one."""
    a, b = (c.id for c in task.completions)
    choice = "tie" if share == 0.5 else a if share > 0.5 else b
    vote = Vote("obtained", pair=(a, b), choice=choice, p=share)
    return replace(task, votes=(vote,) * max(1, round(votes)))


def _marked(record: Comparison, split: str) -> Comparison:
    return replace(record, meta={**record.meta, "split": split})
