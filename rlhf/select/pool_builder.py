"""Records to a pool of pairs: which pairs can be labelled, which test pairs evaluate, and the task of each pair.

Pairs of training prompts are the pool, pairs of test prompts the test; validation prompts are in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Protocol

import numpy as np

from rlhf.data.splits import Splitter
from rlhf.labels.label import Aggregation
from rlhf.labels.vote_table import levels
from rlhf.records import Comparison, Prompt, Vote, prompt_hash
from rlhf.select.pool import PairPool
from rlhf.stats.arrays import Bools, Floats, Ints


@dataclass(frozen=True)
class Answer:
    """One completion with its prompt: what features are computed from.

    group   code of the prompt
    train   True where the prompt may be learned from
    domain, meta  of the record and of the completion
    """

    prompt: Prompt
    text: str
    group: int
    train: bool
    domain: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


Features = Callable[[Sequence[Answer]], Floats]
"""Answers to features [N, d]; whatever is fitted is fitted on `train` answers, without labels."""


class PoolSource(Protocol):
    """Anything that gives records from the start."""

    def records(self) -> Iterable[Comparison]:
        """The records from the start."""


@dataclass(frozen=True)
class BuiltPool:
    """A pool of pairs with everything around it.

    pool        n pairs: of training prompts (selectable) and, behind them, of test prompts
    records     the records, in the order of the source
    place       [n, 3] record, and positions of the two completions in it
    held_back   [n] the votes that the records carry on each pair
    test        [t] rows of the pool that evaluate; test_share [t] vote shares, ties counting one half
    domains     names behind the pool's domain codes
    features    answers to features, as the pool's were made
    answers     [N] the completions behind the rows of pool.features
    evaluation  (val or test, record) of every record that is not of the pool
    policy      [T] the current policy's completions behind pool.target; none without a policy
    """

    pool: PairPool
    records: list[Comparison]
    place: Ints
    held_back: list[list[Vote]]
    test: Ints
    test_share: Floats
    domains: tuple[str, ...]
    features: Features
    answers: list[Answer]
    evaluation: list[tuple[str, Comparison]]
    policy: Sequence[Answer] = ()

    def task(self, row: int) -> Comparison:
        """The pair as a record of two completions without votes; `meta.pair_id` is its id."""
        number, first, second = (int(k) for k in self.place[row])
        record: Comparison = self.records[number]
        pair = (record.completions[first], record.completions[second])
        meta = {"pair_id": str(self.pool.ids[row])}
        return replace(record, completions=pair, votes=(), meta=meta)

    @property
    def longer(self) -> Floats:
        """Length of the left less length of the right of every pair [n], in characters."""
        length = np.asarray(self.pool.length)
        assert self.pool.right is not None
        return np.asarray(length[self.pool.left] - length[self.pool.right])


def build_pool(
    source: PoolSource,
    splitter: Splitter,
    features: Features,
    eval_aggregation: Aggregation,
    *,
    only_voted: bool,
) -> BuiltPool:
    """Read the records, form the pairs, compute the features.

    Args:
        source: the records.
        splitter: which prompts are in the pool, which in the test.
        features: answers to features.
        eval_aggregation: votes of test records to vote shares.
        only_voted: only pairs with votes enter the pool (they are held back and can be obtained).

    Raises:
        ValueError: no pair for the pool or for the test.
    """
    if splitter.needs_fit:
        splitter.fit(source.records())
    table = _PoolTable()
    for record in source.records():
        split = splitter.split_of(record)
        table.add_answers(record, split == "train")
        if split == "train":
            table.add_pool(record, only_voted)
            continue
        table.evaluation.append((split, record))
        if split == "test":
            label = eval_aggregation(record)
            table.add_test(record, label.win_prob, label.observed)
    return table.build(features)


class _PoolTable:
    """Columns of the pool while the records are read."""

    def __init__(self) -> None:
        self.records: list[Comparison] = []
        self.place: list[tuple[int, int, int]] = []
        self.held_back: list[list[Vote]] = []
        self.sides: list[tuple[int, int]] = []
        self.ids: dict[str, None] = {}
        self.share: list[float] = []
        self.answers: dict[tuple[int, str], Answer] = {}
        self.rows: dict[tuple[int, str], int] = {}
        self.prompts: dict[str, int] = {}
        self.prompt: list[int] = []
        self.domain: list[str | None] = []
        self.cost: list[float] = []
        self.evaluation: list[tuple[str, Comparison]] = []

    def add_answers(self, record: Comparison, train: bool) -> None:
        """All answers get features, whatever their split, so that equal data has equal cached embeddings."""
        prompt = self.prompts.setdefault(prompt_hash(record.prompt), len(self.prompts))
        for completion in record.completions:
            key = (prompt, completion.text)
            answer = Answer(record.prompt, completion.text, prompt, train, record.domain, completion.meta)
            self.answers.setdefault(key, answer)
            self.rows.setdefault(key, len(self.rows))

    def add_pool(self, record: Comparison, only_voted: bool) -> None:
        for i, j in combinations(range(len(record.completions)), 2):
            votes = on_pair(record, i, j)
            if votes or not only_voted:
                self._add(record, i, j, votes, float("nan"))

    def add_test(self, record: Comparison, share: Floats, observed: Bools) -> None:
        for i, j in combinations(range(len(record.completions)), 2):
            if observed[i, j]:
                self._add(record, i, j, [], float(share[i, j]))

    def _add(self, record: Comparison, i: int, j: int, votes: list[Vote], share: float) -> None:
        a, b = record.completions[i], record.completions[j]
        if a.text == b.text:
            return  # nothing to prefer
        prompt = self.prompts[prompt_hash(record.prompt)]
        if not self.records or self.records[-1] is not record:
            self.records.append(record)
        name = f"{record.prompt_id}/{a.id}/{b.id}"
        self.ids[name if name not in self.ids else f"{name}#{len(self.ids)}"] = None
        self.place.append((len(self.records) - 1, i, j))
        self.held_back.append(votes)
        self.sides.append((self.rows[prompt, a.text], self.rows[prompt, b.text]))
        self.share.append(share)
        self.prompt.append(prompt)
        self.domain.append(record.domain)
        self.cost.append(float(record.meta.get("cost", 1.0)))

    def build(self, features: Features) -> BuiltPool:
        share = np.array(self.share)
        pooled = np.isnan(share)
        if not pooled.any() or pooled.all():
            raise ValueError(
                f"{int(pooled.sum())} pairs for the pool and {int((~pooled).sum())} test pairs with votes: both are "
                "needed; look at split.val and split.test, and at the votes of the data"
            )
        sides = np.array(self.sides)
        answers = list(self.answers.values())
        domains = tuple(sorted({d for d in self.domain if d is not None}))
        pool = PairPool(
            features(answers),
            sides[:, 0],
            sides[:, 1],
            np.array(list(self.ids)),
            np.array(self.prompt),
            domain=np.array([-1 if d is None else domains.index(d) for d in self.domain]),
            length=np.array([len(a.text) for a in answers], float),
            cost=np.array(self.cost),
            selectable=pooled,
            domains=domains,
        )
        test = np.flatnonzero(~pooled)
        place = np.array(self.place)
        return BuiltPool(
            pool, self.records, place, self.held_back, test, share[test], domains, features, answers, self.evaluation
        )  # fmt: skip


def skewed(built: BuiltPool, keep: float, seed: int) -> BuiltPool:
    """A pool dominated by one kind of prompt, as collections are: of other domains only a share of the pairs stays.

    Which domain stays whole, and which pairs of the others, is drawn by the seed; the test is left alone.

    Args:
        built: the pool and its test.
        keep: share of the other domains' pairs, 0..1.
        seed: of the draw.

    Raises:
        ValueError: the pool has fewer than two domains.
    """
    pool, rng = built.pool, np.random.default_rng((seed, 31))
    domains = np.unique(pool.domain[pool.selectable])
    if len(domains) < 2:
        raise ValueError("task.skew needs a pool of two domains or more")
    stays = (pool.domain == rng.choice(domains)) | (rng.random(len(pool)) < keep)
    return replace(built, pool=replace(pool, selectable=pool.selectable & stays))


def with_policy(built: BuiltPool, samples: Iterable[Comparison]) -> BuiltPool:
    """The pool with the features of the current policy's answers as the pool's target."""
    codes: dict[str, int] = {}
    answers = [
        Answer(r.prompt, c.text, codes.setdefault(prompt_hash(r.prompt), len(codes)), False, r.domain, c.meta)
        for r in samples
        for c in r.completions
    ]
    if not answers:
        raise ValueError("task.policy names a file without completions")
    prompts = np.array([a.group for a in answers])
    pool = replace(built.pool, target=built.features(answers), target_prompt=prompts)
    return replace(built, pool=pool, policy=answers)


def on_pair(record: Comparison, i: int, j: int) -> list[Vote]:
    """The record's votes on completions i and j, gold checks left out; rankings and ratings become choices."""
    a, b = record.completions[i].id, record.completions[j].id
    votes = []
    for vote in record.votes:
        level = levels(vote)
        if vote.gold or a not in level or b not in level:
            continue
        if vote.pair is not None:
            p = vote.p if vote.p is None or vote.pair == (a, b) else 1 - vote.p
            votes.append(replace(vote, pair=(a, b), p=p))
        else:
            choice = "tie" if level[a] == level[b] else (a if level[a] > level[b] else b)
            votes.append(replace(vote, pair=(a, b), choice=choice, ranking=None, likert=None))
    return votes
