"""A benchmark as a section of the report: every evaluated model, and the longer answer, on the benchmark's files."""

from collections.abc import Sequence
from itertools import islice

import numpy as np

from rlhf.data.source import RecordStream
from rlhf.evaluation.benchmarks.items import Benchmark, BenchmarkItem, items
from rlhf.evaluation.report.section import Cell, Evaluation, Section, Table, as_key, cell
from rlhf.evaluation.score_source import ScoreSource
from rlhf.records import Comparison
from rlhf.stats.arrays import Floats

BLOCK = 64
"""Records scored together; texts are forgotten after that."""

LENGTH = "the longer answer"


class BenchmarkSection:
    """A benchmark's scores of every model of a report.

    Keys: the benchmark's own for the evaluated model; `others/<name>/<key>` for the other models;
    `baseline/length/<key>` for a reward that is the answer's length. Rows with an answer that a model cannot read
    (too long), or that scoring dropped, are left out for that model and counted in `<benchmark>/n_left_out`.

    Args:
        name: heading, and the prefix of the benchmark's keys.
        benchmark: items to metrics, such as `rlhf.evaluation.benchmarks.rewardbench`.
        source: the benchmark's rows as records; None = the evaluated data are the benchmark's.
    """

    def __init__(self, name: str, benchmark: Benchmark, source: RecordStream | None = None) -> None:
        self.name, self.benchmark, self.source = name, benchmark, source

    def __call__(self, evaluation: Evaluation) -> Section:
        """The section. Raises as the benchmark and the reading of its files do."""
        total, scored = self._read(evaluation) if self.source is None else self._score(self.source, evaluation.models)
        found: dict[str, dict[str, float]] = {}
        for name, rows in scored.items():
            if total and not rows:
                raise ValueError(f"{name} can read none of the {total} rows of {self.name}: max_length is too small")
            found[name] = self.benchmark(rows, bootstrap=evaluation.samples, seed=evaluation.seed)
            found[name][f"{self.name}/n_left_out"] = total - len(rows)
        first = next(iter(found))
        metrics: dict[str, float] = {}
        for name, values in found.items():
            other = "baseline/length/" if name == LENGTH else f"others/{as_key(name)}/"
            metrics |= {("" if name == first else other) + key: value for key, value in values.items()}
        return Section(self.name, _text(self.name, found), metrics, [_table(self.name, found)])

    def _score(self, source: RecordStream, models: Sequence[ScoreSource]) -> tuple[int, dict[str, list[BenchmarkItem]]]:
        """How many rows there are, and the items of every model, `LENGTH` last."""
        scored: dict[str, list[BenchmarkItem]] = {name: [] for name in (*(model.name for model in models), LENGTH)}
        total, stream = 0, source.records()
        while block := list(islice(stream, BLOCK)):
            total += len(block)
            for model in models:
                rewards = [scores.reward for scores in model.score(block)]
                read = [(r, x) for r, x in zip(block, rewards, strict=True) if np.isfinite(x).all()]
                scored[model.name] += items(read)
            scored[LENGTH] += items((record, _lengths(record)) for record in block)
        return total, scored

    def _read(self, evaluation: Evaluation) -> tuple[int, dict[str, list[BenchmarkItem]]]:
        """The same from rewards that the report has already."""
        results = evaluation.results
        records = evaluation.look_up(results.record.tolist())
        columns = {evaluation.name: results.scored.reward, **results.others, LENGTH: results.scored.length}
        starts = np.searchsorted(results.scored.group, np.arange(len(results.record) + 1))
        whole = [
            (records[number], slice(*starts[g : g + 2]), results.place[slice(*starts[g : g + 2])])
            for g, number in enumerate(results.record.tolist())
            if len(records[number].completions) == starts[g + 1] - starts[g]
        ]
        scored = {
            name: list(items((record, column[rows][np.argsort(place)]) for record, rows, place in whole))
            for name, column in columns.items()
        }
        return results.counts.get("records", len(results.record)), scored


def _lengths(record: Comparison) -> Floats:
    return np.array([len(c.text) for c in record.completions], dtype=np.float64)


def _rows(name: str, found: dict[str, float]) -> list[str]:
    """Keys of accuracies, score first."""
    hidden = ("strict", "ci_low", "ci_high", "tie_rate", "margin", "n")
    last = {key: key.rpartition("/")[2] for key in found}
    shown = [key for key in found if not key.startswith(f"{name}/n/")]
    keys = [key for key in shown if last[key] not in hidden and not last[key].startswith("n_")]
    return sorted(keys, key=lambda k: k not in (f"{name}/score", f"{name}/partial_score"))


def _table(name: str, found: dict[str, dict[str, float]]) -> Table:
    first, *others = found
    values = found[first]
    rows: list[list[Cell]] = [
        [key.removeprefix(f"{name}/"), cell(values, key), values.get(f"{key}/strict"),
         *(found[other].get(key) for other in others)]
        for key in _rows(name, values)
    ]  # fmt: skip
    note = "Equal rewards get half the credit, or their share of the pick; 95% intervals resample prompts."
    return Table(name, ["", first, "ties count nothing", *others], rows, note)


def _text(name: str, found: dict[str, dict[str, float]]) -> str:
    values = next(iter(found.values()))
    ties, left_out = values[f"{name}/tie_rate"], int(values[f"{name}/n_left_out"])
    said = [
        f"{int(values[f'{name}/n'])} rows; equal rewards in {ties:.3f} of the comparisons.",
        _overall(name, values, found[LENGTH]),
    ]
    if left_out:
        said.append(f"{left_out} rows are left out: too long for the model, or dropped.")
    return " ".join(said)


def _overall(name: str, values: dict[str, float], by_length: dict[str, float]) -> str:
    """The score, or which parts are missing."""
    key, partial = f"{name}/score", f"{name}/partial_score"
    longer = {k: f"; the longer answer {by_length[k]:.3f}" if k in by_length else "" for k in (key, partial)}
    if key in values:
        return f"Score {values[key]:.3f}{longer[key]}."
    absent = [k.removeprefix(f"{name}/n/") for k, n in values.items() if k.startswith(f"{name}/n/") and not n]
    said = f"Parts are missing, so there is no overall score. Without rows: {', '.join(absent)}."
    if partial in values:
        said += f" The mean over what is there, {values[partial]:.3f}{longer[partial]}, is no published score."
    return said
