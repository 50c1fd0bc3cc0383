"""A scored set as flat columns of numbers: what every metric reads. Texts are gone, memory holds scalars only."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.stats.arrays import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """One prompt with K scored completions; matrices [K, K] as in `rlhf.labels.label.Label`.

    prompt    key of the prompt; groups with the same key are one cluster for the intervals
    domain    None where the record has none
    reward    [K], length [K] (characters or tokens), rank [K] (0 = best, equal = tied, -1 = not ranked)
    win_prob  [K, K], tie_prob [K, K], observed [K, K], votes [K, K]
    """

    prompt: str
    domain: str | None
    reward: Floats
    length: NDArray[np.number]
    rank: NDArray[np.number]
    win_prob: Floats
    tie_prob: Floats
    observed: Bools
    votes: Floats


OF_GROUP, OF_ITEM = ("prompt", "domain"), ("reward", "length", "rank")
OF_PAIR = ("first", "second", "win_prob", "tie_prob", "votes")
WHOLE = ("size", *OF_GROUP, "rank", "first", "second")
"""Columns of a scored set; those that hold whole numbers."""


@lru_cache(maxsize=64)
def _above(size: int) -> Bools:
    """True above the diagonal."""
    return np.triu(np.ones((size, size), dtype=bool), 1)


@dataclass(frozen=True)
class Scored:
    """G groups, N completions, P labelled pairs (first before second in the stored order).

    per completion [N]  group, reward, length (characters or tokens), rank (-1 = not ranked)
    per group [G]       prompt (code of the prompt: groups may share one; what intervals resample, so that it may number
                        groups of prompts too), domain (code, -1 = none)
    per pair [P]        first, second (indices of completions), win_prob (of the first), tie_prob, votes
    domains             names behind the codes
    """

    group: Ints
    reward: Floats
    length: Floats
    rank: Ints
    prompt: Ints
    domain: Ints
    first: Ints
    second: Ints
    win_prob: Floats
    tie_prob: Floats
    votes: Floats
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        bad = np.flatnonzero(~np.isfinite(self.reward))
        if len(bad):
            raise ValueError(
                f"{len(bad)} of {len(self.reward)} rewards are NaN or infinite (first in group "
                f"{self.group[bad[0]]}): the training diverged; lower optimizer.build.lr or check the precision"
            )

    @classmethod
    def from_groups(cls, groups: Iterable[ScoredGroup]) -> Scored:
        """Columns of the groups, in their order.

        Raises:
            ValueError: a reward is not finite.
        """
        codes: dict[str, dict[str, int]] = {"prompt": {}, "domain": {}}
        columns: dict[str, array[float]] = {name: array("d") for name in ("size", *OF_GROUP, *OF_ITEM, *OF_PAIR)}
        start = 0
        for g in groups:
            i, j = np.nonzero(g.observed & _above(len(g.reward)))
            for name in OF_GROUP:
                key = getattr(g, name)
                columns[name].append(-1 if key is None else codes[name].setdefault(key, len(codes[name])))
            for name in OF_ITEM:
                columns[name].extend(getattr(g, name).tolist())
            pairs = {"first": i + start, "second": j + start} | {name: getattr(g, name)[i, j] for name in OF_PAIR[2:]}
            for name, values in pairs.items():
                columns[name].extend(values.tolist())
            columns["size"].append(len(g.reward))
            start += len(g.reward)
        found: dict[str, Any] = {
            name: np.asarray(v, dtype=np.int64 if name in WHOLE else np.float64) for name, v in columns.items()
        }
        sizes = found.pop("size")
        return cls(group=np.repeat(np.arange(len(sizes)), sizes), domains=tuple(codes["domain"]), **found)

    @property
    def difference(self) -> Floats:
        """Reward of the first less reward of the second, per pair [P]."""
        return self.reward[self.first] - self.reward[self.second]

    @property
    def better(self) -> Ints:
        """The completion of every pair [P] that the votes prefer; where they are even, the second."""
        return np.where(self.win_prob > 0.5, self.first, self.second)

    @property
    def worse(self) -> Ints:
        """The other completion of every pair [P]."""
        return np.where(self.win_prob > 0.5, self.second, self.first)

    @property
    def longer(self) -> Floats:
        """Length of the first less length of the second, per pair [P]."""
        return self.length[self.first] - self.length[self.second]

    @property
    def pair_group(self) -> Ints:
        """Group of every pair [P]."""
        return self.group[self.first]

    @property
    def pair_prompt(self) -> Ints:
        """Code of the prompt of every pair [P]: the cluster that intervals resample."""
        return self.prompt[self.pair_group]


@dataclass(frozen=True)
class Results:
    """A scored set (G groups, N completions, P labelled pairs) and what else is known about it.

    scored     labels and the one reward of the evaluated model; every column below follows its order
    record     [G], number of the record in the data; with `place` the key of a completion
    place      [N], place of the completion in its record
    prompt_id  [G], completion_id [N], prompt_hash [G]: as the data names them
    source     [N], code of who wrote the completion into `sources`; -1 = not said
    annotators [G], code of who voted into `annotator_sets` (tuples of names)
    tokens     [N], trimmed [G], finished [N] (False where the data says an answer was cut)
    gold       [N], known gold reward (`meta.gold` of a completion), NaN where there is none
    members    [M, N], rewards of the members on one scale (M = 1: no ensemble), named by `member_names`
    ood_scores detector -> [N], higher = farther out of distribution
    others     name of another evaluated model -> [N], its rewards on the same completions
    counts     what became of the records read: see `rlhf.evaluation.score_pass`
    """

    scored: Scored
    record: Ints
    place: Ints
    prompt_id: Sequence[str]
    completion_id: Sequence[str]
    prompt_hash: Sequence[str]
    source: Ints
    sources: tuple[str, ...]
    annotators: Ints
    annotator_sets: tuple[tuple[str, ...], ...]
    tokens: Floats
    trimmed: Bools
    finished: Bools
    gold: Floats
    members: Floats
    member_names: tuple[str, ...]
    ood_scores: Mapping[str, Floats] = field(default_factory=dict)
    others: Mapping[str, Floats] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
