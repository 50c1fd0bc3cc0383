"""Numbers of a configuration that cannot be meant are refused before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf.records import RecordError


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number of at least `least`, `most` at most, or null where `optional`; `instead`: what to give else."""

    least: int
    optional: bool = False
    most: float = math.inf
    instead: str = ""

    def fits(self, value: Any) -> bool:
        """Is it one?"""
        return (value is None and self.optional) or (_is(value, int) and self.least <= value <= self.most)

    def __str__(self) -> str:
        size = f"{self.least} or more" if math.isinf(self.most) else f"{self.least} to {self.most}"
        return f"a whole number, {size}{', or null' if self.optional else ''}{self.instead}"


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number of at least `least`, or above it where `above`; less than `below`; or null where `optional`."""

    least: float
    above: bool = False
    below: float = math.inf
    optional: bool = False

    def fits(self, value: Any) -> bool:
        """Is it one?"""
        if value is None:
            return self.optional
        if not _is(value, int | float) or not math.isfinite(value):
            return False
        return bool((value > self.least if self.above else value >= self.least) and value < self.below)

    def __str__(self) -> str:
        said = f"a number {'above' if self.above else 'of at least'} {self.least:g}"
        said += f", below {self.below:g}" if math.isfinite(self.below) else ""
        return f"{said}{', or null' if self.optional else ''}"


@dataclass(frozen=True, slots=True)
class Share:
    """A share above 0, or 0 too where `zero`; 1 at most; or null where `optional`."""

    zero: bool = False
    optional: bool = False

    def fits(self, value: Any) -> bool:
        """Is it one?"""
        if value is None:
            return self.optional
        return bool(_is(value, int | float) and (0 < value <= 1 or (self.zero and value == 0)))

    def __str__(self) -> str:
        said = "a share, from 0 to 1" if self.zero else "a share, above 0 and 1 at most"
        return f"{said}{', or null' if self.optional else ''}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these words."""

    words: tuple[str, ...]

    def fits(self, value: Any) -> bool:
        """Is it one?"""
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True, slots=True)
class Only:
    """One number and no other, and why."""

    number: float
    why: str

    def fits(self, value: Any) -> bool:
        """Is it that number?"""
        return _is(value, int | float) and bool(value == self.number)

    def __str__(self) -> str:
        return f"{self.number:g}: {self.why}"


Rule = Whole | Real | Share | OneOf | Only

ESTIMATED, PLACED = OneOf(("k1", "k2", "k3")), OneOf(("token", "sequence"))
"""What `rlhf.optimise.shaping.shape` knows, said without importing torch."""

WHOLE: Mapping[str, Rule] = {
    f"{group}.decoding.{name}": Only(off, "a policy is trained on samples of its whole distribution")
    for group in ("task", "policy")
    for name, off in (("top_p", 1), ("top_k", 0), ("min_p", 0))
}
"""Of how a policy in training is decoded; `rlhf.optimise.policy.rollout.check_whole_distribution` says the same."""

MONITORED = OneOf(("val/nll", "val/pair_accuracy", "val/ece"))
"""What `rlhf.reward.checkpoint` can look at, said without importing torch."""

SELECTOR: Mapping[str, Rule] = {
    "selector.temperature": Real(0, above=True), "selector.reliability": Share(), "selector.votes": Real(0, above=True),
    "selector.cost_power": Real(0), "selector.cap": Share(zero=True, optional=True), "selector.members": Whole(2),
    "selector.random_share": Share(zero=True), "selector.sample": Whole(1), "selector.reference": Whole(1),
    "selector.confidence": Real(0), "selector.power": Real(0), "selector.prior_pairs": Real(0),
    "selector.most": Share(), "selector.clusters": Whole(1, optional=True), "selector.labels": Whole(0),
    "selector.then.similarity": Share(zero=True), "selector.then.per_prompt": Whole(1, optional=True),
    "selector.then.factor": Whole(1),
}  # fmt: skip
"""Of conf/selector; selectors inside selectors check their options when they are asked."""

ACTIVE: Mapping[str, Rule] = {
    "task.seeds": Whole(1), "task.skew": Share(zero=True, optional=True), "task.plan.start": Whole(0),
    "task.plan.batch": Whole(1), "task.plan.rounds": Whole(0), "votes.per_pair": Whole(1),
    "votes.again": Real(0, below=1), "votes.most": Whole(1), "votes.reliability": Real(0.5, above=True, below=1),
    "learner.folds": Whole(2), "learner.fixed": Real(0, above=True, optional=True),
}  # fmt: skip
"""Of conf/task/active.yaml and of its groups."""

