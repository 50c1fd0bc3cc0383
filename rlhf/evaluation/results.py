"""What every section of a report reads: the results of a model on its set, and on shifted and changed ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rlhf.evaluation.metrics.results import Results
from rlhf.evaluation.score_source import ScoreSource
from rlhf.records import Comparison


@dataclass(frozen=True)
class Evaluation:
    """What a section function gets: `(evaluation) -> Section | None`.

    name         of the evaluated model
    results      the set it is evaluated on
    shifts       name -> the same model on a shifted set; records keep their numbers where the shift is a change
                 of the texts
    probes       name -> the same records with changed answers
    temperature  of the evaluated model's reward differences; `temperatures` of it, runs in it, and the others by name
                 (a run in an ensemble has been divided by its own already: its row of `results.members` is log-odds)
    uncalibrated names of the models whose temperature is 1 because there was nothing to fit it on
    models       the sources themselves, for sections that score something of their own (benchmarks)
    metrics      of `rlhf.evaluation.metrics.metrics.evaluate`: the contract's keys, which the first section puts into
                 the report
    look_up      numbers of records -> the records themselves, read again
    part         which part of the data this is
    samples, seed  of the bootstrap
    """

    name: str
    results: Results
    temperature: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    temperatures: Mapping[str, float] = field(default_factory=dict)
    uncalibrated: frozenset[str] = frozenset()
    shifts: Mapping[str, Results] = field(default_factory=dict)
    probes: Mapping[str, Results] = field(default_factory=dict)
    models: Sequence[ScoreSource] = ()
    look_up: Callable[[Collection[int]], Mapping[int, Comparison]] = lambda _: {}
    part: str = "test"
    samples: int = 1000
    seed: int = 0

    @property
    def runs_inside(self) -> tuple[str, ...]:
        """The runs that the evaluated model is the mean of, each divided by its own temperature; () for one model."""
        names = self.results.member_names
        return tuple(n for n in names if n in self.temperatures) if len(names) > 1 else ()
