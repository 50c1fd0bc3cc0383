"""The project's own record, as `rlhf.records` writes it."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.data.source import Rows
from rlhf.records import LIKERT, Comparison, OnBad, RecordError, parse, parse_header


def jsonl(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """Records; a header line `{"header": {"likert": [low, high]}}` sets the scale of the rest of its file."""
    scale, file = LIKERT, ""
    for place, row in rows:
        if file != (file := place.rpartition(":")[0]):
            scale = LIKERT
        try:
            if isinstance(row, dict) and set(row) == {"header"}:
                scale = parse_header(row["header"])
                continue
            found = parse(row, scale)
        except RecordError as error:
            on_bad(error.at(place))
        else:
            yield found
