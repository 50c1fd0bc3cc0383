"""The toy world as a source that also knows the truth and can answer its own prompts.

Everything above `rlhf.studies` asks a source what it offers, and never whether it is the toy world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.toy.gold import ToyGold
from rlhf.toy.sampler import ToyPolicy
from rlhf.toy.world import ToyWorld


@dataclass
class ToySource(ToyWorld):
    """`ToyWorld`, with its gold reward and its policies; arguments as there."""

    def gold_rewards(self) -> ToyGold:
        """The gold reward of any text, by prompt."""
        return ToyGold(self)

    def policies(self, skills: Sequence[float] = (0.0,)) -> list[ToyPolicy]:
        """One policy of this world per skill."""
        return [ToyPolicy(self, skill) for skill in skills]
