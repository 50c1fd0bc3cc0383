"""The coefficient β of the KL: how it changes while a policy is trained, and from prompt to prompt.

A controller gives `betas(context)`, one per prompt, before a batch is shaped, and hears `update(kl, episodes)` after:
the batch mean of the KL per *sequence* (summed over tokens, k1, in nats), measured on rollouts made before the update.

β may depend on the prompt: E[r - β(x) log π/π_ref] has its gradient as it stands. It may depend on the completion only
with a correction (`shape_rewards(group=...)`), so confidence counts here as the mean over a prompt's completions.
A β per layer or per parameter group has no meaning as a KL: KL(π || π_ref) is a number about the distribution over
texts, and layers have no share of it that adds up. Holding layers near where they were is weight decay or LoRA rank.

A checkpoint holds what was learned or counted: the β of `Adaptive`, the episodes of `Annealed`. Everything else is
configuration, and the configuration of the run that goes on counts. A wrapper has no state but that of the controller
inside it.
"""

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.optimise.limits import REFERENCE_STEP, check_horizon
from rlhf.records import RecordError


@dataclass(frozen=True)
class Context:
    """What a controller may look at: the prompts' mean ensemble spread [P] (normalised reward), and their domains."""

    spread: Float[Tensor, " P"]
    domains: Sequence[str | None]


class Controller:
    """Gives β, `beta` for every prompt, and learns from the KL that followed: nothing, unless a subclass does."""

    beta: float

    def betas(self, context: Context) -> Float[Tensor, " P"]:
        """β of every prompt."""
        return torch.full_like(context.spread, self.beta)

    def update(self, kl: float, episodes: int) -> None:
        """Hear the mean KL per sequence of a batch of `episodes` completions."""

    def state_dict(self) -> dict[str, Any]:
        """What was learned, and under `settings` what a change of would make it worthless."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of such a controller (see `load_controller`)."""


@dataclass
class Fixed(Controller):
    """The same β always. Raises RecordError where it is negative."""

    beta: float

    def __post_init__(self) -> None:
        _positive("beta", self.beta, zero=True)


def linear(done: float) -> float:
    """Share of the way from start to end after the share `done` of the episodes."""
    return done


def cosine(done: float) -> float:
    """The same along half a cosine: slow, fast, slow."""
    return 0.5 * (1 - math.cos(math.pi * done))


