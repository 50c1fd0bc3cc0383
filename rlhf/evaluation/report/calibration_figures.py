"""The figures of calibration: reliability and margins, before and after the temperature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from scipy.special import expit

from rlhf.evaluation.metrics.calibration import BINS, fold, reliability
from rlhf.evaluation.report.style import AMBER, BLUE, FAINT, INK, WIDTH, legend_below, plot, wilson
from rlhf.evaluation.results import Evaluation
from rlhf.stats.arrays import Floats, Ints

RELIABILITY = (
    "Share of the votes that agreed against stated confidence, in 15 bins; below: how many pairs each bin holds, "
    "both before and after the temperature. On the dashed diagonal, confidence is deserved. Bars: Wilson's 95 % "
    "intervals, which take pairs as independent."
)
MARGIN = (
    "Share of the votes for the answer with the higher reward against |margin|, in groups of equal count, for the raw "
    "reward and after the temperature where one was fitted. Dashed: what the margin promises. "
    "Bars: Wilson's 95 % intervals."
)
GROUPS, EACH = 12, 20
"""Groups of the margins, at most, and pairs in each, at least."""


def named(evaluation: Evaluation) -> list[tuple[float, str, str]]:
    """Temperature, colour and name of every drawn state: before and after, or one where T = 1."""
    if evaluation.temperature == 1:
        return [(1.0, BLUE, "T = 1")]
    return [(1.0, AMBER, "before temperature"), (evaluation.temperature, BLUE, "after")]


def draw_reliability(evaluation: Evaluation) -> Callable[[Canvas], None]:
    """Agreement against confidence with Wilson's intervals, and the counts behind them."""
    scored, states = evaluation.results.scored, named(evaluation)

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(WIDTH, 4.8)
        grid = canvas.add_gridspec(2, 1, height_ratios=(3, 1), hspace=0.08)
        axes, below = (
            plot(canvas, "", "votes that agreed", grid[0]),
            plot(canvas, "stated confidence", "pairs", grid[1]),
        )
        axes.plot([0.5, 1], [0.5, 1], color=FAINT, linestyle="--", linewidth=1)
        width = 0.5 / BINS * 0.8 / len(states)
        for i, (temperature, colour, label) in enumerate(states):
            table = reliability(expit(scored.difference / temperature), scored.win_prob, bins=BINS)
            x, y, n = (
                np.array(v) for v in zip(*((b.confidence, b.agreement, b.count) for b in table), strict=True)
            )
            _points(axes, x, y, n, colour, label, linewidth=1.4)
            middle = 0.5 + (np.minimum(np.floor((x - 0.5) * 2 * BINS), BINS - 1) + 0.5) / (2 * BINS)
            below.bar(middle + (i - (len(states) - 1) / 2) * width, n, width=width, color=colour)
        ceiling = evaluation.metrics.get("ceiling/annotators")
        if ceiling is not None:
            axes.axhline(ceiling, color=FAINT, linewidth=0.8, linestyle=":", label="one annotator")
        axes.tick_params(labelbottom=False)
        axes.set_ylim(-0.02, 1.02)
        for each in (axes, below):
            each.set_xlim(0.49, 1.01)
        legend_below(canvas, axes)

    return draw


def draw_margins(evaluation: Evaluation) -> Callable[[Canvas], None]:
    """Agreement against |margin|: one panel of raw rewards, one after the temperature, each on its own scale."""
    scored, states = evaluation.results.scored, named(evaluation)

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(WIDTH, 3.0)
        grid = canvas.add_gridspec(1, len(states))
        for i, (temperature, colour, label) in enumerate(states):
            axes = plot(canvas, "|margin| in log-odds", "" if i else "votes that agreed", grid[0, i])
            axes.set_title(label, fontsize=9, color=INK)
            margin = np.abs(scored.difference) / temperature
            agreement = fold(expit(scored.difference / temperature), scored.win_prob)[1]
            groups = np.array_split(
                np.argsort(margin, kind="stable"), min(GROUPS, max(1, len(margin) // EACH))
            )
            some = [g for g in groups if len(g)]
            x, y = (np.array([v[g].mean() for g in some]) for v in (margin, agreement))
            _points(axes, x, y, np.array([len(g) for g in some]), colour, label, linestyle="none")
            top = max(float(x.max(initial=0)) * 1.06, 0.1)
            line = np.linspace(0, top, 100)
            axes.plot(line, expit(line), color=FAINT, linestyle="--", linewidth=1)
            axes.set_xlim(0, top)
            axes.set_ylim(-0.02, 1.02)
            axes.tick_params(labelleft=not i)

    return draw


def _points(axes: Any, x: Floats, y: Floats, n: Ints, colour: str, label: str, **line: Any) -> None:
    low, high = wilson(y, n)
    axes.errorbar(
        x, y, (y - low, high - y), color=colour, marker="o", markersize=4, elinewidth=0.8, label=label, **line
    )
