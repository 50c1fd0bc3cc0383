"""How every figure of a report looks: few colours, no frame, labels where the eye is."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rlhf.evaluation.report.section import Figure
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import Estimate

WIDTH = 4.8
"""Inches: on a phone the letters are still large enough to read."""
LABEL = 34
"""Letters of a row's label, at most."""
LETTERS = 13
"""Of a legend, per inch: the widest are fewer, most are more."""
NARROW, DECADES = 10, 200
"""Ends of a logarithmic axis in ratio: below the first its ticks are even steps, above the second whole decades."""
INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, AMBER, GREEN, RED = "#2563eb", "#d97706", "#059669", "#dc2626"
SERIES = (BLUE, AMBER, GREEN, RED, "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#475569", "#a16207")

CELLS = LinearSegmentedColormap.from_list("cells", ["#a3bffa", "#1e3a8a"])
"""Of a density: the palest cell, of a single answer, still stands out from the paper."""


def plot(canvas: Canvas, x: str, y: str, place: Any = 111) -> Any:
    """A matplotlib `Axes` without a frame; `x` and `y` are their labels, `place` as 121 or (1, 2, 1)."""
    axes = canvas.add_subplot(*place) if isinstance(place, tuple) else canvas.add_subplot(place)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    return axes


def dots(axes: Any, rows: Sequence[tuple[str, Estimate]], colours: Sequence[str] | None = None) -> None:
    """One row per label, the first on top: a dot, and a bar from low to high where both are known."""
    for row, (_, (value, low, high)) in enumerate(rows):
        colour = BLUE if colours is None else colours[row]
        if np.isfinite(low) and np.isfinite(high):
            axes.plot([low, high], [row, row], color=colour, linewidth=2.2, alpha=0.45, solid_capstyle="round")
        axes.plot([value], [row], "o", color=colour, markersize=5.5)
    axes.set_yticks(range(len(rows)), [label if len(label) <= LABEL else f"{label[: LABEL - 1]}…" for label, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def dot_figure(
    name: str, caption: str, axis: str, rows: Sequence[tuple[str, Estimate]], *,
    colours: Sequence[str] | None = None, origin: float = 0.5, height: tuple[float, float] = (0.6, 0.27),
) -> Figure:  # fmt: skip
    """A figure of `dots`.

    Args:
        name, caption: of the figure; axis: what the numbers are.
        rows: label and number of each.
        colours: one per row; None = all alike.
        origin: where a dotted line stands: the number of no effect.
        height: inches of the axis, and of every row.
    """

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(WIDTH, height[0] + height[1] * len(rows))
        axes = plot(canvas, axis, "")
        dots(axes, rows, colours)
        axes.axvline(origin, color=FAINT, linewidth=0.8, linestyle=":")

    return Figure(name, caption, draw)


def legend(axes: Any, **options: Any) -> None:
    """A legend without a frame."""
    axes.legend(**{"frameon": False, "fontsize": 9, "labelcolor": INK} | options)


def legend_below(canvas: Canvas, axes: Any) -> None:
    """The legend of the axes below them, where no curve is, in as many columns as fit; the canvas grows by it."""
    handles, labels = axes.get_legend_handles_labels()
    width, height = canvas.get_size_inches()
    columns = max(1, int(width * LETTERS / (6 + max(map(len, labels), default=0))))  # 6: line and gap
    columns = min(columns, max(1, len(labels)))
    canvas.set_size_inches(width, height + 0.2 * math.ceil(len(labels) / columns))
    legend(canvas, handles=handles, labels=labels, loc="outside lower center", ncols=columns)


def legend_above(axes: Any, columns: int) -> None:
    """The legend of the axes above them, where it covers no curve; none where nothing has a name."""
    if axes.get_legend_handles_labels()[0]:
        legend(axes, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, fontsize=8)


def plain_ticks(axes: Any, low: float, high: float) -> None:
    """Few whole numbers along a logarithmic x axis from low to high > 0, instead of powers that run together."""
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if high / low < DECADES else (1,)) if high / low > NARROW else MaxNLocator(5)
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))


def wilson(share: Floats, number: Ints) -> tuple[Floats, Floats]:
    """95 % interval [N] of a share of `number` independent trials (Wilson 1927); never outside 0..1."""
    z = 1.959964
    middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z / (1 + z**2 / number) * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)
