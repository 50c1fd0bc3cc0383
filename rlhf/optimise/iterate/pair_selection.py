"""Which pairs of a policy's answers are voted on: any selector of `rlhf.select`, on what is known from votes so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from rlhf.labels.aggregation import soft
from rlhf.optimise.shaping.reward_source import RewardSource
from rlhf.records import Comparison, prompt_hash
from rlhf.select.loop.learners import Labels, LinearLearner
from rlhf.select.pool import PairPool
from rlhf.select.pool_builder import Answer, Features
from rlhf.select.querying import query
from rlhf.select.strategies.selector import Selector

SelectPairs = Callable[
    [Sequence[Comparison], Sequence[Comparison], RewardSource, int, np.random.Generator], list[Comparison]
]
"""`(new records without votes, records with votes, reward model, how many pairs, rng) -> records of one pair each`."""


@dataclass(frozen=True)
class PairSelection:
    """Pairs of new answers, chosen by a selector that knows the pairs voted on before.

    Args:
        selector: of `rlhf.select`. Members are those of the reward model that was optimised; the policy's samples are
            the new answers; the posterior is that of a linear head on the features of all answers.
        features: `() -> features`, fresh: what they fit, they fit anew every generation.
    """

    selector: Selector
    features: Callable[[], Features]

    def __call__(
        self, new: Sequence[Comparison], known: Sequence[Comparison], reward_source: RewardSource, number: int,
        rng: np.random.Generator,
    ) -> list[Comparison]:  # fmt: skip
        """At most `number` pairs, best first."""
        table = _PairTable()
        for record in known:
            label = soft(record)
            for i, j in np.argwhere(np.triu(label.observed, 1)).tolist():
                table.add(record, i, j, (float(label.win_prob[i, j]), float(label.votes[i, j])))
        for record in new:
            for i, j in combinations(range(len(record.completions)), 2):
                if (
                    record.completions[i].text != record.completions[j].text
                ):  # else there is nothing to prefer
                    table.add(record, i, j, None)
        pool, labels = table.pool(self.features(), reward_source)
        trained = LinearLearner()(pool, labels, int(rng.integers(2**31)))
        budget = min(number, int(pool.selectable.sum()))
        chosen = query(trained.pool, trained.state, budget, rng, selector=self.selector).indices
        return [table.pair(int(row)) for row in chosen]


@dataclass
class _PairTable:
    """Columns of the pool while records are read."""

    pairs: list[tuple[Comparison, int, int]] = field(default_factory=list)
    sides: list[tuple[int, int]] = field(default_factory=list)
    votes: list[tuple[float, float] | None] = field(default_factory=list)
    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    prompts: dict[str, int] = field(default_factory=dict)

    def add(self, record: Comparison, i: int, j: int, votes: tuple[float, float] | None) -> None:
        self.pairs.append((record, i, j))
        self.sides.append((self._row(record, i), self._row(record, j)))
        self.votes.append(votes)

    def _row(self, record: Comparison, place: int) -> int:
        key, completion = prompt_hash(record.prompt), record.completions[place]
        group = self.prompts.setdefault(key, len(self.prompts))
        if (key, completion.text) not in self.rows:
            self.rows[key, completion.text] = len(self.answers)
            answer = Answer(record.prompt, completion.text, group, True, record.domain, completion.meta)
            self.answers.append(answer)
        return self.rows[key, completion.text]

    def pool(self, features: Features, reward_source: RewardSource) -> tuple[PairPool, Labels]:
        found = features(self.answers)
        members = reward_source.score([a.prompt for a in self.answers], [a.text for a in self.answers])[0]
        sides = np.array(self.sides)
        open_ = np.array([votes is None for votes in self.votes])
        domains = sorted({r.domain for r, _, _ in self.pairs if r.domain is not None})
        ids = [f"{n:08d}-{self._name(n)}" for n in range(len(self.pairs))]
        pool = PairPool(
            found, sides[:, 0], sides[:, 1], np.array(ids),
            np.array([self.prompts[prompt_hash(r.prompt)] for r, _, _ in self.pairs]),
            domain=np.array([-1 if r.domain is None else domains.index(r.domain) for r, _, _ in self.pairs]),
            length=np.array([len(a.text) for a in self.answers], float), selectable=open_,
            members=members.double().numpy(), target=found[np.unique(sides[open_])],
        )  # fmt: skip
        cast = [(row, *votes) for row, votes in enumerate(self.votes) if votes is not None]
        share, count = np.array([v[1] for v in cast]), np.array([v[2] for v in cast])
        return pool, Labels(np.array([v[0] for v in cast], dtype=np.int64), share, count)

    def pair(self, row: int) -> Comparison:
        record, i, j = self.pairs[row]
        pair = (record.completions[i], record.completions[j])
        return replace(record, prompt_id=self._name(row), completions=pair, votes=())

    def _name(self, row: int) -> str:
        record, i, j = self.pairs[row]
        return f"{record.prompt_id}/{record.completions[i].id}/{record.completions[j].id}"
