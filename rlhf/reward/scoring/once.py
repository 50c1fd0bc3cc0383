"""Every distinct text scored once: a text that comes again, in the same call or a later one, is looked up.

Two texts are the same when the tokens of their prompts and their own are equal. New texts of one prompt are scored as
one group, so that a causal model reads the prompt once.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from rlhf.data.distinct import key_of
from rlhf.data.render import Encoded
from rlhf.reward.scoring.engine import GroupScores, joined

REMEMBERED = 20_000
"""Texts that are remembered, at most; the ones that were not asked for longest are forgotten first."""
NUMBERS = 2**24
"""Numbers in remembered states, at most: 64 MiB, which is 4,096 texts of a model of width 4,096."""
NOTHING = Encoded([], [], [], 0, 0)


class Engine(Protocol):
    """Scores groups of tokens: `ScoringEngine`, or the log-ratios of a policy."""

    def score(self, groups: Iterable[Encoded]) -> Iterator[GroupScores]:
        """Scores of every group's completions, in the order of the groups."""
        ...


class ScoreMemo:
    """Scores groups through an engine, each distinct text once.

    Args:
        engine: its model must not change meanwhile.
        most: texts that are remembered between calls.
    """

    def __init__(self, engine: Engine, most: int = REMEMBERED) -> None:
        self.engine, self.most = engine, most
        self.known: OrderedDict[int, GroupScores] = OrderedDict()
        self.completions = self.encodings = 0

    @property
    def counts(self) -> dict[str, int]:
        """Completions that were asked for, and those that the model read."""
        return {"completions": self.completions, "encodings": self.encodings}

    def score(self, groups: Sequence[Encoded]) -> list[GroupScores]:
        """Scores of every group's completions, in the order of the groups."""
        keys = [[key_of(g.prompt, r) for r in g.responses] for g in groups]
        self._read(groups, keys)
        found = [self._of(group) for group in keys]
        while len(self.known) > self.most:
            self.known.popitem(last=False)
        return found

    def _read(self, groups: Sequence[Encoded], keys: Sequence[Sequence[int]]) -> None:
        """Score what is new, prompt by prompt."""
        fresh: dict[tuple[int, ...], dict[int, list[int]]] = {}
        for group, own in zip(groups, keys, strict=True):
            self.completions += len(own)
            new = {k: r for k, r in zip(own, group.responses, strict=True) if k not in self.known}
            if new:
                fresh.setdefault(tuple(group.prompt), {}).update(new)
        asked = [Encoded(list(p), list(new.values()), list(range(len(new))), 0, 0) for p, new in fresh.items()]
        for new, scores in zip(fresh.values(), self.engine.score(asked), strict=True):
            self.encodings += len(new)
            self.most = min(self.most, NUMBERS // max(1, scores.states.shape[1]))
            # copies: a view would keep the whole batch in memory
            for n, key in enumerate(new):
                one = slice(n, n + 1)
                self.known[key] = GroupScores(
                    scores.reward[one].clone(), scores.members[..., one].clone(), scores.states[one].clone()
                )

    def _of(self, keys: Sequence[int]) -> GroupScores:
        if not keys:
            return next(iter(self.engine.score([NOTHING])))
        for key in keys:
            self.known.move_to_end(key)
        return joined([self.known[key] for key in keys])
