"""What every study is: worlds that are measured one by one, and what is found over them, with intervals."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from rlhf.evaluation.sweep_table import SWEEP_METRICS_FILE
from rlhf.records import RecordError
from rlhf.records.tables import markdown, write_csv
from rlhf.stats.bootstrap import SAME, cluster_bootstrap

FEW = 5
"""With fewer worlds a table says that its intervals are not to be trusted."""
Row = dict[str, float]
"""What was measured in one world; all worlds of a study have the same keys."""


@dataclass(frozen=True)
class Findings:
    """What a study found.

    metrics  flat keys; a mean over worlds has `<key>/ci_low` and `<key>/ci_high` beside it (95%)
    sweep_metrics  the few keys that the jobs of a sweep are compared by
    columns, rows  the table, cells as they are printed
    figure   to be saved
    """

    metrics: Row
    sweep_metrics: list[str]
    columns: list[str]
    rows: list[list[str]]
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class Study(ABC):
    """One claim on reward models learned from votes, and the settings of every study.

    name       of the files: `<name>.md`, `<name>.png`
    worlds     how many; they are independent, world i is that of seed `seed + i`
    votes      training pairs per world, one vote each
    steps      of training
    members    of the ensemble
    seed       of the first world
    bootstrap  resamples of worlds behind every interval

    Raises:
        RecordError: a setting out of its range.
    """

    name: ClassVar[str]
    worlds: int
    votes: int
    steps: int
    members: int
    seed: int
    bootstrap: int

    def __post_init__(self) -> None:
        for key, least in (("worlds", 1), ("votes", 2), ("steps", 1), ("members", 2)):
            whole(key, getattr(self, key), least)

    @abstractmethod
    def one(self, seed: int) -> Row:
        """Measure one world."""

    @abstractmethod
    def found(self, rows: Sequence[Row]) -> Findings:
        """What holds over the worlds."""


@dataclass(frozen=True)
class StudyRun:
    """The task `study`: what to measure, where its files go, and the trainer whose loggers get the numbers."""

    study: Study
    folder: Path
    trainer: Any


def run_study(run: StudyRun) -> dict[str, float]:
    """Measure every world, write what is found, and log both; W&B has the table and the figure beside them."""
    study, loggers = run.study, run.trainer.loggers

    def log(row: Row, step: int) -> None:
        for logger in loggers:
            logger.log_metrics(row, step=step)
        print(f"world {step + 1} of {study.worlds}", flush=True)

    found = measure(study, run.folder, log)
    for logger in loggers:
        logger.log_metrics(found.metrics, step=study.worlds)
        if hasattr(logger, "log_table"):
            names = [c if found.columns.index(c) == i else f"{c} {i}" for i, c in enumerate(found.columns)]
            logger.log_table(f"tables/{study.name}", columns=names, data=list(found.rows))
            logger.log_image(f"figures/{study.name}", [str(run.folder / f"{study.name}.png")])
    print((run.folder / f"{study.name}.md").read_text())
    return found.metrics


def measure(study: Study, folder: Path, log: Callable[[Row, int], None] = lambda row, step: None) -> Findings:
    """Measure all worlds; leaves worlds.csv (a row per world), metrics.json, headline.json, the table, the figure.

    Args:
        study: what to measure.
        folder: of the results; made where it is missing.
        log: called with what was measured in each world, keys `world/...`, and its number from 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for number in range(study.worlds):
        rows.append(study.one(study.seed + number))
        write_csv(folder / "worlds.csv", [{"seed": study.seed + n} | row for n, row in enumerate(rows)])
        log({f"world/{key}": value for key, value in rows[-1].items()}, number)
    found = study.found(rows)
    (folder / "metrics.json").write_text(json.dumps(found.metrics, indent=2) + "\n", encoding="utf-8")
    shown = [f"{key}{end}" for key in found.sweep_metrics for end in ("", "/ci_low", "/ci_high")]
    sweep_metrics = [key for key in shown if key in found.metrics]
    (folder / SWEEP_METRICS_FILE).write_text(json.dumps(sweep_metrics) + "\n", encoding="utf-8")
    page = f"{markdown(found.columns, found.rows)}\n{words(study.worlds)}\n"
    (folder / f"{study.name}.md").write_text(page, encoding="utf-8")
    found.figure.savefig(folder / f"{study.name}.png", dpi=120)
    return found


def over_worlds(rows: Sequence[Row], *, bootstrap: int) -> Row:
    """Mean of every key over the worlds, with `/ci_low` and `/ci_high` (95%, worlds resampled).

    Both are left out where there is one world only, or all worlds gave the same value: nothing is known about the
    spread then.
    """
    keys = list(rows[0])
    values = np.array([[row[key] for key in keys] for row in rows])
    low, high = cluster_bootstrap(values, np.ones_like(values), samples=bootstrap, seed=0)
    low, high = (np.where(high - low < SAME, np.nan, ends) for ends in (low, high))
    out: Row = {}
    for key, *three in zip(keys, values.mean(0), low, high, strict=True):
        named = zip((key, f"{key}/ci_low", f"{key}/ci_high"), map(float, three), strict=True)
        out |= {name: value for name, value in named if math.isfinite(value)}
    return out


def words(worlds: int) -> str:
    """Under a table: over how many worlds its means are, and what that is worth."""
    several = f"Means over {worlds} world{'s' * (worlds > 1)}"
    if worlds == 1:
        return f"{several}: no interval, and nothing is known about other worlds."
    few = f" {worlds} are too few to trust an interval." if worlds < FEW else ""
    return f"{several} with 95% intervals (worlds resampled); none where all worlds gave the same value.{few}"


def cell(metrics: Mapping[str, float], key: str, digits: int = 3, sign: str = "", *, ends: str = "ci_") -> str:
    """`mean [low, high]` of a key; the mean alone where it has no interval.

    Args:
        metrics: with `<key>/<ends>low` and `<key>/<ends>high` beside `key`.
        key: of the mean.
        digits: after the point.
        sign: "+" shows that of the mean too.
        ends: what the names of the ends begin with.
    """
    shown = f"{metrics[key]:{sign}.{digits}f}"
    if f"{key}/{ends}low" not in metrics:
        return shown
    return f"{shown} [{metrics[f'{key}/{ends}low']:.{digits}f}, {metrics[f'{key}/{ends}high']:.{digits}f}]"


def ends_of(metrics: Mapping[str, float], key: str) -> list[float]:
    """The ends of a key's interval; twice its mean where it has none."""
    return [metrics.get(f"{key}/{end}", metrics[key]) for end in ("ci_low", "ci_high")]


def whole(key: str, value: object, least: int) -> None:
    """Refuse a setting that is no whole number from `least` on. Raises RecordError with the key."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _refusal(key, value, f"whole number from {least} on", least)


def within(key: str, value: object, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """Refuse a setting that is no number in low..high, or, where `above`, low itself. Raises RecordError."""
    if not isinstance(value, int | float) or not low <= value <= high or (above and value == low):
        said = f"above {low:g}" if above else f"from {low:g}" + (f" to {high:g}" if high < math.inf else " on")
        raise _refusal(key, value, f"number {said}", low)


def _refusal(key: str, value: object, wanted: str, least: float) -> RecordError:
    several = isinstance(value, list | tuple)
    remedy = "one number per run; `-m key=a,b` runs several" if several else f"a number such as {max(least, 1):g}"
    return RecordError(f"{value!r} is no {wanted}", key=f"task.study.{key}", remedy=remedy)
