"""Sections to files: report.json, report.html, figures/*.png, examples.parquet; and to W&B."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from rlhf.evaluation.report.examples import columns, write_examples
from rlhf.evaluation.report.html import page, printed
from rlhf.evaluation.report.section import Figure, Section, flat
from rlhf.evaluation.results import Evaluation

DPI = 160
LOGGED = 1000
"""Pairs that W&B gets as a table."""
STYLE: Any = {"svg.hashsalt": "rlhf", "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10}
"""The salt makes the same figure the same bytes."""


@dataclass(frozen=True)
class Report:
    """What was written, and where.

    folder    the files
    sections  in order
    metrics   as in report.json
    evaluation    what the sections were made from
    """

    folder: Path
    sections: Sequence[Section]
    metrics: dict[str, float]
    evaluation: Evaluation


def write_report(folder: Path, evaluation: Evaluation, sections: Sequence[Section], about: str) -> Report:
    """Write the files; the same input gives the same bytes of JSON.

    Args:
        folder: is created.
        evaluation: for examples.parquet.
        sections: in order.
        about: one line that says which data this is.

    Raises:
        ValueError: two sections give the same key or the same figure, or a number is not finite.
    """
    metrics = flat(sections)
    bad = [key for key, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"report.json holds finite numbers only; leave out {bad}")
    figures = [figure for section in sections for figure in section.figures]
    names = [figure.name for figure in figures]
    if len(set(names)) < len(names):
        raise ValueError(f"two figures share a name: {sorted(names)}")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    images = {figure.name: draw(figure, folder / "figures") for figure in figures}
    numbers = {k: int(v) if isinstance(v, int) else float(v) for k, v in metrics.items()}
    (folder / "report.json").write_text(
        json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    (folder / "report.html").write_text(
        page(evaluation.name, about, sections, metrics, images), encoding="utf-8"
    )
    write_examples(folder / "examples.parquet", evaluation)
    return Report(folder, sections, numbers, evaluation)


def draw(figure: Figure, folder: Path) -> bytes:
    """Write figures/<name>.png; gives the same drawing as SVG."""
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(layout="constrained", dpi=DPI)
        figure.draw(canvas)
        png: Any = FigureCanvasAgg(canvas)
        canvas.draw_without_rendering()  # the layout, once for both formats; `savefig` would draw each of them twice
        canvas.set_layout_engine("none")
        png.print_png(folder / f"{figure.name}.png", metadata={"Software": None})
        svg: Any = FigureCanvasSVG(canvas)
        svg.print_svg(drawn, metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def log_to_wandb(run: Any, report: Report) -> None:
    """The same as W&B numbers, images and tables, in a run that is already open."""
    import wandb

    run.summary.update(report.metrics)
    logged: dict[str, Any] = {}
    for section in report.sections:
        for figure in section.figures:
            logged[f"figures/{figure.name}"] = wandb.Image(
                str(report.folder / "figures" / f"{figure.name}.png"), caption=figure.caption
            )
        for table in section.tables:
            rows = [[printed(cell) for cell in row] for row in table.rows]
            heads: list[Any] = _unique([c.strip() or "part" for c in table.columns])
            logged[f"tables/{section.title}/{table.title}"] = wandb.Table(columns=heads, data=rows)
    few = columns(report.evaluation, np.arange(min(LOGGED, len(report.evaluation.results.scored.first))))
    names: list[Any] = list(few.column_names)
    logged["examples"] = wandb.Table(columns=names, data=[list(row.values()) for row in few.to_pylist()])
    run.log(logged)


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.index(name) == i else f"{name} {i}" for i, name in enumerate(names)]
