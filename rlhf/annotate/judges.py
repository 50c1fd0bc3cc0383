"""Judges that are models: each gives the probability that the answer shown first is the better one.

One interface (`Judge`) for an OpenAI-compatible endpoint, a local causal language model, and a reward model.
"""

import json
import math
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rlhf.annotate.simulated import Gold, gold_in_meta
from rlhf.collect.endpoint import Endpoint
from rlhf.records import Comparison, Prompt, RecordError, prompt_text

INSTRUCTION = """You compare two answers to a prompt. {principle}

[Prompt]
{prompt}

[Answer A]
{a}

[Answer B]
{b}

Which answer is better? Reply with one letter only: A or B. If they are equally good, reply C."""

OVERALL = "Prefer the answer that is more helpful, honest and harmless. Length and order do not matter."


class Judge(Protocol):
    """A model that compares two answers."""

    @property
    def name(self) -> str:
        """Under which it votes."""

    def prefer(self, prompt: Prompt, first: str, second: str, principle: str = OVERALL) -> float:
        """Probability, 0 to 1, that the first answer is better by the principle; 0.5 = a tie."""

    def usage(self) -> dict[str, float]:
        """What it has cost so far: requests, tokens, money; empty where it costs nothing."""
        return {}


def asked(prompt: Prompt, first: str, second: str, principle: str) -> str:
    """What a language model is asked."""
    return INSTRUCTION.format(principle=principle, prompt=prompt_text(prompt), a=first, b=second)


class Unreadable(ValueError):
    """A judge's reply names no answer."""


@dataclass
class EndpointJudge(Judge):
    """A chat model behind an endpoint. Token probabilities are used where the server gives them, else the letter.

    Args:
        endpoint: whom to ask.
        logprobs: ask for the probabilities of the first token.
        temperature: of the reply.
        max_tokens: of the reply: more than a few only for models that think aloud first.
    """

    endpoint: Endpoint
    logprobs: bool = True
    temperature: float = 0.0
    max_tokens: int = 8

    @property
    def name(self) -> str:
        """The model's name."""
        return self.endpoint.model

    def prefer(self, prompt: Prompt, first: str, second: str, principle: str = OVERALL) -> float:
        """See `Judge`. Raises Unreadable for a reply without a letter."""
        text = asked(prompt, first, second, principle)
        options: dict[str, Any] = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        options |= {"logprobs": True, "top_logprobs": 5} if self.logprobs else {}
        reply = self.endpoint.chat([{"role": "user", "content": text}], **options)
        weight = letters(reply["logprobs"][0]) if reply["logprobs"] else {}
        return share(weight) if weight else verdict(reply["text"])

    def usage(self) -> dict[str, float]:
        """Requests, tokens and cost."""
        return {**{k: float(v) for k, v in self.endpoint.usage.items()}, "cost": self.endpoint.cost}


def letters(logprobs: dict[str, float]) -> dict[str, float]:
    """Probability of A, B and C among the alternatives of a token; empty where none of them is one."""
    found: dict[str, float] = {}
    for token, value in logprobs.items():
        letter = token.strip().strip("[]().*\"'").upper()
        if letter in ("A", "B", "C"):
            found[letter] = found.get(letter, 0.0) + math.exp(value)
    return found


def share(weight: dict[str, float]) -> float:
    """P(A) with ties counted half: (A + C / 2) / (A + B + C)."""
    return (weight.get("A", 0) + weight.get("C", 0) / 2) / sum(weight.values())


def verdict(text: str) -> float:
    """1, 0 or 0.5 for a reply in words: the last letter A, B or C that stands alone. Raises Unreadable."""
    found = re.findall(r"(?<![A-Za-z])([ABC])(?![A-Za-z])", text)
    if not found:
        raise Unreadable(f"the judge replied {text[:80]!r}, which names neither A nor B")
    return {"A": 1.0, "B": 0.0, "C": 0.5}[found[-1]]


@dataclass
class LocalJudge(Judge):
    """A causal language model on this machine: the probabilities of A, B and C as its next token.

    Args:
        path: folder or hub id of an instruction-tuned model.
        dtype, device: as in `TransformersPolicy`.
        max_length: longer questions lose their beginning.
    """

    path: str
    dtype: str = "float32"
    device: str = "cpu"
    max_length: int = 4096
    _policy: Any = field(default=None, init=False, repr=False)
    _loading: Any = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def name(self) -> str:
        """The folder."""
        return Path(self.path).name or self.path

    def prefer(self, prompt: Prompt, first: str, second: str, principle: str = OVERALL) -> float:
        """See `Judge`."""
        from rlhf.collect.transformers_policy import TransformersPolicy

        with self._loading:
            self._policy = self._policy or TransformersPolicy(
                self.path, dtype=self.dtype, device=self.device, max_new_tokens=1, max_length=self.max_length
            )
        text = asked(prompt, first, second, principle)
        return share(self._policy.next_token(text, ["A", "B", "C"]))


@dataclass
class RewardJudge(Judge):
    """A trained reward model; its answer does not depend on the order, and principles say nothing to it.

    Args:
        folder: a run's folder or an exported model.
    """

    folder: str
    _scorer: Any = field(default=None, init=False, repr=False)
    _loading: Any = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def name(self) -> str:
        """The folder."""
        return Path(self.folder).name or self.folder

    def prefer(self, prompt: Prompt, first: str, second: str, principle: str = OVERALL) -> float:
        """Calibrated probability; see `rlhf.load`."""
        import rlhf

        with self._loading:
            self._scorer = self._scorer or rlhf.load(self.folder)
        return float(self._scorer.compare(prompt, first, second))


def gold_of(folder: str | None, file: str | None = None) -> Gold:
    """The truth of simulated annotators: a reward model's, or that of an oversight's gold.json; else `gold_in_meta`.

    Raises:
        RecordError: the file is not there, or is not JSON; when it is asked, the file does not know the completions.
    """
    if file is not None:
        return _gold_of_file(file)
    if folder is None:
        return gold_in_meta
    import rlhf

    scorer = rlhf.load(folder)
    return lambda record: scorer.score(record.prompt, [c.text for c in record.completions])


BESIDE = "the step-<n>.gold.json that lies beside the task file, <run>/oversight/step-<n>.tasks.jsonl"


def _gold_of_file(file: str) -> Gold:
    def unfit(problem: str) -> RecordError:
        return RecordError(problem, key="annotator.gold.file", place=file, remedy=BESIDE)

    if not Path(file).is_file():
        raise unfit("no such file")
    try:
        truth: dict[str, dict[str, float]] = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise unfit(f"is not JSON: {error}") from error

    def gold(record: Comparison) -> list[float]:
        known = truth.get(record.prompt_id, {})
        if missing := [c.id for c in record.completions if c.id not in known]:
            raise unfit(f"knows nothing of {', '.join(missing)} of prompt {record.prompt_id}")
        return [float(known[c.id]) for c in record.completions]

    return gold
