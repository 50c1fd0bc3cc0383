"""A benchmark as a part of the report: every judged model, and the longer answer, on the benchmark's own files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np

from rlhf.judge.benchmarks.items import Benchmark, Item, items
from rlhf.judge.evidence import Judged
from rlhf.judge.score_source import ScoreSource
from rlhf.judge.section import Cell, Section, Table
from rlhf.judge.table import Floats
from rlhf.record_types import Comparison

BLOCK = 64
"""Records scored together; texts are forgotten after that."""

LENGTH = "the longer answer"


class Records(Protocol):
    """Where a benchmark's rows come from: a `rlhf.data.source.Source` with the benchmark's importer."""

    def records(self) -> Iterator[Comparison]:
        """The records from the start."""


class BenchmarkSection:
    """Scores a benchmark's rows with every model of a report.

    Keys: the benchmark's own for the judged model; `others/<name>/<key>` for the other models;
    `baseline/length/<key>` for a reward that is the answer's length. Rows with an answer that a model cannot read
    (too long) are left out for that model and counted in `<benchmark>/n_unread`.

    Args:
        name: heading, and the prefix of the benchmark's keys.
        benchmark: items to metrics, such as `rlhf.judge.benchmarks.rewardbench`.
        source: the benchmark's rows as records.
    """

    def __init__(self, name: str, benchmark: Benchmark, source: Records) -> None:
        self.name, self.benchmark, self.source = name, benchmark, source

    def __call__(self, judged: Judged) -> Section:
        """The section. Raises as the benchmark and the reading of its files do."""
        scored, unread = self.score(judged.models)
        options = {"bootstrap": judged.samples, "seed": judged.seed}
        found = {model: self.benchmark(rows, **options) for model, rows in scored.items()}
        for model, count in unread.items():
            found[model] |= {f"{self.name}/n_unread": count}
        metrics: dict[str, float] = {}
        for place, (model, values) in enumerate(found.items()):
            prefix = "" if place == 0 else "baseline/length/" if model == LENGTH else f"others/{model}/"
            metrics |= {prefix + key: value for key, value in values.items()}
        return Section(self.name, _text(self.name, found), metrics, [_table(self.name, found)])

    def score(self, models: Sequence[ScoreSource]) -> tuple[dict[str, list[Item]], dict[str, int]]:
        """Items by model, `LENGTH` last, and how many rows each model could not read.

        Raises:
            ValueError: no model, or one that can read no row.
        """
        if not models:
            raise ValueError("a benchmark needs a model to judge")
        scored: dict[str, list[Item]] = {name: [] for name in (*(model.name for model in models), LENGTH)}
        total, stream = 0, self.source.records()
        while block := list(islice(stream, BLOCK)):
            total += len(block)
            for model in models:
                rewards = [scores.reward for scores in model.score(block)]
                read = [(r, x) for r, x in zip(block, rewards, strict=True) if np.isfinite(x).all()]
                scored[model.name] += items(read)
            scored[LENGTH] += items((record, _lengths(record)) for record in block)
        for name, rows in scored.items():
            if total and not rows:
                raise ValueError(
                    f"{name} can read none of the {total} rows of {self.name}: max_length is too small"
                )
        return scored, {model.name: total - len(scored[model.name]) for model in models}


def _lengths(record: Comparison) -> Floats:
    return np.array([len(c.text) for c in record.completions], dtype=np.float64)


def _rows(name: str, found: dict[str, float]) -> list[str]:
    """Keys of accuracies, score first."""
    hidden = ("strict", "ci_low", "ci_high", "tie_rate", "margin", "n")
    last = {key: key.rpartition("/")[2] for key in found}
    keys = [key for key in found if last[key] not in hidden and not last[key].startswith("n_")]
    return sorted(keys, key=lambda k: k != f"{name}/score")


def _table(name: str, found: dict[str, dict[str, float]]) -> Table:
    first, *others = found
    rows: list[list[Cell]] = []
    for key in _rows(name, found[first]):
        values = found[first]
        low, high = values.get(f"{key}/ci_low"), values.get(f"{key}/ci_high")
        interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        cells = [found[other].get(key) for other in others]
        label = key.removeprefix(f"{name}/")
        rows.append([label, f"{values[key]:.3f}{interval}", values.get(f"{key}/strict"), *cells])
    return Table(name, ["", first, "ties count nothing", *others], rows, "Equal rewards get half the credit, or their "
                 "share of the pick; 95% intervals resample prompts.")  # fmt: skip


def _text(name: str, found: dict[str, dict[str, float]]) -> str:
    first = next(iter(found))
    values = found[first]
    said = [
        f"{int(values[f'{name}/n'])} rows; equal rewards in {values[f'{name}/tie_rate']:.3f} of the comparisons."
    ]
    if f"{name}/score" in values:
        said.append(
            f"Score {values[f'{name}/score']:.3f}; the longer answer {found[LENGTH][f'{name}/score']:.3f}."
        )
    else:
        said.append("Parts are missing, so there is no overall score.")
    if values[f"{name}/n_unread"]:
        said.append(f"{int(values[f'{name}/n_unread'])} rows are too long for the model and left out.")
    return " ".join(said)
