"""How completions are decoded: one `Decoding` per completion of a prompt.

A sampler is anything that says for k completions which policy (0, 1, ...) and which decoding each of them gets.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rlhf.records import RecordError


@dataclass(frozen=True)
class Decoding:
    """Parameters of one completion. temperature 0 is greedy.

    Args:
        temperature: divides the logits; 0.7 to 1.0 is usual for preference data.
        top_p: nucleus: the smallest set of tokens with this much probability (Holtzman et al. 2020); 1 = off.
        top_k: only the k most probable tokens; 0 = off.
        min_p: only tokens with at least min_p times the probability of the best (Nguyen et al. 2024); 0 = off.
    """

    temperature: float = 0.9
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            "temperature": self.temperature >= 0,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "min_p": 0 <= self.min_p <= 1,
        }
        for name, fine in checks.items():
            if not fine:
                raise RecordError(f"{getattr(self, name)} is out of range", key=f"decoding.{name}")

    def as_dict(self) -> dict[str, Any]:
        """For the provenance of a completion."""
        return asdict(self)


@dataclass(frozen=True)
class Slot:
    """One completion to make: by which policy, decoded how."""

    policy: int
    decoding: Decoding


class Sampler(Protocol):
    """Says how each of a prompt's completions is made."""

    def slots(self, k: int, policies: int) -> list[Slot]:
        """One slot per completion."""


@dataclass(frozen=True)
class Same:
    """Every completion with the same decoding; policies take turns."""

    decoding: Decoding

    def slots(self, k: int, policies: int) -> list[Slot]:
        """One slot per completion."""
        return [Slot(i % policies, self.decoding) for i in range(k)]


@dataclass(frozen=True)
class Varied:
    """Decodings in turns, so that the completions of a prompt differ in style and care; policies in turns too.

    Args:
        decodings: are gone through in order, from the beginning again where k is larger.
    """

    decodings: Sequence[Decoding]

    def __post_init__(self) -> None:
        if not self.decodings:
            raise ValueError("sampler.decodings is empty: name at least one")

    def slots(self, k: int, policies: int) -> list[Slot]:
        """One slot per completion; number · policies of them hold every policy with every decoding once."""
        number = len(self.decodings)
        turn = math.lcm(number, policies)
        return [Slot((i + i // turn) % policies, self.decodings[i % number]) for i in range(k)]


@dataclass(frozen=True)
class AcrossCheckpoints(Varied):
    """`Varied`, with the folders of the policies that take turns.

    Args:
        checkpoints: folders or hub ids; the backend loads them.
    """

    checkpoints: Sequence[str] = ()
