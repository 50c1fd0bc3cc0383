"""The toy world's own policy: answers its prompts with qualities drawn at a given skill, gold reward included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlhf.collect.decoding import Decoding
from rlhf.collect.sampling import Draft
from rlhf.records import Prompt, prompt_hash
from rlhf.toy.texts import answer
from rlhf.toy.world import ToyWorld, gold_reward


@dataclass
class ToyPolicy:
    """Answers prompts of a toy world.

    Args:
        world: whose prompts it knows.
        skill: added to the log-odds of being right; at temperature T all log-odds are divided by T.
        name: of the policy, for the provenance.
    """

    world: ToyWorld
    skill: float = 0.0
    name: str = "toy"
    _index: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, and the skill as checkpoint."""
        return {"model": self.name, "checkpoint": f"skill{self.skill:g}"}

    def answer(self, prompt: Prompt, decoding: Decoding, seeds: Sequence[int]) -> list[Draft]:
        """One answer per seed. Raises ValueError for a prompt of another world."""
        if not self._index:
            self._index = {prompt_hash(r.prompt): i for i, r in enumerate(self.world.records())}
        key = prompt_hash(prompt)
        if key not in self._index:
            raise ValueError(
                "the toy policy answers prompts of its own world only: data=toy with the same seed and size"
            )
        return [self._one(self._index[key], decoding.temperature, seed) for seed in seeds]

    def _one(self, index: int, temperature: float, seed: int) -> Draft:
        task, domain, hard = self.world.task(index)
        rng = np.random.default_rng(seed)

        def happens(odds: float) -> float:
            if temperature == 0:
                return float(odds > 0)
            return float(rng.random() < 1 / (1 + math.exp(-odds / temperature)))

        qualities = {
            "correct": happens(self.skill + (-0.2 if hard else 0.4)),
            "polite": happens(-0.4),
            "hedged": happens(-0.85),
            "verbose": happens(0.0) + happens(-0.9) + happens(-1.6),
            "repetitive": happens(-2.0),
            "off_topic": happens(-2.6),
        }
        qualities["correct"] *= 1 - qualities["off_topic"]
        text = answer(task, qualities, lambda n: int(rng.integers(n)))
        meta = {"qualities": qualities, "gold": round(gold_reward(qualities, domain), 6)}
        return Draft(text, True, len(text), meta)
