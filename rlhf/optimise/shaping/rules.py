"""Rules a completion must keep, as terms of its reward: length, repetition, format, a proper end.

A rule says by how much a completion breaks it, 0 (not at all) to 1. `Penalty` makes that a term: `size` times the
violation is subtracted, or, with `replace`, a violation of any size makes -size stand where the score stood (Ziegler
et al. 2019 did this for completions without an end).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlhf.records import RecordError


@dataclass(frozen=True)
class Completions:
    """B completions as a rule sees them.

    tokens [B, T], mask [B, T]   ids, and which of them belong to the completion
    ended [B]                    ended by itself, not at the length limit
    texts                        the completions
    """

    tokens: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    ended: Bool[Tensor, " B"]
    texts: Sequence[str]


@dataclass(frozen=True)
class Term:
    """A rule's share of the reward, and where it stands instead of the score."""

    value: Float[Tensor, " B"]
    replaces: Bool[Tensor, " B"]


Violation = Callable[[Completions], Tensor]
"""`Completions -> violation[B]` in 0..1."""


@dataclass(frozen=True)
class Penalty:
    """A violation as a term of the reward.

    Args:
        violation: the rule.
        size: reward that a full violation costs, > 0.
        replace: False: size · violation is subtracted. True: where the rule is broken at all, -size replaces the score.

    Raises:
        RecordError: size is not positive.
    """

    violation: Violation
    size: float = 1.0
    replace: bool = False

    def __post_init__(self) -> None:
        if not self.size > 0:
            raise RecordError(
                f"size={self.size:g} of a rule must be positive: it is a cost", key="shaping.rules",
                remedy="null removes the rule",
            )  # fmt: skip

    def __call__(self, completions: Completions) -> Term:
        """The term of every completion."""
        broken = self.violation(completions).float()
        if self.replace:
            fired = broken > 0
            return Term(torch.where(fired, -self.size, 0.0), fired)
        return Term(-self.size * broken, torch.zeros_like(broken, dtype=torch.bool))


def overlong(completions: Completions, *, limit: int, buffer: int) -> Float[Tensor, " B"]:
    """Length: 0 up to `limit - buffer` tokens, then rising evenly to 1 at `limit` (DAPO, Yu et al. 2025, eq. 13).

    Raises:
        RecordError: not 0 < buffer <= limit.
    """
    if not 0 < buffer <= limit:
        raise RecordError(f"{buffer} must lie between 1 and limit={limit}", key="shaping.rules.length.violation.buffer")
    return ((completions.mask.sum(1) - (limit - buffer)).clamp(0, buffer) / buffer).float()


def repeated(completions: Completions, *, n: int = 3) -> Float[Tensor, " B"]:
    """Repetition: the share of a completion's n-grams of tokens that occurred in it before; 0 where it has none."""
    if n < 1:
        raise RecordError(f"{n} must be at least 1", key="shaping.rules.repetition.violation.n")
    shares = []
    for row, keep in zip(completions.tokens, completions.mask, strict=True):
        ids = row[keep].tolist()
        grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return torch.tensor(shares, device=completions.mask.device)


def malformed(completions: Completions, *, pattern: str) -> Float[Tensor, " B"]:
    """Format: 1 where the text does not match the regular expression from start to end (`.` matches newlines)."""
    wanted = re.compile(pattern, re.DOTALL)
    fits = [float(wanted.fullmatch(text) is None) for text in completions.texts]
    return torch.tensor(fits, device=completions.mask.device)


def unfinished(completions: Completions) -> Float[Tensor, " B"]:
    """Missing end: 1 where the completion was cut at the length limit."""
    return (~completions.ended).float()
