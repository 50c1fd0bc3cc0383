"""Did choosing help? Learning curves of several seeds, paired with random, and labels saved at equal quality.

Every seed gives each selector the same split, the same first labels and the same votes on a pair, so differences are
paired. Intervals are over seeds (`rlhf.stats.t_interval`): t for mean differences, expanded percentile bootstrap
for labels saved; with one seed there is none.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from rlhf.evaluation.report.style import FAINT, INK, SERIES, legend_above, plot
from rlhf.records.tables import markdown, write_csv
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.t_interval import FEW, caution, expanded, t_interval

COLUMNS = ("selector", "seed", "round", "labels", "pair_accuracy", "nll")
METRICS = {"pair_accuracy": True, "nll": False}
"""Metric -> is more better."""

BASELINE = "random"
RESAMPLES = 1000

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Curves:
    """Metrics [S, R] of one selector over its seeds [S] and rounds, and the votes obtained by then: labels [R]."""

    seeds: Ints
    labels: Floats
    values: Mapping[str, Floats]

    def shared(self, other: Curves) -> Curves:
        """Cut to the seeds and the rounds that the other curves have too."""
        seeds, places, _ = np.intersect1d(self.seeds, other.seeds, return_indices=True)
        labels = self.labels[: len(other.labels)]
        return Curves(seeds, labels, {k: v[places, : len(labels)] for k, v in self.values.items()})


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """curve.csv, sorted by selector, seed and round."""
    write_csv(path, sorted(rows, key=lambda row: (row["selector"], row["seed"], row["round"])), COLUMNS)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a curve.csv, numbers as numbers."""
    rows: list[dict[str, Any]] = pd.read_csv(
        path, dtype={"selector": str}, float_precision="round_trip", keep_default_na=False
    ).to_dict("records")
    return rows