TRAIN: Mapping[str, Rule] = {
    "seed": Whole(0),
    "epochs": Whole(1),
    "batch_size": Whole(1),
    "eval_batch_size": Whole(1),
    "batch_tokens": Whole(1, optional=True),
    "max_length": Whole(2),
    "min_prompt": Whole(0),
    "centring": Real(0),
    "patience": Whole(0),
    "monitor": MONITORED,
    "validate_every": Share(),
    "save_every": Whole(1),
    "workers": Whole(0),
    "bootstrap": Whole(0),
    "threads": Whole(1, optional=True),
    "optimizer.build.lr": Real(0, above=True),
    "optimizer.weight_decay": Real(0),
    "trainer.accumulate_grad_batches": Whole(1),
    "task.loss.beta": Real(0, above=True),
    "task.loss.label_smoothing": Real(0, below=0.5),
    "task.lr": Real(0, above=True, optional=True),
    "task.decoding.temperature": Real(0, above=True),
    "policy.decoding.temperature": Real(0, above=True),
    "shaping.clip": Real(0, above=True, optional=True),
    "shaping.estimator": ESTIMATED,
    "shaping.placement": PLACED,
    "early_stopping.window": Whole(2),
    **{
        f"shaping.{'controller.' * deep}{name}": Real(
            0, above=name in ("init", "target", "horizon", "episodes")
        )
        for deep in (1, 2, 3)
        for name in ("init", "target", "horizon", "episodes", "beta", "start", "end")
    },
    **WHOLE,
    "task.window": Whole(2),
    "policy.max_new_tokens": Whole(1),
    **{f"task.{key}": Whole(1) for key in ("steps", "prompts", "max_new_tokens", "eval_prompts")},
    **{
        f"task.plan.{key}": Whole(1)
        for key in ("generations", "steps", "prompts", "samples", "labelled", "eval_prompts")
    },
    "task.plan.oversight": Whole(0),
    "task.completions": Whole(1),
    "task.plan.completions": Whole(1),
    **SELECTOR,
    "task.plan.k": Whole(2),
    "task.reference_samples": Whole(32),
    "task.plan.reference_samples": Whole(32),
}
"""Of conf/train.yaml and its tasks. bootstrap=0 leaves intervals out; half of the labels flipped say nothing; the
completions that an algorithm needs are looked at in `rlhf.assemble.algorithm`; 32 samples set the scale of a reward."""

EVALUATE: Mapping[str, Rule] = {
    "seed": Whole(0), "bootstrap": Whole(1), "block": Whole(1), "batch_tokens": Whole(1), "max_length": Whole(2),
    "perturbed_records": Whole(1, instead="; shifts=null probes=null changes no answer"), "red_team_size": Whole(1),
    "devices": Whole(1), "threads": Whole(1, optional=True), "shifts.long.times": Real(1, above=True),
    **{f"{change}.keep": Real(0, above=True, below=1) for change in ("shifts.truncated", "probes.truncated_end")},
}  # fmt: skip
"""Of conf/evaluate.yaml."""


SERVE: Mapping[str, Rule] = {
    "port": Whole(0, most=65535), "batch_tokens": Whole(1), "threads": Whole(1, optional=True),
    "shutdown_seconds": Whole(0),
    **{f"limits.{key}": Whole(1) for key in ("max_bytes", "max_completions", "max_tokens", "queue_tokens")},
}  # fmt: skip
"""Of conf/serve.yaml."""


def check_ranges(cfg: DictConfig, rules: Mapping[str, Rule]) -> None:
    """Compare every key of `rules` that the configuration has.

    Raises:
        RecordError: numbers out of their range, all of them in one message with what each may be.
    """
    wrong = []
    for key, rule in rules.items():
        value = OmegaConf.select(cfg, key, default=_ABSENT)
        if value is not _ABSENT and not rule.fits(value):
            wrong.append(f"{key}={'null' if value is None else value} must be {rule}")
    if wrong:
        raise RecordError("\n".join(wrong))


def check_room(cfg: DictConfig) -> None:
    """Raise RecordError where `max_length` cannot hold `min_prompt` tokens of a prompt and the longest answer."""
    if cfg.min_prompt >= cfg.max_length:
        raise RecordError(f"min_prompt={cfg.min_prompt} must be less than max_length={cfg.max_length}")
    least = max(1, cfg.min_prompt)
    for key in ("task.max_new_tokens", "policy.max_new_tokens"):
        longest = OmegaConf.select(cfg, key)
        if longest is not None and cfg.max_length - longest < least:
            raise RecordError(
                f"max_length={cfg.max_length}, of which {key}={longest} are for the completion, leaves the policy "
                f"{max(0, cfg.max_length - longest)} tokens of a prompt; min_prompt={cfg.min_prompt}: at least {least}",
                key=key, remedy=f"{key}={cfg.max_length - least} or less, or max_length={longest + least} or more",
            )  # fmt: skip


def check_active(cfg: DictConfig) -> None:
    """What `task=active` checks before anything is loaded. Raises RecordError."""
    check_ranges(cfg, ACTIVE)


_ABSENT = object()


def _is(value: Any, kind: Any) -> bool:
    """True and False are no numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)
