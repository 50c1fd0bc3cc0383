"""Can one update of the adaptive β turn it negative? Needs no torch, so that it is asked before anything is loaded."""

from __future__ import annotations

from rlhf.records import RecordError

REFERENCE_STEP = 0.2
"""Largest relative KL error that counts in one adaptive update (Ziegler et al. 2019, section 2.2)."""


def check_horizon(horizon: float, episodes: int, *, key: str = "shaping.controller.horizon") -> None:
    """Raise RecordError where an update after so many episodes could make β zero or negative.

    Args:
        horizon: of `rlhf.optimise.shaping.kl_controllers.Adaptive`.
        episodes: completions per update.
        key: of the horizon.
    """
    if episodes * REFERENCE_STEP >= horizon:
        raise RecordError(
            f"{horizon:g} with {episodes} episodes (completions) per update: one update could make beta negative",
            key=key, remedy=f"a horizon above {REFERENCE_STEP * episodes:g} keeps it positive, {20 * episodes} changes "
            "it by a percent per update",
        )  # fmt: skip
