"""A scored set as flat columns of numbers: what every metric reads. Texts are gone, memory holds scalars only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """One prompt with K scored completions; matrices [K, K] as in `rlhf.annotate.label.Label`."""

    prompt: str
    domain: str | None
    reward: Floats
    length: NDArray[np.number]
    rank: NDArray[np.number]
    win_prob: Floats
    tie_prob: Floats
    observed: NDArray[np.bool_]
    votes: Floats


@dataclass(frozen=True)
class Scored:
    """G groups, N completions, P judged pairs (first before second in the stored order).

    per completion [N]  group, reward, length (characters), rank (-1 = not ranked)
    per group [G]       prompt (code of the prompt: groups may share one), domain (code, -1 = none)
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

    @classmethod
    def from_groups(cls, groups: Iterable[ScoredGroup]) -> Scored:
        """Columns of the groups, in their order."""
        prompts: dict[str, int] = {}
        domains: dict[str, int] = {}
        columns: dict[str, list[NDArray[np.generic]]] = {
            k: []
            for k in ("group", "reward", "length", "rank", "first", "second", "win_prob", "tie_prob", "votes")
        }
        prompt, domain, start = [], [], 0
        for number, g in enumerate(groups):
            i, j = np.nonzero(np.triu(g.observed, 1))
            parts = {
                "group": np.full(len(g.reward), number), "reward": g.reward, "length": g.length, "rank": g.rank,
                "first": i + start, "second": j + start, "win_prob": g.win_prob[i, j],
                "tie_prob": g.tie_prob[i, j], "votes": g.votes[i, j],
            }  # fmt: skip
            for name, part in parts.items():
                columns[name].append(np.asarray(part))
            prompt.append(prompts.setdefault(g.prompt, len(prompts)))
            domain.append(-1 if g.domain is None else domains.setdefault(g.domain, len(domains)))
            start += len(g.reward)

        def ints(name: str) -> Ints:
            return np.concatenate([np.zeros(0), *columns[name]]).astype(np.int64)

        def floats(name: str) -> Floats:
            return np.concatenate([np.zeros(0), *columns[name]]).astype(np.float64)

        return cls(
            group=ints("group"),
            reward=floats("reward"),
            length=floats("length"),
            rank=ints("rank"),
            prompt=np.array(prompt, dtype=np.int64),
            domain=np.array(domain, dtype=np.int64),
            first=ints("first"),
            second=ints("second"),
            win_prob=floats("win_prob"),
            tie_prob=floats("tie_prob"),
            votes=floats("votes"),
            domains=tuple(domains),
        )

    @property
    def difference(self) -> Floats:
        """Reward of the first less reward of the second, per pair [P]."""
        return self.reward[self.first] - self.reward[self.second]

    @property
    def pair_prompt(self) -> Ints:
        """Code of the prompt of every pair [P]: the cluster that intervals resample."""
        return self.prompt[self.group[self.first]]

    @property
    def pair_domain(self) -> Ints:
        """Code of the domain of every pair [P]; -1 = none."""
        return self.domain[self.group[self.first]]
