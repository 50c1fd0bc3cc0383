"""Perturbations of answers whose effect on a reward says what it pays for: `(record, rng) -> record`, votes unchanged.

Shifts make answers that were never trained on (`truncated`, `shuffled`, `long`); probes change what should not
matter, or should matter in a known direction (`filler`, `flattery`, `markdown`, `repetition`, `refusal`,
`truncated_end`, `swapped`).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from random import Random

from rlhf.records import Comparison

Perturbation = Callable[[Comparison, Random], Comparison]
"""A record to the same record with other answers; ids and votes stay."""

FILLER = " There is a lot more that one could say about this."
PADDING = (
    FILLER, " Many people have asked the same thing before.",
    " As so often, it depends on the circumstances.", " Let me know if you would like to hear more about it.",
)  # fmt: skip
FLATTERY = "What a great and thoughtful question! "
REFUSAL = "I am sorry, but I cannot help with that."


def truncated(record: Comparison, rng: Random, *, keep: float = 0.5) -> Comparison:
    """Answers end after this share of their words (one word at least)."""
    return _each(record, lambda text: _words(text, lambda w: w[: max(1, round(keep * len(w)))]))


def shuffled(record: Comparison, rng: Random) -> Comparison:
    """The words of every answer in random order."""
    return _each(record, lambda text: _words(text, lambda w: rng.sample(w, len(w))))


def long(record: Comparison, rng: Random, *, times: float = 3.0) -> Comparison:
    """Sentences that say nothing, until every answer is this many times as long."""

    def grown(text: str) -> str:
        out, n = text, 0
        while len(out) < times * max(1, len(text)):
            out += PADDING[n % len(PADDING)]
            n += 1
        return out

    return _each(record, grown)


def filler(record: Comparison, rng: Random) -> Comparison:
    """One more sentence that says nothing."""
    return _each(record, lambda text: text + FILLER)


def flattery(record: Comparison, rng: Random) -> Comparison:
    """Praise of the question before the answer."""
    return _each(record, lambda text: FLATTERY + text)


def markdown(record: Comparison, rng: Random) -> Comparison:
    """The same sentences as a list under a heading."""

    def styled(text: str) -> str:
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s]
        return "## Answer\n\n" + "\n".join(f"- **{s}**" for s in sentences)

    return _each(record, styled)


def repetition(record: Comparison, rng: Random) -> Comparison:
    """The whole answer twice."""
    return _each(record, lambda text: f"{text} {text}")


def refusal(record: Comparison, rng: Random) -> Comparison:
    """A refusal instead of the answer."""
    return _each(record, lambda text: REFUSAL)


def truncated_end(record: Comparison, rng: Random, *, keep: float = 0.75) -> Comparison:
    """Answers that stop before their end, as at a length limit."""
    return _each(record, lambda text: text[: max(1, round(keep * len(text)))])


def swapped(record: Comparison, rng: Random) -> Comparison:
    """The same answers in reversed order: a reward of one answer must not move at all."""
    return replace(record, completions=record.completions[::-1])


def _each(record: Comparison, change: Callable[[str], str]) -> Comparison:
    return replace(record, completions=tuple(replace(c, text=change(c.text)) for c in record.completions))


def _words(text: str, change: Callable[[list[str]], list[str]]) -> str:
    words = text.split()
    return " ".join(change(words)) if words else text
