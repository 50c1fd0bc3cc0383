"""How many prompts of a loop judge and oversee. Needs no torch."""

from __future__ import annotations

from rlhf.records import RecordError


def held_out_of(prompts: int, share: float) -> int:
    """How many of the prompts are held out: that share, rounded, one at least."""
    return max(1, round(share * prompts))


def check_oversight(oversight: int, held_out: int) -> None:
    """Raise RecordError where the oversight leaves fewer than two of the held-out prompts to judge with."""
    if held_out - oversight < 2:
        fewer = f"{held_out - 2} at most, " if held_out >= 2 else ""
        raise RecordError(
            f"{oversight} of {held_out} held-out prompts oversee, which leaves fewer than 2 to judge with",
            key="task.plan.oversight",
            remedy=f"{fewer}a larger task.held_out, or more data: data.size for data=toy",
        )
