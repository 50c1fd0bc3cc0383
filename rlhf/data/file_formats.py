"""Files to raw rows: JSON Lines, JSON, Parquet, Arrow, CSV, text; `.gz` and `.zst` too. The name says which."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf.records import OnBad, RecordError, lines, open_text

Rows = Iterator[tuple[str, Mapping[str, Any]]]
"""Raw rows as (place, row); the place is `file:line` or `hub-name[split]:row` and goes into error messages."""

SEPARATORS = ",;\t|"
"""What may stand between the cells of a table; the most frequent one of its first line is taken."""
COMPRESSED = (".gz", ".zst")


def extension(path: Path) -> str:
    """What says the format: the last suffix that is no compression's."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def _json_array(path: Path, on_bad: OnBad) -> Rows:
    """A `.json` file: one array of objects; JSON Lines under that name is accepted too."""
    with open_text(path) as file:
        first = file.read(1)
        while first.isspace():
            first = file.read(1)
        if first == "[":
            try:
                rows = json.loads("[" + file.read())
            except json.JSONDecodeError as error:
                problem, place = f"is not JSON: {error.msg}", f"{path}:{error.lineno}"
                raise RecordError(problem, place=place, remedy="one array of objects") from error
            yield from ((f"{path}:[{n}]", row) for n, row in enumerate(rows))
            return
    yield from lines(path, on_bad)


def _parquet(path: Path, on_bad: OnBad) -> Rows:
    from pyarrow import ArrowInvalid, parquet

    try:
        table = parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise RecordError(f"is not Parquet: {error}", place=str(path)) from error
    number = 0
    for batch in table.iter_batches(1000):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:row {number}", row


def _arrow(path: Path, on_bad: OnBad) -> Rows:
    """A stream or a file of Arrow, as `datasets` stores them."""
    from datasets import Dataset
    from pyarrow import ArrowInvalid

    try:
        table = Dataset.from_file(str(path))
    except ArrowInvalid as error:
        raise RecordError(f"is not Arrow: {error}", place=str(path)) from error
    for number, row in enumerate(table, start=1):
        yield f"{path}:row {number}", row


def _csv(path: Path, on_bad: OnBad) -> Rows:
    """A table with a line of names; cells in quotes may hold separators and line breaks."""
    with open_text(path) as file:
        first = file.readline()
        separator = "\t" if extension(path) == ".tsv" else max(SEPARATORS, key=first.count)
    csv.field_size_limit(2**31 - 1)
    with open_text(path) as file:
        reader = csv.DictReader(file, delimiter=separator)
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row:
                problem = f"has more cells than the {len(row) - 1} that its first line names"
                on_bad(RecordError(problem, place=place, remedy="put a cell that holds a separator in quotes"))
                continue
            yield place, row


def _text(path: Path, on_bad: OnBad) -> Rows:
    """One prompt per line."""
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path}:{number}", {"prompt": line.strip()}


READERS: Mapping[str, Callable[[Path, OnBad], Rows]] = {
    ".jsonl": lines,
    ".ndjson": lines,
    ".json": _json_array,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _text,
}
