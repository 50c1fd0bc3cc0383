"""The toy world as a source that also knows the truth and can answer its own prompts.

Everything above `rlhf.studies` asks a source what it offers, and never whether it is the toy world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rlhf.records import RecordError
from rlhf.toy.gold import ToyGold
from rlhf.toy.sampler import ToyPolicy
from rlhf.toy.world import ToyWorld

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
