"""One figure of a training run: loss, validation, calibration, and accuracy by difference in length."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from scipy.special import expit

from rlhf.evaluation.metrics.calibration import reliability
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.scored import Scored
from rlhf.evaluation.report.style import AMBER, BLUE, FAINT, GREEN, INK, legend, plot, wilson
from rlhf.stats.arrays import Floats

HEAD = {"loc": "left", "fontsize": 10, "color": INK}
COIN = float(np.log(2))
BINS, FEWEST = 6, 30
"""Groups of equal count by difference in length, and pairs in each, at least."""
SMOOTH = 20
"""Logged losses that one point of the thick line is the mean of, at most."""


def draw_overview(history: Path, test: Scored, temperature: float, file: Path, title: str) -> None:
    """Write the figure.

    Args:
        history: the run's csv/metrics.csv.
        test: the test split with rewards.
        temperature: of the calibrated probabilities.
        file: a .png.
        title: above it.
    """
    canvas = Canvas(figsize=(9.6, 6.4), layout="constrained")
    canvas.suptitle(title, color=INK, fontsize=12, fontweight="bold")
    rows = list(csv.DictReader(history.open())) if history.is_file() else []
    _loss(canvas, rows)
    _validation(canvas, rows)
    _calibration(canvas, test, temperature)
    _length(canvas, test)
    canvas.savefig(file, dpi=110)


def _series(rows: Sequence[dict[str, str]], key: str) -> tuple[Floats, Floats]:
    found = [(float(row["step"]), float(row[key])) for row in rows if row.get(key)]
    return np.array([x for x, _ in found]), np.array([y for _, y in found])


def _loss(canvas: Canvas, rows: Sequence[dict[str, str]]) -> None:
    axes = plot(canvas, "optimizer step", "loss per pair, nats", 221)
    axes.set_title("Training", **HEAD)
    steps, loss = _series(rows, "train/loss")
    axes.axhline(COIN, color=FAINT, linewidth=0.8, linestyle=":", label="a coin, 0.693")
    axes.plot(steps, loss, color=BLUE, linewidth=0.8, alpha=0.35)
    width = min(SMOOTH, max(1, len(loss) // 5))
    if len(loss) >= width:
        axes.plot(steps[width - 1 :], np.convolve(loss, np.ones(width) / width, "valid"), color=BLUE, linewidth=2,
                  label=f"mean of {width} logged steps")  # fmt: skip
    legend(axes)


def _validation(canvas: Canvas, rows: Sequence[dict[str, str]]) -> None:
    axes = plot(canvas, "optimizer step", "NLL in nats, pair accuracy", 222)
    axes.set_title("Validation, on prompts it does not train on", **HEAD)
    for key, colour, name in (("val/nll", BLUE, "NLL in nats"), ("val/pair_accuracy", GREEN, "pair accuracy")):
        axes.plot(*_series(rows, key), "o-", color=colour, linewidth=2, markersize=5, label=name)
    axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=":", label="accuracy of a coin")
    legend(axes)


def _calibration(canvas: Canvas, test: Scored, temperature: float) -> None:
    axes = plot(canvas, "probability that the model states", "share of the votes", 223)
    axes.set_title("Test: are its probabilities true?", **HEAD)
    axes.plot([0.5, 1], [0.5, 1], color=FAINT, linewidth=0.8, linestyle="--", label="as it should be")
    stated = expit(test.difference / temperature)
    bins = reliability(stated, test.win_prob)
    columns = np.array([(b.confidence, b.agreement, b.count) for b in bins]).reshape(-1, 3).T
    _with_bars(axes, columns[0], columns[1], columns[2], BLUE)
    axes.set_xlim(0.49, 1.01)
    legend(axes, loc="upper left")


def _length(canvas: Canvas, test: Scored) -> None:
    axes = plot(canvas, "characters that the better answer is longer by", "pair accuracy", 224)
    axes.set_title("Test: is it right where the shorter answer is better?", **HEAD)
    right = credit(test.difference, test.win_prob)
    used = np.isfinite(right)
    longer = test.longer * np.sign(test.win_prob - 0.5)
    groups = np.array_split(np.argsort(longer[used], kind="stable"), max(1, min(BINS, int(used.sum()) // FEWEST)))
    groups = [g for g in groups if len(g)]
    middle = np.array([longer[used][g].mean() for g in groups])
    share, count = (np.array([f(right[used][g]) for g in groups]) for f in (np.mean, len))
    axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=":", label="a coin")
    axes.axvline(0, color=FAINT, linewidth=0.8)
    _with_bars(axes, middle, share, count, AMBER)
    axes.set_ylim(0, 1)
    legend(axes, loc="lower right")


def _with_bars(axes: Any, x: Floats, share: Floats, count: Any, colour: str) -> None:
    """Points with Wilson's 95 % intervals."""
    if not len(x):
        return
    low, high = wilson(share, count)
    axes.errorbar(x, share, [share - low, high - share], fmt="o-", color=colour, linewidth=1.6, markersize=5, capsize=0)
