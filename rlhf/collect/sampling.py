"""Prompts to completions: K different texts per prompt, with their provenance, resumable.

A completion depends on (prompt, policy, decoding, seed, its place, attempt) only: every one has a seed of its own, made
of these, and a policy decodes one prompt at a time. So results do not change with the number of prompts, their order,
or where a run was killed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

from rlhf.collect.decoding import Decoding, Sampler, Slot
from rlhf.collect.prompts import Task
from rlhf.data.near_duplicates import jaccard, shingles
from rlhf.records import Comparison, Completion, Prompt


@dataclass(frozen=True)
class Draft:
    """A text as a policy made it; finished = it ended by itself, not at the length limit; usage = what it cost."""

    text: str
    finished: bool
    tokens: int
    meta: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)


class Policy(Protocol):
    """Whatever answers prompts: transformers, vLLM, an endpoint, the toy world."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Model and checkpoint, for `Completion.source`."""

    def answer(self, prompt: Prompt, decoding: Decoding, seeds: Sequence[int]) -> list[Draft]:
        """One answer per seed; equal arguments give equal answers."""


@dataclass
class Completer:
    """K completions per prompt.

    Args:
        policies: who answers, in turns as the sampler says.
        sampler: how each completion is decoded.
        k: completions per prompt.
        min_distance: floor on 1 - Jaccard similarity of the shingles of two completions; closer ones are drawn anew.
        attempts: draws per completion, at most; then the last one stays and is counted as `too similar`.
        seed: of all completions.

    Raises:
        ValueError: k or attempts below 1, or nobody to answer.
    """

    policies: Sequence[Policy]
    sampler: Sampler
    k: int = 4
    min_distance: float = 0.1
    attempts: int = 4
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter, init=False)
    usage: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("no policy to sample from: model=<group option> or policies=[<folder>, ...]")
        if self.k < 1 or self.attempts < 1:
            raise ValueError(f"k={self.k} and attempts={self.attempts} must be at least 1")

    def __call__(self, task: Task) -> Comparison:
        """The record of one prompt, without votes."""
        slots = self.sampler.slots(self.k, len(self.policies))
        completions: list[Completion] = []
        sets: list[Any] = []
        drafts = self._first(task, slots)
        for place, slot in enumerate(slots):
            draft, attempt = drafts[place], 0
            own = shingles(draft.text)
            while self._close(own, sets) and attempt + 1 < self.attempts:
                attempt += 1
                self.counts["drawn anew"] += 1
                seed = self.seed_of(task, slot, place, attempt)
                draft = self._ask(task, slot, [seed])[0]
                own = shingles(draft.text)
            self.counts["too similar"] += self._close(own, sets)
            self.counts["completions"] += 1
            self.counts["cut at the length limit"] += not draft.finished
            sets.append(own)
            completions.append(self._completion(task, slot, place, attempt, draft))
        return Comparison(task.prompt_id, task.prompt, tuple(completions), (), task.domain, task.meta)

    def seed_of(self, task: Task, slot: Slot, place: int, attempt: int) -> int:
        """A 63-bit seed from everything a completion depends on."""
        policy = sorted(self.policies[slot.policy].provenance.items())
        parts = (self.seed, task.key, policy, sorted(slot.decoding.as_dict().items()), place, attempt)
        return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "little") >> 1

    def _first(self, task: Task, slots: list[Slot]) -> dict[int, Draft]:
        """The first draft of every completion; equal slots are asked for together."""
        drafts: dict[int, Draft] = {}
        for slot in dict.fromkeys(slots):
            places = [i for i, other in enumerate(slots) if other == slot]
            seeds = [self.seed_of(task, slot, place, 0) for place in places]
            drafts |= dict(zip(places, self._ask(task, slot, seeds), strict=True))
        return drafts

    def _ask(self, task: Task, slot: Slot, seeds: Sequence[int]) -> list[Draft]:
        drafts = self.policies[slot.policy].answer(task.prompt, slot.decoding, seeds)
        for draft in drafts:
            self.usage.update(draft.usage)
        return drafts

    def _close(self, own: Any, others: list[Any]) -> bool:
        return any(jaccard(own, other) > 1 - self.min_distance for other in others)

    def _completion(self, task: Task, slot: Slot, place: int, attempt: int, draft: Draft) -> Completion:
        source = self.policies[slot.policy].provenance | slot.decoding.as_dict()
        source |= {"seed": self.seed_of(task, slot, place, attempt), "attempt": attempt}
        meta = {"finished": draft.finished, "tokens": draft.tokens} | draft.meta
        return Completion(f"c{place}", draft.text, source, meta)
