"""Records to a pool of pairs: which pairs can be labelled, which test pairs evaluate, and the task of each pair.

Pairs of training prompts are the pool, pairs of test prompts the test; validation prompts are in neither.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from rlhf.data.source import RecordSource
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
    source: RecordSource, splitter: Splitter, features: Features, eval_aggregation: Aggregation, *, only_voted: bool
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
    table, ids = PairTable(), dict[str, None]()
    held_back: list[list[Vote]] = []
    shares: list[float] = []
    evaluation: list[tuple[str, Comparison]] = []
    for record in source.records():
        split = splitter.split_of(record)
        for place in range(len(record.completions)):
            # all answers get features, whatever their split, so that equal data has equal cached embeddings
            table.row(record, place, split == "train")
        if split != "train":
            evaluation.append((split, record))
        for i, j, votes, win in _entries(record, split, eval_aggregation, only_voted):
            name = table.add(record, i, j)
            ids[name if name not in ids else f"{name}#{len(ids)}"] = None
            held_back.append(votes)
            shares.append(win)
    share = np.array(shares)
    pooled = np.isnan(share)
    if not pooled.any() or pooled.all():
        raise ValueError(
            f"{int(pooled.sum())} pairs for the pool and {int((~pooled).sum())} test pairs with votes: both are "
            "needed; look at split.val and split.test, and at the votes of the data"
        )
    cost = np.array([float(record.meta.get("cost", 1.0)) for record, _, _ in table.pairs])
    pool = table.pool(features, list(ids), pooled, cost=cost)
    records = list({id(record): record for record, _, _ in table.pairs}.values())
    number = {id(record): n for n, record in enumerate(records)}
    places = np.array([(number[id(record)], i, j) for record, i, j in table.pairs])
    test = np.flatnonzero(~pooled)
    domains = tuple(pool.domains or ())
    return BuiltPool(pool, records, places, held_back, test, share[test], domains, features, table.answers, evaluation)


def _entries(
    record: Comparison, split: str, label_of: Aggregation, only_voted: bool
) -> Iterator[tuple[int, int, list[Vote], float]]:
    """A record's pairs with their votes (of the pool), or with the first one's share of the votes (of the test)."""
    if split == "train":
        voted = ((i, j, on_pair(record, i, j)) for i, j in different(record))
        yield from ((i, j, votes, math.nan) for i, j, votes in voted if votes or not only_voted)
    elif split == "test":
        label = label_of(record)
        yield from ((i, j, [], float(label.win_prob[i, j])) for i, j in different(record) if label.observed[i, j])


@dataclass
class PairTable:
    """Pairs of answers while records are read: a row per pair, and every different answer to a prompt once."""

    pairs: list[tuple[Comparison, int, int]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    sides: list[tuple[int, int]] = field(default_factory=list)
    _rows: dict[tuple[int, str], int] = field(default_factory=dict)
    _prompts: dict[str, int] = field(default_factory=dict)

    def row(self, record: Comparison, place: int, train: bool = True) -> int:
        """The row of a completion among the answers; a new one is added."""
        prompt = self._prompts.setdefault(prompt_hash(record.prompt), len(self._prompts))
        completion = record.completions[place]
        row = self._rows.setdefault((prompt, completion.text), len(self.answers))
        if row == len(self.answers):
            answer = Answer(record.prompt, completion.text, prompt, train, record.domain, completion.meta)
            self.answers.append(answer)
        return row

    def add(self, record: Comparison, i: int, j: int) -> str:
        """Add a pair of a record's completions; its name."""
        self.pairs.append((record, i, j))
        self.sides.append((self.row(record, i), self.row(record, j)))
        return f"{record.prompt_id}/{record.completions[i].id}/{record.completions[j].id}"

    def pool(self, features: Features, ids: Sequence[str], selectable: Bools, **columns: Any) -> PairPool:
        """The pool, with further columns of `PairPool`."""
        left, right = np.array(self.sides).T
        given = [record.domain for record, _, _ in self.pairs]
        domains = tuple(sorted({d for d in given if d is not None}))
        return PairPool(
            features(self.answers), left, right, np.array(ids),
            np.array([self.answers[row].group for row in left]),
            domain=np.array([-1 if d is None else domains.index(d) for d in given]),
            length=np.array([len(a.text) for a in self.answers], float),
            selectable=selectable, domains=domains, **columns,
        )  # fmt: skip


def different(record: Comparison) -> Iterator[tuple[int, int]]:
    """Pairs of a record's completions whose texts differ: elsewhere there is nothing to prefer."""
    texts = [c.text for c in record.completions]
    return ((i, j) for i, j in combinations(range(len(texts)), 2) if texts[i] != texts[j])


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
