"""What each way from votes to answers gains in gold, at what KL, at what cost, how stably over seeds: one table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from rlhf.evaluation.report.style import SERIES, legend_below, plot
from rlhf.records.tables import markdown, write_csv
from rlhf.reward.files import log_end, write_json
from rlhf.studies.ablation import interval, with_ends
from rlhf.studies.study import cell
from rlhf.studies.tradeoff_methods import BestOfNMethod, Method, TradeoffWorld, untrained
from rlhf.toy.gold import ToyGold
from rlhf.toy.tabular_policy import TabularPolicy

COLUMNS = ("gold", "kl", "length", "samples", "per_answer", "seconds")
START = "reference"


@dataclass(frozen=True)
class TradeoffRun:
    """The task `tradeoff`.

    Args:
        folder: of the results.
        trainer: its loggers get the numbers.
        world: seed -> world; seeds: at least 2.
        policy: the policy to start from, of a world's gold.
        kinds: name -> `(β) -> method`, every one of them with every β of `betas`.
        best_of: n of best-of-n, without training; `against`: the n that trained methods are compared with.
    """

    folder: Path
    trainer: Any
    world: Callable[[int], TradeoffWorld]
    seeds: Sequence[int]
    policy: Callable[[ToyGold], TabularPolicy]
    kinds: Mapping[str, Callable[[float], Method]]
    betas: Sequence[float]
    best_of: Sequence[int]
    against: int

    @property
    def methods(self) -> dict[str, Method]:
        """Every kind with every β, and best of every n."""
        trained = {f"{name} β={b:g}": of_beta(b) for name, of_beta in self.kinds.items() for b in self.betas}
        return trained | {f"best of {n}": BestOfNMethod(n) for n in self.best_of}

    @property
    def contrasts(self) -> list[tuple[str, str]]:
        """Trained methods with each other at equal β, and each with best of the n that is named for it."""
        pairs = [(f"{a} β={x:g}", f"{b} β={x:g}") for x in self.betas for a, b in combinations([*self.kinds][::-1], 2)]
        return pairs + [(f"{k} β={x:g}", f"best of {self.against}") for k in self.kinds for x in self.betas]


def run_tradeoff(run: TradeoffRun) -> dict[str, float]:
    """Compare all methods on the worlds of all seeds; see `compare`."""
    worlds = [run.world(seed) for seed in run.seeds]
    metrics = compare(run.methods, worlds, run.policy, run.folder, contrasts=run.contrasts)
    print((run.folder / "tradeoff.md").read_text())
    log_end(run.trainer.loggers, metrics, run.folder)
    return metrics


def compare(
    methods: Mapping[str, Method], worlds: Sequence[TradeoffWorld], make: Callable[[ToyGold], TabularPolicy],
    folder: Path, *, contrasts: Sequence[tuple[str, str]] = (),
) -> dict[str, float]:  # fmt: skip
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
    every: dict[str, Method] = {START: untrained, **methods}
    for world in worlds:
        for name, method in every.items():
            rows.append({"method": name, "seed": world.seed} | vars(method(world, make(world.gold))))
            write_csv(folder / "tradeoff.csv", rows)
    metrics = summary(rows, contrasts)
    text = table(metrics, list(every), len(worlds)) + "\n" + contrast_table(metrics, contrasts)
    (folder / "tradeoff.md").write_text(text, encoding="utf-8")
    write_json(folder / "metrics.json", metrics)
    draw(folder / "tradeoff.png", metrics, golds(rows))
    return metrics


def golds(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Method -> gold, in the order of the worlds."""
    return pd.DataFrame(rows).groupby("method", sort=False)["gold"].agg(list).to_dict()  # type: ignore[no-any-return]


def summary(rows: Sequence[Mapping[str, Any]], contrasts: Sequence[tuple[str, str]]) -> dict[str, float]:
    """What `compare` returns, of its rows."""
    gold = golds(rows)
    metrics: dict[str, float] = {}
    for name, own in gold.items():
        for column in COLUMNS:
            values = [row[column] for row in rows if row["method"] == name]
            metrics |= with_ends(f"{name}/{column}", interval(values))
        metrics |= with_ends(f"{name}/sd", deviation(own))
        below = sum(mine < start for mine, start in zip(own, gold[START], strict=True))
        metrics |= with_ends(f"{name}/below", share(below, len(own)))
    for one, other in contrasts:
        apart = [a - b for a, b in zip(gold[one], gold[other], strict=True)]
        metrics |= with_ends(f"{one} less {other}/gold", interval(apart))
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
    rows = []
    for name in names:
        row = [name, *(cell(metrics, f"{name}/{column}", 2, ends="") for column in ("gold", "kl", "sd"))]
        below = cell(metrics, f"{name}/below", 2, ends="")
        row.append(f"{round(metrics[f'{name}/below'] * worlds)} of {worlds} {below.partition(' ')[2]}")
        row += [f"{metrics[f'{name}/{c}']:.0f}" for c in ("length", "samples", "per_answer")]
        rows.append([*row, cell(metrics, f"{name}/seconds", 1, ends="")])
    return markdown(head, rows)


def contrast_table(metrics: Mapping[str, float], contrasts: Sequence[tuple[str, str]]) -> str:
    """Markdown: differences in gold, paired by world; not told apart where the interval holds 0."""
    rows = []
    for one, other in contrasts:
        key = f"{one} less {other}/gold"
        holds = metrics[f"{key}/low"] <= 0 <= metrics[f"{key}/high"]
        rows.append([one, other, cell(metrics, key, 2, ends=""), "not told apart" if holds else ""])
    return markdown(["gold of", "less that of", "difference", ""], rows) if rows else ""


def draw(path: Path, metrics: Mapping[str, float], gold: Mapping[str, Sequence[float]]) -> None:
    """Three panels: gold against KL, gold of every seed by name, gold against CPU seconds.

    Args:
        path: of the PNG.
        metrics: of `compare`.
        gold: method -> gold of every world. Methods whose names are alike up to the last word are joined by a line.
    """
    figure = Figure(figsize=(15, 1.8 + max(3.6, 0.24 * len(gold))), layout="constrained")
    left = plot(figure, "KL from the reference, nats (best of n: upper bound)", "gold, log-odds", 131)
    middle = plot(figure, "gold of every seed, log-odds", "", 132)
    right = plot(figure, "CPU seconds (best of n: all held-out answers)", "gold, log-odds", 133)
    kinds: dict[str, list[str]] = {}
    for name in gold:
        kinds.setdefault(" ".join(name.split()[:-1]) or name, []).append(name)
    order = [name for names in kinds.values() for name in names]
    for (kind, names), colour in zip(kinds.items(), cycle(SERIES), strict=False):
        means = [metrics[f"{n}/gold"] for n in names]
        bars = [[abs(metrics[f"{n}/gold/{end}"] - metrics[f"{n}/gold"]) for n in names] for end in ("low", "high")]
        for axes, key in ((left, "kl"), (right, "seconds")):
            at = [metrics[f"{n}/{key}"] for n in names]
            axes.errorbar(at, means, bars, color=colour, marker="o", markersize=5, capsize=3, linewidth=1, label=kind)
        for n in names:
            middle.plot(gold[n], [order.index(n)] * len(gold[n]), "o", color=colour, alpha=0.6)
    middle.set_yticks(range(len(order)), order)
    middle.set_ylim(len(order) - 0.5, -0.5)
    legend_below(figure, left)
    figure.suptitle(
        "means over seeds, 95% t intervals; a line joins the settings of a method in the order of the middle"
    )
    figure.savefig(path, dpi=110)
