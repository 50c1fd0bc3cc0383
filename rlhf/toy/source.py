"""The toy world as a source that also knows the truth and can answer its own prompts.

Everything above `rlhf.studies` asks a source what it offers, and never whether it is the toy world.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rlhf.collect.decoding import Decoding
from rlhf.collect.sampling import Draft
from rlhf.records import Prompt, RecordError
from rlhf.toy.gold import ToyGold
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

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, and the skill as checkpoint."""
        return {"model": self.name, "checkpoint": f"skill{self.skill:g}"}

    def answer(self, prompt: Prompt, decoding: Decoding, seeds: Sequence[int]) -> list[Draft]:
        """One answer per seed. Raises ValueError for a prompt of another world."""
        try:
            index = self.world.find(prompt)
        except KeyError:
            raise ValueError(
                "the toy policy answers prompts of its own world only: data=toy with the same seed and size"
            ) from None
        return [self._one(index, decoding.temperature, seed) for seed in seeds]

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
        text = answer(task, qualities, lambda n: int(rng.integers(n)), self.world.off_topic)
        meta = {"qualities": qualities, "gold": round(gold_reward(qualities, domain), 6)}
        return Draft(text, True, len(text), meta)


if TYPE_CHECKING:
    from rlhf.toy.tabular_policy import TabularPolicy


@dataclass
class ToySource(ToyWorld):
    """`ToyWorld`, with its gold reward and its policies; arguments as there."""

    def gold_rewards(self) -> ToyGold:
        """The gold reward of any text, by prompt."""
        return ToyGold(self)

    def policies(self, skills: Sequence[float] = (0.0,)) -> list[ToyPolicy]:
        """One policy of this world per skill."""
        return [ToyPolicy(self, skill) for skill in skills]


@dataclass(frozen=True)
class TabularPolicySource:
    """`policy=toy`: the policy of decisions (`rlhf.toy.tabular_policy`), trained in seconds.

    Args:
        longest: sentences that only add length, at most.
        learning_rate: the default of the optimizer's.
    """

    longest: int = 8
    learning_rate: float = 0.1
    exact_gold: ClassVar[bool] = True
    """Its mean gold reward is known without sampling."""

    def __call__(self, gold: ToyGold | None, language_model: Callable[..., Any]) -> TabularPolicy:
        """The policy of the world whose gold this is. Raises RecordError where there is none."""
        from rlhf.toy.tabular_policy import TabularPolicy

        if gold is None:
            raise RecordError(
                "the toy policy knows the toy world only", key="policy",
                remedy="data=toy, or policy=language with model= and model.path=",
            )  # fmt: skip
        return TabularPolicy(gold, longest=self.longest)
