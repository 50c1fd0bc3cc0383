"""curve.png: what a reader needs to see whether choosing helped, with the intervals that say how surely."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rlhf.select.loop.learning_curve import (
    METRICS,
    Curves,
    baseline,
    compare,
    curves,
    page,
    read_rows,
    write_rows,
)
from rlhf.stats.arrays import Floats
from rlhf.stats.t_interval import FEW, t_interval

SHOWN = {"pair_accuracy": "pair accuracy", "nll": "NLL per vote in nats"}
"""Metric -> what the axis says."""

Lines = Mapping[str, Mapping[str, float]]
"""Metric -> name -> height of a dashed line."""


def reference_lines(reference: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """What costs no choice: the longer answer, and a head on all votes of the pool, where they are known."""
    lines: dict[str, dict[str, float]] = {"pair_accuracy": {}, "nll": {}}
    for metric, key, name in (
        ("pair_accuracy", "baseline/length", "longer answer"),
        ("pair_accuracy", "ceiling/pair_accuracy", "all votes of the pool"),
        ("nll", "ceiling/nll", "all votes of the pool"),
    ):
        if key in reference:
            lines[metric][name] = reference[key]
    return lines


def write_comparison(
    found: Mapping[str, Curves], reference: Mapping[str, float], folder: Path
) -> dict[str, dict[str, float]]:
    """Leave curve.png and curve.md; gives the numbers of `compare`. reference: of `reference_lines`."""
    numbers = compare(found)
    draw(found, numbers, reference_lines(reference)).savefig(folder / "curve.png", dpi=120)
    (folder / "curve.md").write_text(page(numbers), encoding="utf-8")
    return numbers


def draw(found: Mapping[str, Curves], numbers: Mapping[str, Mapping[str, float]], lines: Lines) -> Figure:
    """Accuracy and NLL against votes on the left, both less random and the votes saved on the right.

    Bands are 95% t intervals over seeds, on the right of paired differences.

    Args:
        found: the curves.
        numbers: of `compare`: the votes saved stand in the legends of the right.
        lines: dashed lines on the left.
    """
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    against = baseline(found)
    names = sorted(found, key=lambda name: (name != against, name))
    styles = {n: {"color": "black" if n == against else f"C{place}"} for place, n in enumerate(names)}
    for (left, right), metric in zip(axes, METRICS, strict=True):
        for name in names:
            _band(left, found[name].labels, found[name].values[metric], {"label": name, **styles[name]})
        if against in found:
            _differences(right, found, numbers, against, metric, styles)
        for name, height in lines.get(metric, {}).items():
            left.axhline(height, linestyle="--", linewidth=0.8, color="grey")
            left.annotate(
                name, (0.99, height), xycoords=("axes fraction", "data"), fontsize=8, va="bottom", ha="right"
            )
        left.margins(y=0.08)  # room for the names of the lines
        left.set_ylabel(SHOWN[metric])
        right.set_ylabel(f"{SHOWN[metric]}, less {against}")
        right.axhline(0, color="black", linewidth=0.8)
    for axis in axes[1]:
        axis.set_xlabel("votes obtained")
    axes[0, 0].legend(fontsize=8)
    counts = sorted({len(own.seeds) for own in found.values()})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    bands = "bands: 95% t intervals over seeds" if counts[-1] > 1 else "one seed: no intervals"
    bands += "; so few seeds say little" if 1 < counts[-1] < FEW else ""
    figure.suptitle(f"test pairs against votes obtained, {seeds} seeds ({bands})", fontsize=10)
    return figure


def _differences(
    axis: Any,
    found: Mapping[str, Curves],
    numbers: Mapping[str, Mapping[str, float]],
    against: str,
    metric: str,
    styles: Mapping[str, Mapping[str, Any]],
) -> None:
    """Paired differences on the seeds that both have; the legend says what is saved at equal quality."""
    base = found[against]
    for name, own in found.items():
        both = np.intersect1d(own.seeds, base.seeds)
        rounds = min(len(own.labels), len(base.labels))
        if name == against or not len(both):
            continue
        gap = [curve.of_seeds(both).values[metric][:, :rounds] for curve in (own, base)]
        key, known = f"labels_saved/{metric}", numbers.get(name, {})
        label = f"{name}: {known[key]:+.0%} of the votes saved" if key in known else name
        if f"{key}/ci_low" in known:
            label += f" [{known[f'{key}/ci_low']:+.0%}, {known[f'{key}/ci_high']:+.0%}]"
        _band(axis, own.labels[:rounds], gap[0] - gap[1], {"label": label, **styles[name]})
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def _band(axis: Any, labels: Floats, values: Floats, style: Mapping[str, Any]) -> None:
    axis.plot(labels, values.mean(0), **style)
    if len(values) > 1:
        low, high = t_interval(values)
        axis.fill_between(labels, low, high, color=style["color"], alpha=0.15, linewidth=0)


def combine(paths: Sequence[Path], folder: Path) -> Path | None:
    """The curves of several runs as one comparison in `folder`: curve.csv, curve.png, curve.md; None without curves.

    Dashed lines (length baseline, all votes) are means over the runs whose metrics.json has them.
    """
    rows = [row for path in paths for row in read_rows(path)]
    found = curves(rows)
    if not found:
        return None
    unique = {(r["selector"], r["seed"], r["round"]): r for r in rows}
    write_rows(folder / "curve.csv", unique.values())
    known = [
        json.loads(p.read_text()) for p in (path.with_name("metrics.json") for path in paths) if p.is_file()
    ]
    keys = set.intersection(*map(set, known)) if known else set()
    reference = {k: float(np.mean([m[k] for m in known])) for k in keys if not k.startswith("compare/")}
    write_comparison(found, reference, folder)
    return folder / "curve.md"
