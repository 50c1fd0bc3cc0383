"""Bounds of what stands inside groups; the meaning and default of each key stand in the options' files in conf/."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    WrapValidator,
    field_validator,
)

from rlhf.assemble.schema.bounds import AtLeastTwo, Hint, Settings, Share, ShareOrZero, refuse

Whole = Hint(": a policy is trained on samples of its whole distribution")
"""`rlhf.optimise.policy.rollout.check_whole_distribution` says the same."""
Scaling = Annotated[int, Ge(32)]
"""Samples that set the scale of a reward."""
Estimator = Literal["k1", "k2", "k3"]
Placement = Literal["token", "sequence"]
"""What `rlhf.optimise.shaping.shape` knows, said without importing torch."""
Listed = WrapValidator(lambda given, check: given if isinstance(given, list) else check(given))
"""Of seeds: how many in active learning, the seeds themselves elsewhere."""


class DecodingSettings(Settings):
    """How a policy in training is decoded."""

    temperature: PositiveFloat
    top_p: Annotated[float, Ge(1), Le(1), Whole]
    top_k: Annotated[float, Ge(0), Le(0), Whole]
    min_p: Annotated[float, Ge(0), Le(0), Whole]


class DpoLoss(Settings):
    """`task.loss`."""

    beta: PositiveFloat
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)]
    """Half of the labels flipped say nothing."""


class Plan(Settings):
    """`task.plan` of active learning and of iteration."""

    start: NonNegativeInt
    batch: PositiveInt
    rounds: NonNegativeInt
    generations: PositiveInt
    steps: PositiveInt
    prompts: PositiveInt
    completions: PositiveInt
    samples: PositiveInt
    k: AtLeastTwo
    labelled: PositiveInt
    reference_samples: Scaling
    eval_prompts: PositiveInt
    oversight: NonNegativeInt


class TaskSettings(Settings):
    """What is trained; how many completions an algorithm needs is looked at in `rlhf.assemble.checks.rollouts`."""

    loss: DpoLoss
    lr: PositiveFloat | None
    decoding: DecodingSettings
    window: AtLeastTwo
    steps: PositiveInt
    prompts: PositiveInt
    completions: PositiveInt
    max_new_tokens: PositiveInt
    reference_samples: Scaling
    eval_prompts: PositiveInt
    seeds: Annotated[PositiveInt, Listed]
    """How many in active learning; the seeds themselves elsewhere."""
    skew: ShareOrZero | None
    plan: Plan


class SplitSettings(Settings):
    """Folds; splitters by share check theirs together."""

    k: AtLeastTwo | None
    fold: NonNegativeInt

    @field_validator("fold")
    @classmethod
    def _one_of_k(cls, fold: int, info: ValidationInfo) -> int:
        k = info.data.get("k")
        if k is not None and fold >= k:
            raise refuse(f"{fold}: there are split.k={k} folds, from 0", remedy=f"0 to {k - 1}")
        return fold


class Build(Settings):
    """`optimizer.build`."""

    lr: PositiveFloat


class ControllerSettings(Settings):
    """`shaping.controller`, and those inside it."""

    init: PositiveFloat
    target: PositiveFloat
    horizon: PositiveFloat
    episodes: PositiveFloat
    beta: NonNegativeFloat
    start: NonNegativeFloat
    end: NonNegativeFloat
    controller: ControllerSettings


class Violation(Settings):
    """What a rule of `shaping.rules` looks for."""

    limit: PositiveInt
    buffer: PositiveInt
    n: PositiveInt
    pattern: str

    @field_validator("buffer")
    @classmethod
    def _within_the_limit(cls, buffer: int, info: ValidationInfo) -> int:
        limit = info.data.get("limit", buffer)
        if buffer > limit:
            raise refuse(
                f"{buffer} is more than limit={limit}: the penalty rises over the last `buffer` tokens "
                "before the limit",
                remedy=f"1 to {limit}",
            )
        return buffer

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise refuse(
                f"{pattern} is no regular expression: {error}",
                remedy="as of Python's re; brackets and dots that are meant as such get a backslash",
            ) from error
        return pattern


class Rule(Settings):
    """What stands under a name in `shaping.rules`."""

    size: PositiveFloat
    violation: Violation


class Shaping(Settings):
    """What is made of the reward."""

    controller: ControllerSettings
    estimator: Estimator
    placement: Placement
    clip: PositiveFloat | None
    rules: dict[str, Rule | None] | None


class EarlyStopping(Settings):
    """What stops a policy's training."""

    window: AtLeastTwo


class PolicySettings(Settings):
    """The policy of task=iterate."""

    max_new_tokens: PositiveInt
    decoding: DecodingSettings


class Selector(Settings):
    """Which pairs are voted on; selectors inside selectors check their options when they are asked."""

    temperature: PositiveFloat
    reliability: Share
    votes: PositiveFloat
    cost_power: NonNegativeFloat
    cap: ShareOrZero | None
    members: AtLeastTwo
    random_share: ShareOrZero
    sample: PositiveInt
    reference: PositiveInt
    confidence: NonNegativeFloat
    power: NonNegativeFloat
    prior_pairs: NonNegativeFloat
    most: Share
    clusters: PositiveInt | None
    labels: NonNegativeInt
    similarity: ShareOrZero
    per_prompt: PositiveInt | None
    factor: PositiveInt
    then: Selector


class VotesSettings(Settings):
    """How many votes a pair gets."""

    per_pair: PositiveInt
    again: Annotated[float, Ge(0), Lt(1)]
    most: PositiveInt
    reliability: Annotated[float, Gt(0.5), Lt(1)]


class LearnerSettings(Settings):
    """What active learning trains."""

    folds: AtLeastTwo
    fixed: PositiveFloat | None