@dataclass
class Annealed(Controller):
    """β from high to low over a number of episodes, then constant.

    Args:
        start, end: β at both ends, start >= end >= 0.
        episodes: completions until the end is reached.
        curve: `linear` or `cosine`.

    Raises:
        RecordError: the ends or the episodes make no sense.
    """

    start: float
    end: float
    episodes: int
    curve: Any = linear
    seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        _positive("start", self.start, zero=True)
        _positive("end", self.end, zero=True)
        _positive("episodes", self.episodes)
        if self.start < self.end:
            raise RecordError(
                f"shaping.controller.start={self.start:g} is below end={self.end:g}: β is annealed from high to low"
            )

    @property
    def beta(self) -> float:  # type: ignore[override]
        """β now."""
        done = min(1.0, self.seen / self.episodes)
        return self.start + (self.end - self.start) * float(self.curve(done))

    def update(self, kl: float, episodes: int) -> None:
        """Count the episodes."""
        self.seen += episodes

    def state_dict(self) -> dict[str, Any]:
        """Episodes seen, and what they were counted for."""
        return {"seen": self.seen, "settings": self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Episodes seen before the checkpoint; warns where β now goes another way from there."""
        self.seen = int(state["seen"])
        if other := changed(self._settings(), state):
            warn_controller(f"{other}: after {self.seen} episodes β goes on at {self.beta:g}")

    def _settings(self) -> dict[str, Any]:
        curve = getattr(self.curve, "func", self.curve)
        return {
            "start": self.start, "end": self.end, "episodes": self.episodes, "curve": getattr(curve, "__name__", "")
        }  # fmt: skip


@dataclass
class Adaptive(Controller):
    """β ← β · (1 + clip(KL / target - 1, ±0.2) · n / horizon) after n episodes (Ziegler et al. 2019, eq. 3).

    Args:
        init: β at the start, > 0: 0 would stay 0.
        target: nats per sequence to stay near, > 0.
        horizon: episodes over which β may change by a fifth at most, > 0.
        low, high: bounds of β.

    Raises:
        RecordError: a number out of range; in `update`, a batch so large that one step could make β negative.
    """

    init: float
    target: float
    horizon: int = 10_000
    low: float = 1e-4
    high: float = 10.0

    def __post_init__(self) -> None:
        for name in ("init", "target", "horizon", "low"):
            _positive(name, getattr(self, name))
        if not self.low <= self.init <= self.high:
            raise RecordError(f"shaping.controller.init={self.init:g} lies outside [{self.low:g}, {self.high:g}]")
        self.beta = self.init

    def update(self, kl: float, episodes: int) -> None:
        """One step of the rule."""
        check_horizon(self.horizon, episodes)
        if not math.isfinite(kl):
            raise RecordError("the mean KL of a batch is not finite")
        error = min(max(kl / self.target - 1, -REFERENCE_STEP), REFERENCE_STEP)
        self.beta = min(max(self.beta * (1 + error * episodes / self.horizon), self.low), self.high)

    def state_dict(self) -> dict[str, Any]:
        """β now, and what it was adapted to."""
        return {"beta": self.beta, "settings": self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """β at the checkpoint, within the bounds; `init`, with a warning, where it was adapted to something else."""
        if other := changed(self._settings(), state):
            warn_controller(f"{other}: β starts from init={self.init:g} again")
            return
        self.beta = min(max(float(state["beta"]), self.low), self.high)

    def _settings(self) -> dict[str, Any]:
        return {"init": self.init, "target": self.target, "horizon": self.horizon}


class Wrapper(Controller):
    """A controller that changes the β of the one inside it, and learns nothing itself."""

    controller: Controller

    def update(self, kl: float, episodes: int) -> None:
        """As the inner controller."""
        self.controller.update(kl, episodes)

    def state_dict(self) -> dict[str, Any]:
        """Of the inner controller."""
        return self.controller.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of the inner controller."""
        self.controller.load_state_dict(state)


@dataclass
class PerPrompt(Wrapper):
    """More KL where the reward model is less sure:  β(x) = β · min(1 + strength · spread(x), most).

    Args:
        controller: gives the β that is scaled.
        strength: extra share of β per standard deviation of disagreement between members of the ensemble.
        most: bound on the factor, >= 1.

    Raises:
        RecordError: negative strength, a bound below 1; in `betas`, a reward model of one head, which has no spread.
    """

    controller: Controller
    strength: float = 1.0
    most: float = 10.0

    def __post_init__(self) -> None:
        _positive("strength", self.strength, zero=True)
        if self.most < 1:
            raise RecordError(f"shaping.controller.most={self.most:g} must be at least 1")

    def betas(self, context: Context) -> Float[Tensor, " P"]:
        """β of every prompt."""
        if not bool((context.spread > 0).any()):
            raise RecordError(
                "per_prompt needs a reward model that can doubt; this one has a single member", key="shaping",
                remedy="a reward model of head=ensemble, or reward=[run, run, ...]",
            )  # fmt: skip
        return self.controller.betas(context) * (1 + self.strength * context.spread).clamp(max=self.most)


@dataclass
class PerDomain(Wrapper):
    """Another β for the prompts of some domains, e.g. {safety: 0.2}.

    Args:
        controller: gives the β of the other domains.
        factors: domain -> factor on that β, >= 0; `check_domains` sees that the data has them.
    """

    controller: Controller
    factors: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, factor in self.factors.items():
            _positive(f"factors.{name}", factor, zero=True)

    def betas(self, context: Context) -> Float[Tensor, " P"]:
        """β of every prompt."""
        factors = [self.factors.get(domain or "", 1.0) for domain in context.domains]
        return self.controller.betas(context) * torch.tensor(factors).to(context.spread)


def check_domains(controller: Any, known: Collection[str | None]) -> None:
    """Look for domains that no prompt has: their factor would never count, and nobody would know.

    Args:
        controller: whose `PerDomain`, also inside another controller, is looked at.
        known: the domains of the data's prompts; None = a prompt without one.

    Raises:
        RecordError: a factor is for a domain that is not known.
    """
    named = sorted(set(controller.factors) - set(known)) if isinstance(controller, PerDomain) else []
    if named:
        there = ", ".join(sorted(d for d in known if d is not None)) or "none: its records have no `domain`"
        raise RecordError(
            f"the data has no prompts of the domain {', '.join(named)}; its domains: {there}",
            key="shaping.controller.factors",
            remedy=f"~shaping.controller.factors.{named[0]} takes it out, "
            "+shaping.controller.factors.<domain>=<factor> adds one",
        )
    inner = getattr(controller, "controller", None)
    if inner is not None:
        check_domains(inner, known)


def controller_state_of(controller: Controller) -> dict[str, Any]:
    """For the checkpoint: the controller's state, and whose it is."""
    return {"of": name_of(controller), **controller.state_dict()}


def load_controller(controller: Controller, saved: Mapping[str, Any]) -> None:
    """Take the state of a checkpoint where it is that of such a controller; else warn, and start as configured.

    Args:
        controller: fresh, as configured.
        saved: of `controller_state_of`; without a name where an earlier version wrote it.
    """
    own, other = name_of(controller), saved.get("of")
    state = controller.state_dict().keys() - {"settings"}
    if other is None and not state:
        return
    if other is None and state <= saved.keys():
        held = ", ".join(f"{name}={saved[name]:g}" for name in sorted(state))
        warn_controller(
            f"the checkpoint does not say of which controller its {held} is (an earlier version wrote it): {own} goes "
            "on with it"
        )
    elif other != own:
        warn_controller(f"the checkpoint is of {other or 'another controller'}: {own} starts from its configuration")
        return
    controller.load_state_dict(saved)


def name_of(controller: object) -> str:
    """Its class, and in brackets that of the controller inside it."""
    inner = getattr(controller, "controller", None)
    return type(controller).__name__ + (f"({name_of(inner)})" if inner is not None else "")


def changed(settings: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """In words, which settings are others than those in a checkpoint; empty where none is, or it holds none."""
    before = saved.get("settings", settings)
    return ", ".join(
        f"{name}={now} (was {before.get(name)})" for name, now in settings.items() if before.get(name) != now
    )


def warn_controller(what: str) -> None:
    """Warn about a controller."""
    warnings.warn(f"shaping.controller: {what}", stacklevel=3)


def _positive(name: str, value: float, *, zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise RecordError(f"shaping.controller.{name}={value:g} must be {'>= 0' if zero else 'positive'}")
