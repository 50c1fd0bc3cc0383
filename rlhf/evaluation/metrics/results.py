"""Everything measured on one set, as flat columns of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlhf.evaluation.metrics.scored import Scored
from rlhf.stats.arrays import Bools, Floats, Ints


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