def curves(rows: Iterable[Row]) -> dict[str, Curves]:
    """Selector -> its curves: the rounds that all its seeds have reached. Repeated rows count once."""
    table: dict[str, dict[int, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        table[row["selector"]][row["seed"]][row["round"]] = row
    found = {}
    for selector, seeds in table.items():
        rounds = sorted(set.intersection(*(set(by_round) for by_round in seeds.values())))
        if not rounds:
            continue
        order = sorted(seeds)
        labels = np.mean([[seeds[s][r]["labels"] for r in rounds] for s in order], axis=0)
        values = {k: np.array([[float(seeds[s][r][k]) for r in rounds] for s in order]) for k in METRICS}
        found[selector] = Curves(np.array(order), labels, values)
    return found


def baseline(names: Iterable[str]) -> str:
    """The selector that others are compared with: `random`, or `random+<votes>` where all get their votes that way."""
    return next((n for n in sorted(names) if n.split("+")[0] == BASELINE), BASELINE)


def compare(found: Mapping[str, Curves], *, against: str | None = None, seed: int = 0) -> dict[str, dict[str, float]]:
    """Selector -> flat numbers against the baseline, over the seeds that both have.

    `<metric>/final`, `<metric>/mean` (over rounds) of the selector; `.../difference` of both,
    selector less baseline, with `/ci_low`, `/ci_high` and `/wins` (share of the seeds that are better);
    `labels_saved/<metric>` with its interval, see `saved`.
    """
    against = against or baseline(found)
    out: dict[str, dict[str, float]] = {}
    for name, own in found.items():
        numbers: dict[str, float] = {"seeds": len(own.seeds), "labels": float(own.labels[-1])}
        for metric, values in own.values.items():
            numbers |= {f"{metric}/final": float(values[:, -1].mean()), f"{metric}/mean": float(values.mean())}
        if name != against and against in found:
            mine, base = own.shared(found[against]), found[against].shared(own)
            if len(mine.seeds) and np.allclose(mine.labels, base.labels, rtol=0.05):
                numbers |= _paired(mine, base, seed)
        out[name] = numbers
    return out


def _paired(own: Curves, base: Curves, seed: int) -> dict[str, float]:
    out: dict[str, float] = {"paired_seeds": len(own.seeds)}
    draws = np.random.default_rng(seed).integers(len(own.seeds), size=(RESAMPLES, len(own.seeds)))
    for metric, more_is_better in METRICS.items():
        a, b = own.values[metric], base.values[metric]
        for key, gap in (("final", a[:, -1] - b[:, -1]), ("mean", (a - b).mean(1))):
            name = f"{metric}/{key}/difference"
            out[name] = float(gap.mean())
            out[f"{name}/wins"] = float((gap > 0).mean() if more_is_better else (gap < 0).mean())
            if len(gap) > 1:
                out |= _ends(name, t_interval(gap))
        sign = 1 if more_is_better else -1
        name = f"labels_saved/{metric}"
        out[name] = saved(sign * a.mean(0), sign * b.mean(0), own.labels)
        if len(own.seeds) > 1:
            resampled = [saved(sign * a[d].mean(0), sign * b[d].mean(0), own.labels) for d in draws]
            out |= _ends(name, expanded(np.array(resampled), len(own.seeds)))
    return out


def saved(own: Floats, base: Floats, labels: Floats) -> float:
    """Share of the labels saved at equal quality: 1 - (labels of the selector) / (labels of the baseline).

    Both mean curves [R], higher is better, are made monotone (isotonic regression) and read where they reach the lower
    of their two final values: the highest level that both reach, so that the share is negative for a worse selector
    instead of undefined.
    """
    fits = [isotonic_regression(curve).x for curve in (own, base)]
    level = min(fits[0][-1], fits[1][-1])
    need = [_reach(fit, level, labels) for fit in fits]
    return float(1 - need[0] / need[1])


def _reach(curve: Floats, level: float, labels: Floats) -> float:
    """The first number of labels at which a monotone curve is at the level, between rounds linearly."""
    place = int(np.argmax(curve >= level - 1e-12))
    if place == 0:
        return float(labels[0])
    low, high = curve[place - 1], curve[place]
    return float(labels[place - 1] + (labels[place] - labels[place - 1]) * (level - low) / (high - low))


def _ends(name: str, ends: tuple[Floats, Floats]) -> dict[str, float]:
    return {f"{name}/ci_low": float(ends[0]), f"{name}/ci_high": float(ends[1])}


def table(numbers: Mapping[str, Mapping[str, float]], *, against: str | None = None) -> str:
    """Markdown: one row per selector, differences and savings with their 95% intervals over seeds."""
    against = against or baseline(numbers)
    head = ["selector", "seeds", "accuracy, mean of rounds", "NLL, mean of rounds", f"accuracy less {against} [95%]",
            f"NLL less {against} [95%]", "labels saved at equal accuracy [95%]", "at equal NLL [95%]"]  # fmt: skip
    rows = []
    order = sorted(numbers, key=lambda name: (name != against, numbers[name]["nll/mean"]))
    for name in order:
        one = numbers[name]
        cells = [name, f"{one['seeds']:.0f}", f"{one['pair_accuracy/mean']:.4f}", f"{one['nll/mean']:.4f}"]
        cells += [_cell(one, f"{metric}/mean/difference", "{:+.4f}") for metric in METRICS]
        cells += [_cell(one, f"labels_saved/{metric}", "{:+.0%}") for metric in METRICS]
        rows.append(cells)
    return markdown(head, rows)


def page(numbers: Mapping[str, Mapping[str, float]]) -> str:
    """curve.md: the table, and below it how its intervals were made and whether they rest on too few seeds."""
    paired = {name: int(one["paired_seeds"]) for name, one in numbers.items() if "paired_seeds" in one}
    return f"{table(numbers)}\n{caution(paired)}\n"


def _cell(numbers: Mapping[str, float], key: str, form: str) -> str:
    if key not in numbers:
        return "-"
    shown = form.format(numbers[key])
    if f"{key}/ci_low" not in numbers:
        return shown
    return f"{shown} [{form.format(numbers[f'{key}/ci_low'])}, {form.format(numbers[f'{key}/ci_high'])}]"


SHOWN = {"pair_accuracy": "pair accuracy", "nll": "NLL per vote in nats"}
"""Metric -> what the axis says."""
UNBOUNDED = (-math.inf, math.inf)
BOUNDS = {"pair_accuracy": (0.0, 1.0), "nll": (0.0, math.inf)}
"""Metric -> what it can be: a t interval of few seeds may reach further, and would say what cannot be."""

Lines = Mapping[str, Mapping[str, float]]
"""Metric -> name -> height of a dashed line."""


def reference_lines(reference: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """What costs no choice: the longer answer, and a head on all votes of the pool, where they are known."""
    keys = {metric: {"all votes of the pool": f"ceiling/{metric}"} for metric in METRICS}
    keys["pair_accuracy"] = {"longer answer": "baseline/length"} | keys["pair_accuracy"]
    return {m: {name: reference[k] for name, k in names.items() if k in reference} for m, names in keys.items()}


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

    Bands are 95% t intervals over seeds, on the right of paired differences. An accuracy and its band stay in 0..1,
    and legends stand above their panels.

    Args:
        found: the curves.
        numbers: of `compare`: the votes saved stand in the legends of the right.
        lines: dashed lines on the left.
    """
    figure = Figure(figsize=(12, 8.5), layout="constrained")
    against = baseline(found)
    names = sorted(found, key=lambda name: (name != against, name))
    colours = dict(zip(names, cycle(SERIES), strict=False)) | {against: INK}
    for row, (metric, words) in enumerate(SHOWN.items()):
        left = plot(figure, "votes obtained", words, 221 + 2 * row)
        right = plot(figure, "votes obtained", f"{words}, less {against}", 222 + 2 * row)
        for name in names:
            _band(left, found[name].labels, found[name].values[metric], name, colours[name], BOUNDS[metric])
        for (name, height), dashes in zip(lines.get(metric, {}).items(), ("--", ":"), strict=False):
            left.axhline(height, linestyle=dashes, linewidth=1.2, color=FAINT, label=name)
        left.margins(y=0.08)
        low, high = left.get_ylim()
        left.set_ylim(max(low, BOUNDS[metric][0]), min(high, BOUNDS[metric][1]))
        legend_above(left, columns=3)
        if against in found:
            _differences(right, found, numbers, against, metric, colours)
        right.axhline(0, color=INK, linewidth=0.8)
    counts = sorted({len(own.seeds) for own in found.values()})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    bands = "bands: 95% t intervals over seeds" if counts[-1] > 1 else "one seed: no intervals"
    bands += "; so few seeds say little" if 1 < counts[-1] < FEW else ""
    figure.suptitle(f"test pairs against votes obtained, {seeds} seeds ({bands})", fontsize=10)
    return figure


def _differences(
    axis: Any, found: Mapping[str, Curves], numbers: Mapping[str, Mapping[str, float]], against: str, metric: str,
    colours: Mapping[str, str],
) -> None:  # fmt: skip
    """Paired differences on the seeds that both have; the legend says what is saved at equal quality."""
    for name, curve in found.items():
        own, base = curve.shared(found[against]), found[against].shared(curve)
        if name == against or not len(own.seeds):
            continue
        key, known = f"labels_saved/{metric}", numbers.get(name, {})
        label = f"{name}: {known[key]:+.0%} of the votes saved" if key in known else name
        if f"{key}/ci_low" in known:
            label += f" [{known[f'{key}/ci_low']:+.0%}, {known[f'{key}/ci_high']:+.0%}]"
        _band(axis, own.labels, own.values[metric] - base.values[metric], label, colours[name], UNBOUNDED)
    legend_above(axis, columns=1)


def _band(axis: Any, labels: Floats, values: Floats, label: str, colour: str, within: tuple[float, float]) -> None:
    axis.plot(labels, values.mean(0), color=colour, label=label)
    if len(values) > 1:
        low, high = np.clip(t_interval(values), *within)
        axis.fill_between(labels, low, high, color=colour, alpha=0.15, linewidth=0)


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
    beside = (path.with_name("metrics.json") for path in paths)
    known = [json.loads(path.read_text()) for path in beside if path.is_file()]
    keys = set.intersection(*map(set, known)) if known else set()
    reference = {k: float(np.mean([m[k] for m in known])) for k in keys if not k.startswith("compare/")}
    write_comparison(found, reference, folder)
    return folder / "curve.md"
