"""One world in which the best of many sampled answers is picked, by one learned reward model or by an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlhf.evaluation.metrics.best_of_n import best_of, steps
from rlhf.records import RecordError
from rlhf.stats.arrays import Floats
from rlhf.stats.ensemble import Aggregator, standardise
from rlhf.studies.feature_world import WIDTH, FeatureWorld, Members, train
from rlhf.studies.study import whole, within

SINGLE = "single"
"""Picked by the single model."""


@dataclass(frozen=True, kw_only=True)
class Picking:
    """Settings of every world.

    worlds          how many
    votes           training pairs per world, one vote each
    sharpness       P(i preferred to j) = σ(sharpness · (gold_i - gold_j)) before flipping; None = the better one
    voted_spread    standard deviation of the answers that were voted on
    sampled_spread  of those that are sampled; larger, so that the best of many lie where no votes are
    steps           of training
    members         of the ensemble
    aggregators     name -> `(members [M, N], standardised over the sampled answers) -> reward [N]`
    answers         sampled per world; n goes up to this
    seed            of the first world
    bootstrap       resamples of worlds behind every interval

    Raises:
        RecordError: a setting out of its range.
    """

    worlds: int
    votes: int
    sharpness: float | None
    voted_spread: float
    sampled_spread: float
    steps: int
    members: int
    aggregators: Mapping[str, Aggregator]
    answers: int
    seed: int
    bootstrap: int

    def __post_init__(self) -> None:
        for key, least in (("worlds", 1), ("votes", 2), ("steps", 1), ("members", 2), ("answers", 8)):
            whole(key, getattr(self, key), least)
        for key in ("voted_spread", "sampled_spread"):
            within(key, getattr(self, key), 0, above=True)
        if self.sharpness is not None:
            within("sharpness", self.sharpness, 0, above=True)
        if SINGLE in self.aggregators:
            raise RecordError(
                f"'{SINGLE}' is the single model", key="task.study.aggregators", remedy="another name"
            )

    @property
    def ns(self) -> tuple[int, ...]:
        """1, 2, 4, ... answers."""
        return steps(self.answers)

    def learned(self, seed: int, noise: float) -> tuple[FeatureWorld, np.random.Generator, Members]:
        """The world of a seed, what its further draws come from, and the models learned with this label noise."""
        world = FeatureWorld.draw(seed)
        rng = np.random.default_rng((seed, self.votes, round(100 * noise)))
        voted = world.votes(self.votes, noise, rng, spread=self.voted_spread, sharpness=self.sharpness)
        return world, rng, train(*voted, members=self.members, steps=self.steps, seed=seed)

    def gains(self, world: FeatureWorld, rng: np.random.Generator, model: Members) -> dict[str, Floats]:
        """Gold gained over a random answer by best-of-n, [len(ns)] for the single model and every aggregator.

        Exact for the sampled answers: the mean over all subsets of n (`rlhf.evaluation.metrics.best_of_n.best_of`).
        """
        sampled = self.sampled_spread * rng.normal(size=(self.answers, WIDTH))
        gold = world.gold(sampled)
        gold = gold - gold.mean()
        return {
            name: best_of(self.ns, rewards, gold) for name, rewards in self.rewards(model, sampled).items()
        }

    def rewards(self, model: Members, x: Floats) -> dict[str, Floats]:
        """Rewards [N] of answers [..., WIDTH] by the single model and every aggregator."""
        first, *_ = found = model.rewards(x)
        members = standardise(found[1:])
        return {SINGLE: first} | {name: way(members) for name, way in self.aggregators.items()}


def plain(way: str) -> str:
    """A name in words."""
    return way.replace("_", " ")
