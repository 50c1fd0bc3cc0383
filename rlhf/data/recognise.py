"""Which importer reads a file: every one is tried on its first rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from typing import Any

from rlhf.data import importers
from rlhf.data.file_formats import Rows
from rlhf.data.source import Importer, Source, file_rows, hub_rows
from rlhf.records import RecordError

TRIED = 200
"""Rows that every importer is tried on."""
FORMATS = (
    "jsonl", "ultrafeedback", "helpsteer", "shp", "summarize_from_feedback", "oasst", "nemo_ranks", "rm_bench",
    "arena", "helpsteer3", "graded", "llamafactory", "hh_rlhf", "pandalm", "qa_feedback", "rankme", "llmbar", "llmbar_pairs", "pairs", "rewardbench",
)  # fmt: skip
"""Options of `data=` by name, the special ones first: where several read all rows, the first is taken."""
COLUMNS = {
    "prompt_key": ("prompt", "question", "instruction", "query", "input", "context", "post"),
    "chosen_key": ("chosen", "better", "preferred", "winner", "accepted", "good", "response_chosen", "answer_chosen"),
    "rejected_key": ("rejected", "worse", "dispreferred", "loser", "bad", "response_rejected", "answer_rejected"),
}  # fmt: skip
"""Names that columns of pairs have elsewhere."""


@dataclass(frozen=True)
class Format:
    """How a file is read.

    name      the option of `data=`
    options   of its importer, where they are not the defaults
    read      records of the first rows that hold votes
    bad       rows that it could not read
    problem   what the first of them lacks; "" where there is none
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    read: int = 0
    bad: int = 0
    problem: str = ""

    @property
    def overrides(self) -> list[str]:
        """What chooses it on the command line, without the place of the data."""
        return [f"data={self.name}", *(f"data.importer.{key}={value}" for key, value in self.options.items())]

    @property
    def importer(self) -> Importer:
        """The importer with its options."""
        return partial(getattr(importers, self.name), **self.options)


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
    tried = [_tried(rows, name, options) for name, options in _candidates(rows)]
    best = max(tried, key=lambda format: (format.read > 0, -format.bad))
    if best.read:
        return best
    place, row = rows[0]
    keys = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
    raise RecordError(
        f"is in no known format; its first row has: {keys}", place=place,
        remedy="prompt, chosen, rejected (data=pairs; other names: data.importer.chosen_key=...), or data=jsonl",
    )  # fmt: skip


def _candidates(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, dict[str, str]]]:
    yield from ((name, {}) for name in FORMATS)
    known = set(rows[0][1]) if isinstance(rows[0][1], Mapping) else set()
    there = [[name for name in names if name in known] for names in COLUMNS.values()]
    for names in product(there[0] or ["prompt"], *there[1:]):
        chosen = zip(COLUMNS, names, strict=True)
        yield "pairs", {key: name for key, name in chosen if name != key.removesuffix("_key")}


def _tried(rows: Sequence[tuple[str, Mapping[str, Any]]], name: str, options: dict[str, str]) -> Format:
    problems: list[RecordError] = []
    given: Rows = iter(rows)
    try:
        found = list(getattr(importers, name)(given, problems.append, **options))
    except (RecordError, KeyError, TypeError, ValueError, AttributeError):  # rows of quite another format
        return Format(name, options)
    voted = sum(bool(record.votes) for record in found)
    return Format(name, options, voted, len(problems), str(problems[0]) if problems else "")
