"""What a controller of β is, what a checkpoint holds of one, and how a run goes on with it.

State is what was learned or counted: the β of `Adaptive`, the episodes of `Annealed`. Everything else is configuration,
and the configuration of the run that goes on counts. A wrapper has no state but that of the controller inside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Context:
    """What a controller may look at: the prompts' mean ensemble spread [P] (normalised reward), and their domains."""

    spread: Float[Tensor, " P"]
    domains: Sequence[str | None]


class Controller(Protocol):
    """Gives β and learns from the KL that followed."""

    def betas(self, context: Context) -> Float[Tensor, " P"]:
        """β of every prompt."""

    def update(self, kl: float, episodes: int) -> None:
        """Hear the mean KL per sequence of a batch of `episodes` completions."""

    def state_dict(self) -> dict[str, Any]:
        """What was learned, and under `settings` what a change of would make it worthless."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of such a controller (see `load_controller`)."""


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
        warn_controller(
            f"the checkpoint is of {other or 'another controller'}: {own} starts from its configuration"
        )
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
