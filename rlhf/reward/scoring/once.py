"""Every distinct text scored once: a text that comes again, in the same call or a later one, is looked up.

Two texts are the same when the tokens of their prompts and their own are equal. New texts of one prompt go to the
engine as one group, so that a causal model reads the prompt once.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch

from rlhf.data.distinct import key_of
from rlhf.data.render import Encoded
from rlhf.reward.scoring.engine import GroupScores, ScoringEngine

MOST = 20_000
"""Texts that are remembered; the ones that were not asked for longest are forgotten first."""


class ScoreMemo:
    """Scores groups through an engine, each distinct text once.

    Args:
        engine: its model must not change meanwhile.
        most: texts that are remembered between calls.
    """

    def __init__(self, engine: ScoringEngine, most: int = MOST) -> None:
        self.engine, self.most = engine, most
        self.known: OrderedDict[int, GroupScores] = OrderedDict()
        self.completions = self.encodings = 0

    def score(self, groups: Sequence[Encoded]) -> list[GroupScores]:
        """Scores of every group's completions, in the order of the groups. Counts what was asked and what was read."""
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
            for n, key in enumerate(new):
                one = slice(n, n + 1)
                self.known[key] = GroupScores(scores.reward[one], scores.members[..., one], scores.states[one])

    def _of(self, keys: Sequence[int]) -> GroupScores:
        if not keys:
            return next(self.engine.score([Encoded([], [], [], 0, 0)]))
        for key in keys:
            self.known.move_to_end(key)
        parts = [self.known[key] for key in keys]
        return GroupScores(
            torch.cat([p.reward for p in parts]), torch.cat([p.members for p in parts], -1),
            torch.cat([p.states for p in parts]),
        )  # fmt: skip
