"""Everything measured on one set, as flat columns of numbers: what every section of a report reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rlhf.evaluation.metrics.scored import Scored
from rlhf.evaluation.score_source import ScoreSource
from rlhf.records import Comparison
from rlhf.stats.arrays import Bools, Floats, Ints


@dataclass(frozen=True)
class Evidence:
    """A scored set (G groups, N completions, P judged pairs) and what else is known about it.

    scored     labels and the one reward of the judged model; every column below follows its order
    record     [G], number of the record in the data; with `place` the key of a completion
    place      [N], place of the completion in its record
    prompt_id  [G], completion_id [N], prompt_hash [G]: as the data names them
    source     [N], code of who wrote the completion into `sources`; -1 = not said
    annotators [G], code of who voted into `annotator_sets` (tuples of names)
    tokens     [N], trimmed [G], finished [N] (False where the data says an answer was cut)
    gold       [N], known gold reward (`meta.gold` of a completion), NaN where there is none
    members    [M, N], rewards of the members on one scale (M = 1: no ensemble), named by `member_names`
    strange    detector -> [N], higher = stranger
    others     name of another judged model -> [N], its rewards on the same completions
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
    strange: Mapping[str, Floats] = field(default_factory=dict)
    others: Mapping[str, Floats] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """What a section function gets: `(judged) -> Section | None`.

    name         of the judged model
    evidence     the set it is judged on
    shifts       name -> the same model on a shifted set; records keep their numbers where the shift is a change
                 of the texts
    probes       name -> the same records with changed answers
    temperature  of the judged model's reward differences; `temperatures` of it, runs in it, and the others by name
                 (a run in an ensemble has been divided by its own already: its row of `evidence.members` is log-odds)
    uncalibrated names of the models whose temperature is 1 because there was nothing to fit it on
    models       the sources themselves, for sections that score something of their own (benchmarks)
    metrics      of `rlhf.evaluation.metrics.metrics.evaluate`: the contract's keys, which the first section puts into the report
    look_up      numbers of records -> the records themselves, read again
    part         which part of the data this is
    samples, seed  of the bootstrap
    """

    name: str
    evidence: Evidence
    temperature: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    temperatures: Mapping[str, float] = field(default_factory=dict)
    uncalibrated: frozenset[str] = frozenset()
    shifts: Mapping[str, Evidence] = field(default_factory=dict)
    probes: Mapping[str, Evidence] = field(default_factory=dict)
    models: Sequence[ScoreSource] = ()
    look_up: Callable[[Collection[int]], Mapping[int, Comparison]] = lambda _: {}
    part: str = "test"
    samples: int = 1000
    seed: int = 0

    @property
    def runs_inside(self) -> tuple[str, ...]:
        """The runs that the judged model is the mean of, each divided by its own temperature; () for one model."""
        names = self.evidence.member_names
        return tuple(n for n in names if n in self.temperatures) if len(names) > 1 else ()
