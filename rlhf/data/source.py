"""Where records come from: local files (see `rlhf.data.file_formats`), a saved `datasets` folder, or a set on the hub.

A `Source` turns raw rows into records through an importer and can be read again and again, one record at a
time. An importer is a function `(rows, on_bad) -> iterator of Comparison`; see `rlhf.data.importers`.
"""

import glob
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rlhf.data.file_formats import READERS, Rows, extension
from rlhf.records import Comparison, OnBad, RecordError, readable, stop

Importer = Callable[[Rows, OnBad], Iterator[Comparison]]

BESIDE = ("dataset_info.json", "state.json")
"""What `datasets` writes beside its data."""
SKIPPED_SHOWN = 100  # how many skipped rows keep their message; all are counted


class RecordStream(Protocol):
    """Anything that gives records: a `Source`, a toy world, or a part of one."""

    def records(self) -> Iterator[Comparison]:
        """The records from the start."""


class RecordSource(RecordStream, Protocol):
    """A stream that tells of the rows that it could not read."""

    skipped: list[str]
    skipped_count: int


@dataclass
class Source:
    """Records of one data set.

    Args:
        importer: raw rows to records.
        path: a file, a folder (all its data files), a glob, or a list of these. Wins over `hub`.
        hub: name of a set on the Hugging Face hub, or a local folder in its layout, read by `datasets`.
        hub_config: configuration of the hub set, where it has several.
        hub_split: which split of the hub set.
        streaming: read the hub set as a stream instead of downloading it first.
        on_error: `raise` stops at the first bad row; `skip` counts it, keeps its message and goes on.
        limit: stop after this many records.
        columns: what the importer's columns are called here: {"chosen": "better"}; None = as the importer calls it.
        on_skip: is told of every skipped row; `skipped` keeps the first messages only.

    Raises:
        RecordError: on a bad row under `on_error=raise`, and when there is nothing to read.
    """

    importer: Importer
    path: str | list[str] | None = None
    hub: str | None = None
    hub_config: str | None = None
    hub_split: str = "train"
    streaming: bool = False
    on_error: str = "raise"
    limit: int | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list, init=False)
    skipped_count: int = field(default=0, init=False)
    on_skip: OnBad = field(default_factory=lambda: lambda error: None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise RecordError(f"is {self.on_error!r}", key="data.on_error", remedy="raise or skip")
        if self.path is None and self.hub is None:
            raise RecordError("no data given", key="data.path", remedy="data.path=<file> or data.hub=<name>")

    @property
    def fingerprint(self) -> str:
        """Changes with the importer's options and with any file's name, size or time of change."""
        keywords = getattr(self.importer, "keywords", {})
        name = getattr(self.importer, "func", self.importer).__qualname__
        paths = [] if self.path is None else _files(self.path)
        files: list[Any] = [(str(file), *_size_and_time(file)) for file in paths] or [None]
        others = (self.hub, self.hub_config, self.hub_split, self.limit, self.on_error, *sorted(self._called.items()))
        is_file = {k: isinstance(v, str) and Path(v).is_file() for k, v in keywords.items()}
        given = [(k, v, *(_size_and_time(Path(v)) if is_file[k] else ())) for k, v in sorted(keywords.items())]
        return repr((name, given, files, others))

    def records(self) -> Iterator[Comparison]:
        """The records from the start, as a stream. Skipped rows are counted anew on every reading."""
        self.skipped, self.skipped_count = [], 0
        rows = hub_rows(self) if self.path is None else file_rows(self.path, self._on_bad)
        named = renamed(rows, self._called, self._on_bad) if self._called else rows
        return islice(self.importer(named, self._on_bad), self.limit)

    @property
    def _called(self) -> dict[str, str]:
        return {own: theirs for own, theirs in self.columns.items() if theirs is not None}

    def _on_bad(self, error: RecordError) -> None:
        if self.on_error == "raise":
            raise error
        self.skipped_count += 1
        if len(self.skipped) < SKIPPED_SHOWN:
            self.skipped.append(str(error))
        self.on_skip(error)


def each(
    rows: Rows, on_bad: OnBad, convert: Callable[[Mapping[str, Any]], Iterable[Comparison]]
) -> Iterator[Comparison]:
    """Apply `convert` row by row; a RecordError gets the row's place and goes to `on_bad`, the rest goes on."""
    for place, row in rows:
        try:
            if not isinstance(row, Mapping):
                raise RecordError(f"a row must be an object, got {type(row).__name__}")
            records = list(convert(row))
        except RecordError as error:
            on_bad(error.at(place))
        else:
            yield from records


def renamed(rows: Iterable[tuple[str, Any]], columns: Mapping[str, str], on_bad: OnBad) -> Rows:
    """Rows whose columns have the importer's names; one that lacks a column goes to `on_bad`.

    Args:
        rows: raw rows.
        columns: the importer's name -> the name in the rows.
        on_bad: gets the errors.
    """
    for place, row in rows:
        if not isinstance(row, Mapping):  # the importer says so
            yield place, row
            continue
        absent = [own for own, theirs in columns.items() if theirs not in row]
        if absent:
            problem, remedy = f"no column {columns[absent[0]]!r}", f"this row has {', '.join(map(str, row))}"
            on_bad(RecordError(problem, key=f"data.columns.{absent[0]}", remedy=remedy, place=place))
            continue
        rest = {name: value for name, value in row.items() if name not in columns.values()}
        yield place, rest | {own: row[theirs] for own, theirs in columns.items()}


def file_rows(path: str | list[str], on_bad: OnBad = stop) -> Rows:
    """Rows of local files, in the order of their names; the format follows the file's extension.

    A file without any row is an error like a bad row: it goes to `on_bad`.
    """
    for file in _files(path):
        _size_and_time(file)
        ending = extension(file)
        if ending not in READERS:
            remedy = f"one of {', '.join(READERS)}, each also with .gz or .zst"
            raise RecordError(f"unknown extension '{ending}'", place=str(file), remedy=remedy)
        with readable(file):
            yield from _never_empty(READERS[ending], file, on_bad)


def _never_empty(reader: Callable[[Path, OnBad], Rows], file: Path, on_bad: OnBad) -> Rows:
    met = 0

    def noted(error: RecordError) -> None:
        nonlocal met
        met += 1
        on_bad(error)

    for row in reader(file, noted):
        met += 1
        yield row
    if not met:
        on_bad(_empty(file))


def _empty(file: object) -> RecordError:
    remedy = "one record per line, or a table with rows under its line of names"
    return RecordError("is empty: it holds no row", place=str(file), remedy=remedy)


def hub_rows(source: Source) -> Rows:
    """Rows of a hub set through `datasets`; needs a network unless it is cached or a local folder.

    Raises:
        RecordError: the set is not there, or there is no network and no copy of it.
    """
    from datasets import load_dataset

    split = source.hub_split
    try:
        stored = load_dataset(source.hub, source.hub_config, split=split, streaming=source.streaming)
    except OSError as error:  # ConnectionError, or FileNotFoundError of a name that is not there
        raise RecordError(
            f"cannot be read from the Hugging Face hub: {error}", place=str(source.hub), key="data.hub",
            remedy="data.path=<file> reads a file that is here; the hub needs a network or a cached copy",
        ) from error  # fmt: skip
    for number, row in enumerate(stored, start=1):
        yield f"{source.hub}[{split}]:{number}", row


def check_files(path: str | list[str]) -> None:
    """Every file is there, and one at least holds something, without reading one. Raises RecordError."""
    files = _files(path)
    if not any([_size_and_time(file)[0] for file in files]):
        raise _empty(files[0])


def _files(path: str | list[str]) -> list[Path]:
    found: list[Path] = []
    for part in [path] if isinstance(path, str | Path) else path:
        if Path(part).is_dir():
            _one_split(Path(part))
            found += sorted(p for p in Path(part).rglob("*") if extension(p) in READERS and p.name not in BESIDE)
        else:
            names = sorted(glob.glob(str(part))) if glob.has_magic(str(part)) else [part]
            found += [Path(name) for name in names]
    if not found:
        raise RecordError("no data file found", place=str(path), remedy=f"data.path must match {', '.join(READERS)}")
    return found


def _one_split(folder: Path) -> None:
    """A folder that `DatasetDict.save_to_disk` wrote holds splits, and one must be chosen."""
    listing = folder / "dataset_dict.json"
    if listing.is_file():
        splits = json.loads(listing.read_text()).get("splits", [])
        remedy = f"data.path={folder}/{splits[0] if splits else '<split>'}"
        raise RecordError(f"holds the splits {', '.join(splits)}", place=str(folder), key="data.path", remedy=remedy)


def _size_and_time(path: Path) -> tuple[int, int]:
    if not path.is_file():
        raise RecordError("no such file", place=str(path), remedy="check data.path")
    return path.stat().st_size, path.stat().st_mtime_ns
