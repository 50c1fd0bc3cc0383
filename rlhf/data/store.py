"""Prepared rows on disk: one memory-mapped Arrow file per split, written once and shared by all jobs of a sweep.

The store's name is a fingerprint of everything that shaped the rows: data files, aggregation, template,
tokenizer, lengths, split, and the project's own code. Memory stays flat in the number of records.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from rlhf.data.prepare import SCHEMA, Row
from rlhf.stats.arrays import Ints

SPLITS = ("train", "val", "test")
CHUNK = 1000
"""Rows per Arrow record batch."""


def write_store(folder: Path, rows: Iterable[tuple[str, Row]], report: Any) -> None:
    """Write rows by split, and at the end `report()` as data_report.json; the folder appears whole or not at all.

    Args:
        folder: where the store will be; left alone when another job has made it meanwhile.
        rows: (split, row) pairs.
        report: called after the last row.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        with ExitStack() as stack:
            writers = {s: stack.enter_context(_Writer(unfinished / f"{s}.arrow")) for s in SPLITS}
            for split, row in rows:
                writers[split].add(row)
        (unfinished / "data_report.json").write_text(json.dumps(report(), indent=2))
        os.replace(unfinished, folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


class _Writer:
    """Appends rows to an Arrow stream file, a thousand at a time."""

    def __init__(self, path: Path) -> None:
        self.sink = pa.OSFile(str(path), "wb")
        self.stream = pa.ipc.new_stream(self.sink, SCHEMA)
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if len(self.rows) == CHUNK:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.stream.write_batch(pa.RecordBatch.from_pylist(self.rows, SCHEMA))
        self.rows = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()
        self.stream.close()
        self.sink.close()


class Rows:
    """One split of a store: `rows[[3, 1]]` gives columns, with the row numbers under `row`."""

    def __init__(self, path: Path) -> None:
        self.table = Dataset.from_file(str(path))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, numbers: list[int]) -> dict[str, Any]:
        columns: dict[str, Any] = self.table[numbers]
        return columns | {"row": numbers}

    def tokens(self) -> Ints:
        """Tokens of every row, its prompt counted once. Read column by column, not row by row."""
        lengths = []
        for batch in self.table.data.to_batches():
            prompt, responses = batch.column("prompt"), batch.column("responses")
            ends = responses.offsets.to_numpy()
            inner = np.append(0, np.cumsum(pc.list_value_length(responses.values).to_numpy()))
            lengths.append(pc.list_value_length(prompt).to_numpy() + inner[ends[1:]] - inner[ends[:-1]])
        return np.concatenate(lengths) if lengths else np.zeros(0, np.int64)


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change with any of the parts or with the project's code."""
    digest = hashlib.sha256(_code().encode())
    for part in parts:
        digest.update(describe(part).encode() + b"\x00")
    return digest.hexdigest()[:16]


def describe(part: Any) -> str:
    """A text that is equal for equal settings: partials by function and arguments, files by size and time."""
    if isinstance(part, partial):
        return f"{part.func.__module__}.{part.func.__qualname__}({sorted(part.keywords.items())})"
    if hasattr(part, "fingerprint"):
        return str(part.fingerprint)
    return repr(part)


def _code() -> str:
    root = Path(__file__).parent.parent
    parts = sorted([*root.glob("*.py"), *root.glob("data/**/*.py"), *root.glob("annotate/*.py")])
    return hashlib.sha256(b"".join(p.read_bytes() for p in parts)).hexdigest()
