"""What a report is made of: sections, each a pure function of what was measured.

A section carries its words, its flat numbers, its tables and its figures; `rlhf.evaluation.report.write` puts any
list of sections into report.json, report.html, figures/*.png and W&B. A section is added by writing one more
function `(evaluation) -> Section | None` (None: there is nothing to say about this set) and naming it in
conf/evaluate.yaml under `sections`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlhf.evaluation.metrics.scored import Results
from rlhf.evaluation.score_source import ScoreSource
from rlhf.records import Comparison
from rlhf.stats.arrays import Floats
from rlhf.stats.bootstrap import SHARE, Estimate, ResampleOptions, cluster_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Cell = str | float | int | None
"""A number is printed as `number` does, a whole number as it is, None as a dash."""
ENDS = ("", "/ci_low", "/ci_high")
"""What the keys of a number and of its 95 % interval end in."""


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
    unit         what `results.scored.prompt` numbers and intervals resample: prompts, or groups of them
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
    unit: str = "prompt"
    samples: int = 1000
    seed: int = 0

    @property
    def runs_inside(self) -> tuple[str, ...]:
        """The runs that the evaluated model is the mean of, each divided by its own temperature; () for one model."""
        names = self.results.member_names
        return tuple(n for n in names if n in self.temperatures) if len(names) > 1 else ()

    @property
    def resamples(self) -> ResampleOptions:
        """The options of every interval: `samples` and `seed`."""
        return {"samples": self.samples, "seed": self.seed}

    def pair_mean(self, values: Floats, *, within: tuple[float, float] = SHARE) -> Estimate:
        """Mean of values [P] of the pairs, with its interval; NaN does not count."""
        return cluster_mean(values, self.results.scored.pair_prompt, within=within, **self.resamples)


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns.

    title    says what is in it
    columns  headings, one per cell of a row; the first column names the row
    rows     the cells
    note     one sentence under the table, or ""
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"table '{self.title}': {wrong[0]} does not fit the columns {self.columns}")


@dataclass(frozen=True)
class Figure:
    """A figure that draws itself on an empty matplotlib canvas when the report is written.

    name     file name without extension: figures/<name>.png
    caption  what to see in it, in one or two sentences; also its alternative text
    draw     `(canvas) -> None`; adds axes to the canvas
    """

    name: str
    caption: str
    draw: Callable[[Canvas], None]


@dataclass(frozen=True)
class Section:
    """One section of the report.

    title    heading
    text     plain paragraphs, separated by empty lines: what was found, with its uncertainty
    metrics  flat keys of report.json; a key belongs to one section
    tables, figures  shown under the text
    """

    title: str
    text: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


def ranged(value: float | None, low: float | None, high: float | None) -> str | None:
    """A number with its interval as one cell; None for a number that is not known."""
    if value is None or not math.isfinite(value):
        return None
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def estimate(metrics: Mapping[str, float], key: str) -> Estimate:
    """The metric `key` with its interval; NaN for what is not among them."""
    return Estimate(*(metrics.get(f"{key}{end}", math.nan) for end in ENDS))


def cell(metrics: Mapping[str, float], key: str) -> str | None:
    """The metric `key` with its interval as one cell; None where it is not among them."""
    return ranged(*estimate(metrics, key))


def known(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that are finite: what is not known has no key."""
    return {key: value for key, value in metrics.items() if math.isfinite(value)}


def number(value: float) -> str:
    """Three decimals; one from 10 on, none from 1000 on."""
    size = abs(value)
    shown = f"{value:.{3 if size < 10 else 1 if size < 1000 else 0}f}"
    return shown.removeprefix("-") if float(shown) == 0 else shown


def printed(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return "–"
    return number(cell) if isinstance(cell, float) else str(cell)


def p_value(value: float) -> str | None:
    """A p-value as a cell; None for no test."""
    if not math.isfinite(value):
        return None
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def as_key(name: str) -> str:
    """A name as a part of a key: no spaces, no slashes."""
    return name.replace(" ", "_").replace("/", "_")


def plain(name: str) -> str:
    """A part of a key as people read it."""
    return name.replace("_", " ")


def flat(sections: Iterable[Section]) -> dict[str, float]:
    """All metrics in the order of their keys. Raises ValueError where two sections give the same key."""
    found: dict[str, float] = {}
    for section in sections:
        twice = found.keys() & section.metrics.keys()
        if twice:
            raise ValueError(f"section '{section.title}' repeats the keys {sorted(twice)}")
        found |= section.metrics
    return dict(sorted(found.items()))
