"""Which pairs of a policy's answers are voted on: any selector of `rlhf.select`, on what is known from votes so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlhf.labels.aggregation import soft
from rlhf.optimise.shaping.reward_source import RewardSource
from rlhf.records import Comparison
from rlhf.select.features import HashedWords, Reduced
from rlhf.select.loop.learners import Labels, LinearLearner
from rlhf.select.pool_builder import Features, PairTable, different
from rlhf.select.querying import query
from rlhf.select.strategies.selector import Selector, at_random

SelectPairs = Callable[
    [Sequence[Comparison], Sequence[Comparison], RewardSource, int, np.random.Generator], list[Comparison]
]
"""`(new records without votes, records with votes, reward model, how many pairs, rng) -> records of one pair each`."""


def words() -> Features:
    """Presence of words, reduced; fresh."""
    return Reduced(HashedWords())


@dataclass(frozen=True)
class PairSelection:
    """Pairs of new answers, chosen by a selector that knows the pairs voted on before.

    Args:
        selector: of `rlhf.select`. Members are those of the reward model that was optimised; the policy's samples are
            the new answers; the posterior is that of a linear head on the features of all answers.
        features: `() -> features`, fresh: what they fit, they fit anew every generation.
    """

    selector: Selector = at_random
    features: Callable[[], Features] = words

    def __call__(
        self, new: Sequence[Comparison], known: Sequence[Comparison], reward_source: RewardSource, number: int,
        rng: np.random.Generator,
    ) -> list[Comparison]:  # fmt: skip
        """At most `number` pairs, best first."""
        table, names = PairTable(), list[str]()
        votes: list[tuple[float, float]] = []
        for record in known:
            label = soft(record)
            for i, j in label.pairs():
                names.append(table.add(record, i, j))
                votes.append((float(label.win_prob[i, j]), float(label.votes[i, j])))
        for record in new:
            names += [table.add(record, i, j) for i, j in different(record)]
        # all pairs, of which the first ones are labelled; the answers of the others are the target
        ids = [f"{n:08d}-{name}" for n, name in enumerate(names)]
        prompts, texts = [a.prompt for a in table.answers], [a.text for a in table.answers]
        members = reward_source.score(prompts, texts)[0].double().numpy()
        pool = table.pool(self.features(), ids, np.arange(len(names)) >= len(votes), members=members)
        sides = {row for pair in table.sides[len(votes) :] for row in pair}
        pool = replace(pool, target=pool.features[sorted(sides)])
        share, count = np.array(votes).reshape(-1, 2).T
        labels = Labels(np.arange(len(votes)), share, count)
        trained = LinearLearner()(pool, labels, int(rng.integers(2**31)))
        budget = min(number, int(pool.selectable.sum()))
        chosen = query(trained.pool, trained.state, budget, rng, selector=self.selector).indices
        found = [(names[row], *table.pairs[row]) for row in chosen.tolist()]
        return [
            replace(record, prompt_id=name, completions=(record.completions[i], record.completions[j]), votes=())
            for name, record, i, j in found
        ]
