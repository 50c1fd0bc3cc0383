"""report.html: one file without scripts or links to elsewhere, for a phone, a desk and paper."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from rlhf.evaluation.report.section import Cell, Section, Table, number

CARDS = (
    ("pair_accuracy", "pair accuracy"), ("pair_accuracy/minus_length", "lead over the longer answer"),
    ("ceiling/annotators", "one annotator against the others"), ("nll", "NLL in nats (a coin: 0.693)"),
    ("ece", "calibration error (ECE)"), ("spearman", "Spearman within a prompt"),
    ("length/spearman", "reward follows length"), ("pair_accuracy/worst_part", "worst slice of the data"),
)  # fmt: skip
WIDE = 5
"""A table of more columns becomes a list of cards on a phone."""
LONG = 60
"""A cell of more characters is a text."""
INTERVAL = re.compile(r"^([-+]?[\d.]+) (\[[^\]]*\])$")
"""A number and its interval, which goes under it where space is scarce."""


def page(
    name: str, about: str, sections: Sequence[Section], metrics: Mapping[str, float], images: Mapping[str, bytes]
) -> str:  # fmt: skip
    """The whole page.

    Args:
        name: of the evaluated model.
        about: one line: which data, which part.
        sections: in order.
        metrics: flat numbers of all of them, for the cards on top.
        images: name of a figure -> SVG.
    """
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#s{i}">{escape(s.title)}</a>' for i, s in enumerate(sections))
    lead, rest = _lead(sections)
    body = "".join(_section(i, s, images) for i, s in enumerate(rest))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: report</title><style>{style}</style></head><body>\n"
        f'<header><h1>{escape(name)}</h1><p class="sub">{escape(about)}</p>{lead}{_cards(metrics)}'
        f"<nav>{links}</nav></header>\n"
        f"<main>{body}</main>\n"
        "<footer>Intervals are 95 % and resample prompts. Numbers for programs: report.json; one row per pair: "
        "examples.parquet; figures: figures/.</footer>\n</body></html>\n"
    )


def _lead(sections: Sequence[Section]) -> tuple[str, Sequence[Section]]:
    """The first paragraph of the first section, which stands above everything, and the sections without it."""
    if not sections or not sections[0].text:
        return "", sections
    first, _, others = sections[0].text.partition("\n\n")
    return f'<p class="lead">{escape(first)}</p>', [replace(sections[0], text=others), *sections[1:]]


def _cards(metrics: Mapping[str, float]) -> str:
    items = []
    for key, words in CARDS:
        if key in metrics:
            low, high = metrics.get(f"{key}/ci_low"), metrics.get(f"{key}/ci_high")
            interval = "" if low is None or high is None else f"{number(low)} to {number(high)}"
            items.append(
                f"<li><b>{number(metrics[key])}</b><span>{interval or '&nbsp;'}</span><span>{escape(words)}</span></li>"
            )
    return f'<ul class="cards">{"".join(items)}</ul>' if items else ""


def _section(number: int, section: Section, images: Mapping[str, bytes]) -> str:
    text = "".join(f"<p>{escape(part)}</p>" for part in section.text.split("\n\n") if part.strip())
    figures = "".join(_figure(images[f.name], f.caption) for f in section.figures)
    tables = "".join(_table(t) for t in section.tables)
    return f'<section id="s{number}"><h2>{escape(section.title)}</h2>{text}{figures}{tables}</section>\n'


def _figure(image: bytes, caption: str) -> str:
    data = base64.b64encode(image).decode()
    words = escape(caption)
    image_tag = f'<img alt="{words}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image_tag}<figcaption>{words}</figcaption></figure>"


def _table(table: Table) -> str:
    words = [
        any(isinstance(c, str) and len(c) > LONG for c in column) for column in zip(*table.rows, strict=True)
    ]
    words = words or [False] * len(table.columns)
    kind = ' class="wide"' if any(words) or len(table.columns) > WIDE else ""
    kind = ' class="wide texts"' if any(words) else kind
    head = "".join(
        f"<th{_kind(text)}>{escape(c.strip())}</th>" for c, text in zip(table.columns, words, strict=True)
    )
    rows = "".join(f"<tr>{_row(row, table.columns, words)}</tr>" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{escape(table.title)}</h3><div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _row(row: Sequence[Cell], columns: Sequence[str], words: Sequence[bool]) -> str:
    return "".join(
        f'<td{_kind(text)} data-label="{escape(name.strip())}"><span>{_shown(cell)}</span></td>'
        for cell, name, text in zip(row, columns, words, strict=True)
    )


def _kind(text: bool) -> str:
    """A column that holds a long text anywhere is set as text everywhere."""
    return ' class="text"' if text else ""


def _shown(cell: Cell) -> str:
    return INTERVAL.sub(r"\1 <small>\2</small>", escape(printed(cell)))


def printed(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return number(cell)
    return str(cell)
