"""What each way from votes to answers gains in gold, at what KL, at what cost, how stably over seeds: one table."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rlhf.reward.files import write_json
from rlhf.studies.ablation import interval
from rlhf.studies.tradeoff_figure import draw
from rlhf.studies.tradeoff_methods import Method, TradeoffWorld, Untrained
from rlhf.toy.gold import ToyGold
from rlhf.toy.tabular_policy import TabularPolicy

COLUMNS = ("gold", "kl", "length", "samples", "per_answer", "seconds")
START = "reference"


def compare(
    methods: Mapping[str, Method],
    worlds: Sequence[TradeoffWorld],
    make: Callable[[ToyGold], TabularPolicy],
    folder: Path,
    *,
    contrasts: Sequence[tuple[str, str]] = (),
) -> dict[str, float]:
    """Every method on every world, each from the same start; intervals are 95%, over the worlds.

    Leaves tradeoff.csv (a row per run), tradeoff.md (a row per method, then the contrasts), tradeoff.png, metrics.json.

    Args:
        methods: name -> method.
        worlds: at least 2.
        make: the policy to start from.
        folder: of the results.
        contrasts: pairs of names whose gold is compared, paired by world.

    Returns:
        `<method>/<column>` with `/low`, `/high` (t); `/sd`: standard deviation of gold over worlds, with its interval
        (chi-square, so of normal gold); `/below`: share of worlds that end with less gold than they began with, with
        its interval (Clopper-Pearson); `<method> less <method>/gold`. `reference/...` is the start.

    Raises:
        ValueError: fewer than two worlds.
    """
    if len(worlds) < 2:
        raise ValueError(f"task.seeds={len(worlds)}: an interval needs at least 2")
    rows: list[dict[str, Any]] = []
    every: dict[str, Method] = {START: Untrained(), **methods}
    for world in worlds:
        for name, method in every.items():
            rows.append({"method": name, "seed": world.seed} | vars(method(world, make(world.gold))))
            _write(folder / "tradeoff.csv", rows)
    metrics = summary(rows, contrasts)
    names = (START, *methods)
    text = table(metrics, names, len(worlds)) + "\n" + contrast_table(metrics, contrasts)
    (folder / "tradeoff.md").write_text(text, encoding="utf-8")
    write_json(folder / "metrics.json", metrics)
    draw(folder / "tradeoff.png", metrics, golds(rows))
    return metrics


def golds(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Method -> gold, in the order of the worlds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row["gold"])
    return found


def summary(rows: Sequence[Mapping[str, Any]], contrasts: Sequence[tuple[str, str]]) -> dict[str, float]:
    """What `compare` returns, of its rows."""
    gold = golds(rows)
    metrics: dict[str, float] = {}
    for name, own in gold.items():
        for column in COLUMNS:
            metrics |= _with(f"{name}/{column}", interval([r[column] for r in rows if r["method"] == name]))
        metrics |= _with(f"{name}/sd", deviation(own))
        below = sum(mine < start for mine, start in zip(own, gold[START], strict=True))
        metrics |= _with(f"{name}/below", share(below, len(own)))
    for one, other in contrasts:
        apart = [a - b for a, b in zip(gold[one], gold[other], strict=True)]
        metrics |= _with(f"{one} less {other}/gold", interval(apart))
    return metrics


def deviation(values: Sequence[float]) -> tuple[float, float, float]:
    """Standard deviation (ddof 1) and the ends of its 95% interval, for normal values: (n - 1) s² / σ² ~ χ²."""
    n, sd = len(values), float(np.std(values, ddof=1))
    low, high = ((n - 1) / stats.chi2.ppf(p, n - 1) for p in (0.975, 0.025))
    return sd, sd * float(low) ** 0.5, sd * float(high) ** 0.5


def share(count: int, number: int) -> tuple[float, float, float]:
    """A share and the ends of its exact 95% interval (Clopper and Pearson 1934)."""
    found = stats.binomtest(count, number).proportion_ci(0.95, "exact")
    return count / number, float(found.low), float(found.high)


def table(metrics: Mapping[str, float], names: Sequence[str], worlds: int) -> str:
    """Markdown: a row per method."""
    head = [
        "method", "gold", "KL, nats", "sd of gold over seeds", "seeds below the start", "length", "scored to train",
        "per answer", "CPU s",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name in names:
        cells = [_cell(metrics, f"{name}/{column}") for column in ("gold", "kl", "sd")]
        below = f"{name}/below"
        ends = f"[{metrics[below + '/low']:.2f}, {metrics[below + '/high']:.2f}]"
        cells.append(f"{round(metrics[below] * worlds)} of {worlds} {ends}")
        cells += [f"{metrics[f'{name}/{c}']:.0f}" for c in ("length", "samples", "per_answer")]
        cells.append(_cell(metrics, f"{name}/seconds", digits=1))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def contrast_table(metrics: Mapping[str, float], contrasts: Sequence[tuple[str, str]]) -> str:
    """Markdown: differences in gold, paired by world; not told apart where the interval holds 0."""
    lines = ["| gold of | less that of | difference | |", "| --- | --- | --- | --- |"]
    for one, other in contrasts:
        key = f"{one} less {other}/gold"
        holds = metrics[f"{key}/low"] <= 0 <= metrics[f"{key}/high"]
        lines.append(f"| {one} | {other} | {_cell(metrics, key)} | {'not told apart' if holds else ''} |")
    return "\n".join(lines) + "\n" if contrasts else ""


def _with(key: str, found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((key, f"{key}/low", f"{key}/high"), found, strict=True))


def _cell(metrics: Mapping[str, float], key: str, digits: int = 2) -> str:
    mean, low, high = (metrics[key + end] for end in ("", "/low", "/high"))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
