"""Prompts in other words, by a model: a rewrite for `rlhf.data.augment`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from rlhf.collect.decoding import Decoding
from rlhf.collect.sampling import Policy
from rlhf.data.augment import name_of
from rlhf.records import RecordError

INSTRUCTION = "Say the following in other words. Keep its meaning, answer with the new text alone.\n\n{}"
WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+")
LONG = 4  # letters of a word that carries meaning, at least


def keeps_facts(text: str, said: str, *, words: float = 0.5) -> bool:
    """Is this still the same request? By rules: many a small model answers a prompt, or loses what it is about.

    Every number and every name (a capital letter, but not at the beginning of a sentence) is said again, a question
    stays a question, what is none becomes none, and at least the share `words` of the other words of four letters or
    more is there. What passes can still mean something else: read some.
    """
    there = {word.lower() for word in WORD.findall(said)}
    needed = [w for w in WORD.findall(text) if w[0].isdigit()] + names(text)
    others = {w.lower() for w in WORD.findall(text) if len(w) >= LONG} - {w.lower() for w in needed}
    return (
        all(w.lower() in there for w in needed)
        and text.rstrip().endswith("?") == said.rstrip().endswith("?")
        and len(others & there) >= words * len(others)
    )


def names(text: str) -> list[str]:
    """Words with a capital letter that do not begin a sentence; I is none."""
    return [
        match.group()
        for match in WORD.finditer(text)
        if match.group()[0].isupper()
        and match.group() != "I"
        and not re.search(r"(^|[.!?:]\s*)$", text[: match.start()])
    ]


@dataclass(frozen=True)
class Paraphrase:
    """Ask a policy for other words; a text comes back as it was where none of the answers can be used.

    policy       a model that follows instructions, e.g. `rlhf.collect.transformers_policy.TransformersPolicy`
    instruction  what it is asked; {} is the text
    temperature  of its sampling
    longest      an answer of more than so many times the characters is no paraphrase
    tries        answers that are sampled, at most, until one can be used
    same         (text, answer) -> can it be used; None takes whatever is not empty and not too long
    """

    policy: Policy
    instruction: str = INSTRUCTION
    temperature: float = 0.8
    longest: float = 3.0
    tries: int = 3
    same: Callable[[str, str], bool] | None = keeps_facts

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise RecordError("at least 1", key=f"tries={self.tries}", remedy="3 answers are sampled by default")
        if "{}" not in self.instruction:
            raise RecordError("has no {} where the text goes", key="instruction", remedy=INSTRUCTION)

    @property
    def fingerprint(self) -> str:
        """What the cache of prepared data knows it by."""
        asked = f"{self.instruction!r}, {self.temperature}, {self.longest}, {self.tries}"
        return f"Paraphrase({self.policy.provenance}, {asked}, {name_of(self.same)})"

    def __repr__(self) -> str:
        return self.fingerprint

    def __call__(self, text: str, rng: Random) -> str:
        """Other words for the text."""
        decoding = Decoding(temperature=self.temperature)
        for _ in range(self.tries):
            asked = self.instruction.replace("{}", text)
            (draft,) = self.policy.answer(asked, decoding, [rng.getrandbits(31)])
            said = draft.text.strip()
            if 0 < len(said) <= self.longest * max(1, len(text)) and (not self.same or self.same(text, said)):
                return said
        return text
