"""Prompts in other words, by a model: a rewrite for `rlhf.data.augment`."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from rlhf.collect.decoding import Decoding
from rlhf.collect.sampling import Policy

INSTRUCTION = "Say the following in other words. Keep its meaning, answer with the new text alone.\n\n{}"


@dataclass(frozen=True)
class Paraphrase:
    """Ask a policy for other words; a text comes back as it was where the answer is empty.

    policy       a model that follows instructions, e.g. `rlhf.collect.transformers_policy.TransformersPolicy`
    temperature  of its sampling
    longest      an answer of more than so many times the characters is no paraphrase: the text stays
    """

    policy: Policy
    temperature: float = 0.8
    longest: float = 3.0

    @property
    def fingerprint(self) -> str:
        """What the cache of prepared data knows it by."""
        return f"Paraphrase({self.policy.provenance}, {self.temperature}, {self.longest})"

    def __repr__(self) -> str:
        return self.fingerprint

    def __call__(self, text: str, rng: Random) -> str:
        """Other words for the text."""
        decoding = Decoding(temperature=self.temperature)
        (draft,) = self.policy.answer(INSTRUCTION.format(text), decoding, [rng.getrandbits(31)])
        said = draft.text.strip()
        return said if 0 < len(said) <= self.longest * max(1, len(text)) else text
