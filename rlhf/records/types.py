"""What one record is made of: a prompt, its completions, and every raw vote anybody cast on them.

Raw votes are the only truth on disk; labels are a view that `rlhf.labels.aggregation` computes.
`rlhf.records` reads and writes these types. Standard library only.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, TypedDict

Kind = Literal["human", "ai", "simulated"]
KINDS = ("human", "ai", "simulated")
LIKERT = (1.0, 5.0)  # the Likert scale a file has when its header does not say otherwise


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


Prompt = str | tuple[Message, ...]
"""What the completions answer: plain text, or the turns of a chat so far."""


class RecordError(ValueError):
    """A record that cannot be used. The message names file, line, key and remedy."""

    def __init__(self, problem: str, *, key: str = "", remedy: str = "", place: str = "") -> None:
        self.problem, self.key, self.remedy, self.place = problem, key, remedy, place
        at_key = f"key '{key}': " if key else ""
        super().__init__(": ".join(p for p in (place, at_key + problem) if p) + (f" ({remedy})" if remedy else ""))

    def at(self, place: str) -> RecordError:
        """The same error with the place (`file:line`) it was found at."""
        return RecordError(self.problem, key=self.key, remedy=self.remedy, place=place)


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer to the prompt. `source` says how it was made: model, checkpoint, temperature, seed, ..."""

    id: str
    text: str
    source: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vote:
    """What one annotator says: exactly one of a pairwise choice, a ranking, or Likert ratings.

    pair + choice   the two completion ids and the winner's id, or "tie"; `margin` >= 0 is the stated
                    strength of the preference in units of reward (0 = none stated); `p` is the probability
                    that the first of the pair is better, where an annotator gave one (None = not), and counts
                    instead of the choice
    ranking         best first; ids that share an inner tuple are tied; ids left out got no vote
    likert          completion id -> rating, higher is better
    """

    annotator: str
    kind: Kind = "human"
    criterion: str = "overall"
    seconds: float | None = None
    gold: bool = False
    pair: tuple[str, str] | None = None
    choice: str | None = None
    margin: float = 0.0
    p: float | None = None
    ranking: tuple[tuple[str, ...], ...] | None = None
    likert: Mapping[str, float] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One record. `votes` may be empty: then it is a task that waits for annotators."""

    prompt_id: str
    prompt: Prompt
    completions: tuple[Completion, ...]
    votes: tuple[Vote, ...] = ()
    domain: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def places(self) -> dict[str, int]:
        """Completion id -> its index."""
        return {completion.id: index for index, completion in enumerate(self.completions)}

    def position(self, completion_id: str) -> int:
        """Index of a completion by its id. Raises KeyError when there is none."""
        return self.places[completion_id]


def as_messages(prompt: Prompt) -> list[Message]:
    """The prompt as the turns of a chat; a plain text is one user turn."""
    return [Message(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)


def prompt_text(prompt: Prompt) -> str:
    """The words of a prompt as one string: what splits hash and what filters read. Never fed to a model."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def prompt_hash(prompt: Prompt) -> str:
    """sha256 of the prompt's words after NFKC, case folding and collapsing of whitespace; 16 hex characters.

    Two spellings of the same prompt share it, so splits and de-duplication can trust it. A text and a conversation of
    that one user turn are the same prompt.
    """
    alone = not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user"
    text = prompt[0]["content"] if alone else prompt_text(prompt)  # type: ignore[index]
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return sha256(" ".join(words).encode("utf-8", "replace")).hexdigest()[:16]
