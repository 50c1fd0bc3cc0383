"""More training records from the same votes: prompts said in other words, answers in other styles.

A reward model meets prompts and styles that its votes never showed. A variation keeps votes and meaning and changes
what should not matter, for every answer on its own: so that style, and whether both answers share it, tells nothing
about the votes. Only training records are varied; validation and test stay as they are.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from random import Random
from typing import Any

from rlhf.records import Comparison, Message, Prompt, prompt_text

Rewrite = Callable[[str, Random], str]
"""A text to another of the same meaning; equal random states give equal texts."""

OPENINGS = (
    "Sure!", "Certainly.", "Of course.", "Happy to help.", "Here is an answer:", "Okay.", "Thank you for asking.",
)  # fmt: skip
CLOSINGS = (
    "I hope this helps.", "Feel free to ask further.", "Good luck!", "That is all.", "Does this answer it?",
    "Have a nice day.",
)  # fmt: skip
ASKING = (
    "Please answer: {}", "I would like to know: {}", "Question: {}", "{} Thank you!", "Hello. {}",
    "My question is this. {}",
)  # fmt: skip


def as_it_is(text: str, rng: Random) -> str:
    """Unchanged: so that the plain style is among those that are compared."""
    return text


def opening(text: str, rng: Random) -> str:
    """With a polite phrase before it."""
    return f"{rng.choice(OPENINGS)} {text}"


def closing(text: str, rng: Random) -> str:
    """With a polite phrase after it."""
    return f"{text} {rng.choice(CLOSINGS)}"


def listed(text: str, rng: Random) -> str:
    """Every sentence as an item of a list."""
    sign = rng.choice(("*", "-", "•"))
    return "\n".join(f"{sign} {sentence}" for sentence in _sentences(text))


def lines(text: str, rng: Random) -> str:
    """Every sentence as a paragraph."""
    return "\n\n".join(_sentences(text))


def plain(text: str, rng: Random) -> str:
    """Without the marks of Markdown, in one paragraph."""
    bare = re.sub(r"^\s*(#+|[-*•]|\d+\.)\s+", "", text, flags=re.MULTILINE)
    return " ".join(re.sub(r"\*\*|__|`", "", bare).split())


def asked_otherwise(text: str, rng: Random) -> str:
    """A prompt with other words around it."""
    return rng.choice(ASKING).replace("{}", text)


@dataclass(frozen=True)
class Augment:
    """Variations of a training record: `(record) -> record, variation, ...`.

    copies   variations per record, each with other random choices
    prompts  rewrites, one of which is drawn for the prompt (of a chat: for its last message); none = prompts stay
    styles   rewrites, one of which is drawn for every answer on its own; none = answers stay
    seed     of the choices

    Raises:
        ValueError: a negative number of copies, or copies without a rewrite.
    """

    copies: int = 1
    prompts: Sequence[Rewrite] = ()
    styles: Sequence[Rewrite] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.copies < 0:
            raise ValueError(f"augment.copies={self.copies}: 0 or more")
        if self.copies and not (self.prompts or self.styles):
            problem = f"augment.copies={self.copies} without augment.prompts or augment.styles"
            raise ValueError(f"{problem}: nothing to vary")

    @property
    def fingerprint(self) -> str:
        """What the cache of prepared data knows it by."""
        rewrites = [[name_of(rewrite) for rewrite in several] for several in (self.prompts, self.styles)]
        return f"Augment({self.copies}, {rewrites}, {self.seed})"

    def __call__(self, record: Comparison) -> Iterator[Comparison]:
        """The record and its variations; one that came out as the record itself is left out."""
        yield record
        for copy in range(self.copies):
            name = f"{self.seed}:{copy}:{record.prompt_id}:{prompt_text(record.prompt)}"
            rng = Random(blake2b(name.encode(), digest_size=8).digest())
            prompt = self._asked(record.prompt, rng) if self.prompts else record.prompt
            answers = tuple(
                replace(c, text=rng.choice(self.styles)(c.text, rng)) if self.styles else c for c in record.completions
            )
            if (prompt, answers) != (record.prompt, record.completions):
                yield replace(record, prompt_id=f"{record.prompt_id}+{copy + 1}", prompt=prompt, completions=answers)

    def _asked(self, prompt: Prompt, rng: Random) -> Prompt:
        rewrite = rng.choice(self.prompts)
        if isinstance(prompt, str):
            return rewrite(prompt, rng)
        *before, last = prompt
        return (*before, Message(role=last["role"], content=rewrite(last["content"], rng)))


def name_of(rewrite: Any) -> str:
    """A function by its name, a partial by that and its arguments, anything else by its repr."""
    function = getattr(rewrite, "func", rewrite)
    return f"{getattr(function, '__qualname__', repr(function))}{sorted(getattr(rewrite, 'keywords', {}).items())}"


AS_THEY_ARE = Augment(copies=0)


def _sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?])\s+|\n+", text) if s.strip()] or [text]
