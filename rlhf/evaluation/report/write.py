"""Sections to files: report.json, report.html, figures/*.png, examples.parquet; and to W&B.

report.html is one file without scripts, for a phone, a desk and paper, light and dark; it links only to the files
beside it. The first paragraph and the first figure of a section are in sight, the rest unfolds. Its template lies in
templates/.
"""

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from rlhf.evaluation.report.examples import columns, write_examples
from rlhf.evaluation.report.section import Cell, Evaluation, Figure, Section, Table, flat, printed
from rlhf.evaluation.report.tiles import headline, tiles

DPI = 160
LOGGED = 1000
"""Pairs that W&B gets as a table."""
STYLE: Any = {"svg.hashsalt": "rlhf", "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10}
"""The salt makes the same figure the same bytes."""
LONG = 60
"""A cell of more characters is a text."""
INTERVAL = re.compile(r"^([-+]?[\d.]+) (\[[^\]]*\])$")
"""A number and its interval, which goes under it where space is scarce."""


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
    text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    html = page(evaluation.name, about, sections, metrics, images)
    (folder / "report.html").write_text(html, encoding="utf-8")
    write_examples(folder / "examples.parquet", evaluation)
    return Report(folder, sections, numbers, evaluation)


def page(
    name: str, about: str, sections: Sequence[Section], metrics: Mapping[str, float], images: Mapping[str, bytes]
) -> str:
    """The whole of report.html.

    Args:
        name: of the evaluated model.
        about: one line: which data, which part.
        sections: in order; the first paragraph of the first stands above everything.
        metrics: flat numbers of all of them, for the title and the tiles on top.
        images: name of a figure -> SVG.
    """
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    pages = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {"split_interval": _split_interval, "text_columns": _text_columns, "paragraphs": _paragraphs}
    lead, _, rest = sections[0].text.partition("\n\n") if sections else ("", "", "")
    return pages.get_template("report.html").render(
        title=headline(metrics),
        name=name,
        about=about,
        lead=lead,
        sections=[replace(section, text=rest) if i == 0 else section for i, section in enumerate(sections)],
        tiles=tiles(metrics),
        images={name: base64.b64encode(image).decode() for name, image in images.items()},
    )


def _split_interval(cell: Cell) -> tuple[str, str]:
    """A cell as people read it, and the interval behind its number, or ""."""
    found = INTERVAL.match(printed(cell))
    return (found[1], found[2]) if found else (printed(cell), "")


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]


def _text_columns(table: Table) -> list[bool]:
    """Which columns hold a long text anywhere: they are set as text everywhere."""
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    return [any(isinstance(c, str) and len(c) > LONG for c in column) for column in columns]


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
        canvas.patch.set_visible(False)  # the page's paper shows through, light or dark
        for axes in canvas.axes:
            axes.patch.set_visible(False)
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
            names = [c.strip() or "part" for c in table.columns]
            heads: list[Any] = [name if names.index(name) == i else f"{name} {i}" for i, name in enumerate(names)]
            logged[f"tables/{section.title}/{table.title}"] = wandb.Table(columns=heads, data=rows)
    few = columns(report.evaluation, np.arange(min(LOGGED, len(report.evaluation.results.scored.first))))
    logged["examples"] = wandb.Table(
        columns=list(few.column_names), data=[list(row.values()) for row in few.to_pylist()]
    )
    run.log(logged)
