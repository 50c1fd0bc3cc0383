"""How every figure of a report looks: few colours, no frame, labels where the eye is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

WIDTH = 4.8
"""Inches: on a phone the letters are still large enough to read."""
LETTERS = 13
"""Of a legend, per inch: the widest are fewer, most are more."""
INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, AMBER, GREEN, RED = "#2563eb", "#d97706", "#059669", "#dc2626"
SERIES = (BLUE, AMBER, GREEN, RED, "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#475569", "#a16207")


def plot(canvas: Canvas, x: str, y: str, place: Any = 111) -> Any:
    """A matplotlib `Axes` without a frame; `x` and `y` are their labels."""
    axes = canvas.add_subplot(place)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    return axes


def dots(
    axes: Any, labels: Sequence[str], values: Sequence[float], bounds: Sequence[tuple[float, float]],
    colours: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """One row per label, the first on top: a dot, and a bar from low to high where both are known."""
    for row, (value, (low, high)) in enumerate(zip(values, bounds, strict=True)):
        colour = BLUE if colours is None else colours[row]
        if np.isfinite(low) and np.isfinite(high):
            axes.plot(
                [low, high], [row, row], color=colour, linewidth=2.2, alpha=0.45, solid_capstyle="round"
            )
        axes.plot([value], [row], "o", color=colour, markersize=5.5)
    axes.set_yticks(range(len(labels)), [_short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


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


def _short(label: str, most: int = 34) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
