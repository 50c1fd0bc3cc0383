"""Numbers of a policy run that do not fit each other. Needs no torch, so that it is asked before anything is loaded."""

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


def held_out_of(prompts: int, share: float) -> int:
    """How many of the prompts are held out: that share, rounded, one at least."""
    return max(1, round(share * prompts))


def check_oversight(oversight: int, held_out: int) -> None:
    """Raise RecordError where the oversight leaves fewer than two of the held-out prompts to evaluate with."""
    if held_out - oversight < 2:
        fewer = f"{held_out - 2} at most, " if held_out >= 2 else ""
        raise RecordError(
            f"{oversight} of {held_out} held-out prompts oversee, which leaves fewer than 2 to evaluate with",
            key="task.plan.oversight",
            remedy=f"{fewer}a larger task.held_out, or more data: data.size for data=toy",
        )
