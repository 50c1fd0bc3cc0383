"""Which importer reads a file: every one is tried on its first rows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

from rlhf.data import importers
from rlhf.data.file_formats import Rows
from rlhf.data.source import Importer, Source, file_rows, hub_rows, renamed
from rlhf.records import RecordError

TRIED = 200
"""Rows that every importer is tried on."""
FORMATS = (
    "jsonl", "ultrafeedback", "helpsteer", "shp", "summarize_from_feedback", "oasst", "nemo_ranks", "rm_bench",
    "arena", "helpsteer3", "graded", "llamafactory", "hh_rlhf", "pandalm", "qa_feedback", "rankme", "llmbar",
    "llmbar_pairs", "pairs", "rewardbench",
)  # fmt: skip
"""Options of `data=` by name, the special ones first: where several read all rows, the first is taken."""
COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "pairs": {
        "prompt": ("prompt", "question", "instruction", "query", "input", "context", "post"),
        "chosen": ("chosen", "better", "preferred", "winner", "accepted", "good", "response_chosen", "answer_chosen"),
        "rejected": ("rejected", "worse", "dispreferred", "loser", "bad", "response_rejected", "answer_rejected"),
    },
    "graded": {
        "prompt": ("prompt", "question", "instruction", "query", "input", "context", "post"),
        "response_a": ("response_a", "answer_a", "completion_a", "response_1", "response1", "answer_1", "answer1"),
        "response_b": ("response_b", "answer_b", "completion_b", "response_2", "response2", "answer_2", "answer2"),
        "preference": ("preference", "preferred", "winner", "choice", "verdict", "better", "strength"),
    },
}  # fmt: skip
"""Names that columns have elsewhere, in any case and with blanks or underscores, by importer."""


@dataclass(frozen=True)
class Format:
    """How a file is read.

    name      the option of `data=`
    columns   the importer's name of a column -> its name in the file, where they differ
    read      records of the first rows that hold votes
    bad       rows that it could not read
    problem   what the first of them lacks; "" where there is none
    """

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    read: int = 0
    bad: int = 0
    problem: str = ""

    @property
    def overrides(self) -> list[str]:
        """What chooses it on the command line, without the place of the data."""
        return [f"data={self.name}", *(f"data.columns.{key}={quoted(name)}" for key, name in self.columns.items())]

    @property
    def importer(self) -> Importer:
        """The importer."""
        found: Importer = getattr(importers, self.name)
        return found


def quoted(value: str) -> str:
    """As Hydra's grammar takes it: in quotes where it has other signs than names have."""
    plain = re.fullmatch(r"[\w./:@%+-]+", value)
    return value if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def first_rows(place: str, *, hub: bool) -> list[tuple[str, Mapping[str, Any]]]:
    """Some rows of a file, a folder or a hub set. Raises RecordError where there is none."""
    rows = list(
        islice(hub_rows(Source(importers.jsonl, hub=place, streaming=True)) if hub else file_rows(place), TRIED)
    )
    if not rows:
        raise RecordError("holds no row", place=place, remedy="a file with one record per line, or a table")
    return rows


def recognise(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Format:
    """The format that fails on the fewest of the rows; of equals, the first.

    Raises:
        RecordError: none reads a single one; the message says what the rows hold.
    """
    tried = [_tried(rows, name, columns) for name, columns in _candidates(rows)]
    best = max(tried, key=lambda format: (format.read > 0, -format.bad))
    if best.read:
        return best
    place, row = rows[0]
    keys = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
    raise RecordError(
        f"is in no known format; its first row has: {keys}", place=place,
        remedy="prompt, chosen, rejected (data=pairs; other names: data.columns.chosen=...), or data=jsonl",
    )  # fmt: skip


def _candidates(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, dict[str, str]]]:
    yield from ((name, {}) for name in FORMATS)
    first = rows[0][1] if isinstance(rows[0][1], Mapping) else {}
    written = {_plain(column): str(column) for column in reversed(list(first))}
    for importer, columns in COLUMNS.items():
        there = [[written[name] for name in names if name in written] for names in columns.values()]
        for names in product(there[0] or ["prompt"], *there[1:]):
            chosen = dict(zip(columns, names, strict=True))
            if len(set(names)) == len(names):
                yield importer, {own: theirs for own, theirs in chosen.items() if own != theirs}


def _plain(column: object) -> str:
    return re.sub(r"[\s_-]+", "_", str(column).strip().casefold())


def _tried(rows: Sequence[tuple[str, Mapping[str, Any]]], name: str, columns: dict[str, str]) -> Format:
    problems: list[RecordError] = []
    given: Rows = renamed(iter(rows), columns, problems.append) if columns else iter(rows)
    try:
        found = list(getattr(importers, name)(given, problems.append))
    except (RecordError, KeyError, TypeError, ValueError, AttributeError):  # rows of quite another format
        return Format(name, columns)
    voted = sum(bool(record.votes) for record in found)
    return Format(name, columns, voted, len(problems), str(problems[0]) if problems else "")
