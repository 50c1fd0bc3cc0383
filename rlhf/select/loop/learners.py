"""What is trained every round: labels in, a head with its posterior and the rewards of all completions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rlhf.select.laplace import GRID, Posterior, fit, tune
from rlhf.select.pool import LabelState, PairPool
from rlhf.select.pool_builder import BuiltPool
from rlhf.stats.arrays import Floats, Ints


@dataclass(frozen=True)
class Labels:
    """What was obtained: rows [m] of the pool, each once; share [m] for the left; votes [m], 0 where none counts."""

    rows: Ints
    share: Floats
    votes: Floats

    def state(self, posterior: Posterior, out_of_fold: Floats) -> LabelState:
        """What selectors are told: the labels, the posterior fitted on them, and predictions out of fold [m]."""
        return LabelState(self.rows, self.share, self.votes, posterior, out_of_fold)


@dataclass(frozen=True)
class TrainedRound:
    """After a round of training.

    pool     the pool as selectors see it: with features and members of the model that was trained
    state    labels and posterior
    rewards  [N] of every completion
    nll      mean out-of-fold NLL per vote, in nats; NaN where nothing could be left out
    """

    pool: PairPool
    state: LabelState
    rewards: Floats
    nll: float


class Learner(ABC):
    """Trains on labels."""

    def begin(self, built: BuiltPool, folder: Path) -> Learner:
        """The learner for one selector's run, which may keep files in the folder; itself where it keeps nothing."""
        return self

    @abstractmethod
    def __call__(self, pool: PairPool, labels: Labels, seed: int) -> TrainedRound:
        """The model after this round."""


@dataclass(frozen=True)
class LinearLearner(Learner):
    """The exact Bradley-Terry head on frozen features; λ by cross-validation over prompts, every round anew.

    Args:
        folds: of the cross-validation.
        grid: λ over the mean |z|² of the labelled pairs.
        fixed: λ in the same unit, instead of cross-validation: only to show what that confounds.
    """

    folds: int = 4
    grid: Sequence[float] = GRID
    fixed: float | None = None

    def __call__(self, pool: PairPool, labels: Labels, seed: int) -> TrainedRound:
        """The head, and the labels' predictions out of fold."""
        scale = unit(pool)
        if len(labels.rows) < 2:
            state = labels.state(Posterior.prior(pool.width, scale), np.full(len(labels.rows), np.nan))
            return TrainedRound(pool, state, np.zeros(len(pool.features)), float("nan"))
        z = pool.z(labels.rows)
        grid = self.grid if self.fixed is None else [self.fixed]
        prompts = pool.prompt[labels.rows]
        tuned = tune(z, labels.share, labels.votes, prompts, folds=self.folds, grid=grid, seed=seed)
        posterior = fit(z, labels.share, labels.votes, tuned.regularisation)
        rewards = pool.features @ posterior.theta.astype(pool.features.dtype)
        return TrainedRound(pool, labels.state(posterior, tuned.out_of_fold), rewards, tuned.nll)


def with_features(
    pool: PairPool, features: Floats, members: Floats | None = None, target: Floats | None = None
) -> PairPool:
    """The pool with a trained model's features; samples of a policy stay comparable by the frozen ones.

    Args:
        pool: with frozen features.
        features: [N, d] of the trained model.
        members: [M, N] rewards of its members.
        target: [T, d] features of the policy's completions by the trained model, where the pool has such completions.
    """
    own = pool.features if pool.frozen is None else pool.frozen
    frozen = None if pool.target is None else own
    return replace(pool, features=features, members=members, frozen=frozen, target_features=target)


def unit(pool: PairPool) -> float:
    """Mean |z|² of up to 2000 pairs: the prior's λ before anything can be tuned."""
    rows = np.flatnonzero(pool.selectable)[:2000]
    return float((pool.z(rows) ** 2).sum(1).mean())
