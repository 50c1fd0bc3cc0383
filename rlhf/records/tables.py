"""Rows of results as CSV and as Markdown."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV, whole: the file is put in place when it is complete.

    Args:
        path: of the file.
        rows: column -> value; a row without a column leaves its cell empty.
        columns: which, in their order; None = all columns of the rows, in the order in which they appear. No row
            and no columns give an empty file.
    """
    rows = list(rows)
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        if columns:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    unfinished.replace(path)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, ended by a newline; a bar inside a cell is escaped."""
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (columns, *rows))
    return "\n".join([head, "|" + " --- |" * len(columns), *body]) + "\n"
