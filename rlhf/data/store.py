"""Prepared rows on disk: one memory-mapped Arrow file per split, written once and shared by all jobs of a sweep.

The store's name is a fingerprint of everything that shaped the rows: data files, aggregation, template,
tokenizer, lengths, split, and the code that prepares them. Memory stays flat in the number of records.
"""

import ast
import hashlib
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray

from rlhf.data.prepare import SCHEMA, Row
from rlhf.data.split_report import SPLITS
from rlhf.stats.arrays import Floats, Ints

CHUNK = 1000  # rows per Arrow record batch
ROOT = Path(__file__).parent.parent


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
            streams: dict[str, pa.RecordBatchStreamWriter] = {}
            for split in SPLITS:
                file = stack.enter_context(pa.OSFile(str(unfinished / f"{split}.arrow"), "wb"))
                streams[split] = stack.enter_context(pa.ipc.new_stream(file, SCHEMA))
            waiting: dict[str, list[Row]] = {s: [] for s in SPLITS}
            for name, row in rows:
                waiting[name].append(row)
                if len(waiting[name]) == CHUNK:
                    streams[name].write_batch(pa.RecordBatch.from_pylist(waiting[name], SCHEMA))
                    waiting[name] = []
            for name, left in waiting.items():
                if left:
                    streams[name].write_batch(pa.RecordBatch.from_pylist(left, SCHEMA))
        (unfinished / "data_report.json").write_text(json.dumps(report(), indent=2))
        os.replace(unfinished, folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


class Rows:
    """One split of a store: `rows[[3, 1]]` gives columns, with the row numbers under `row`."""

    def __init__(self, path: Path) -> None:
        self.table = Dataset.from_file(str(path))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, numbers: list[int]) -> dict[str, Any]:
        columns: dict[str, Any] = self.table[numbers]
        return columns | {"row": numbers}

    def texts(self) -> Iterator[tuple[NDArray[np.int32], list[NDArray[np.int32]]]]:
        """Tokens of the prompt and of the completions of every row, as views of the file."""
        for batch in self.table.data.table.select(["prompt", "responses"]).to_batches():
            prompts, answers = batch.columns
            starts, places = prompts.offsets.to_numpy(), answers.offsets.to_numpy()
            cuts = answers.values.offsets.to_numpy()
            prompt, tokens = prompts.values.to_numpy(), answers.values.values.to_numpy()
            for row in range(len(batch)):
                ends = cuts[places[row] : places[row + 1] + 1]
                yield prompt[starts[row] : starts[row + 1]], [tokens[a:b] for a, b in pairwise(ends)]

    def texts_of(self, numbers: list[int]) -> list[tuple[list[int], list[list[int]]]]:
        """The same of some rows, as lists."""
        found = self.table.select_columns(["prompt", "responses"])[numbers]
        return list(zip(found["prompt"], found["responses"], strict=True))

    def lengths(self) -> tuple[Ints, Ints, Ints]:
        """Tokens of every prompt [R], number of its completions [R], tokens of all completions one after the other.

        Read column by column, not row by row.
        """
        found: list[list[Any]] = [[np.zeros(0, np.int64)] for _ in range(3)]
        for batch in self.table.data.to_batches():
            responses = batch.column("responses")
            ends = responses.offsets.to_numpy()
            found[0].append(pc.list_value_length(batch.column("prompt")).to_numpy())
            found[1].append(np.diff(ends))
            found[2].append(pc.list_value_length(responses.values).to_numpy()[ends[0] : ends[-1]])
        prompts, counts, responses = (np.concatenate(parts).astype(np.int64) for parts in found)
        return prompts, counts, responses

    def tokens(self) -> Ints:
        """Tokens of every row, its prompt counted once."""
        prompts, counts, responses = self.lengths()
        total = np.append(0, np.cumsum(responses))
        ends = np.cumsum(counts)
        found: Ints = prompts + total[ends] - total[ends - counts]
        return found

    def pairs(self) -> Floats:
        """How much the pairs of every row count together [R]."""
        column = self.table.data.column("pair_weight")
        parts = [np.zeros(0)]
        for chunk in column.chunks:
            total = np.append(0, np.cumsum(chunk.values.to_numpy(zero_copy_only=False), dtype=np.float64))
            parts.append(np.diff(total[chunk.offsets.to_numpy()]))
        return np.concatenate(parts) / 2


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change with any of the parts or with the code that prepares rows with them."""
    digest = hashlib.sha256()
    for path in code(*parts):
        digest.update(path.read_bytes())
    for part in parts:
        digest.update(describe(part).encode() + b"\x00")
    return digest.hexdigest()[:16]


def describe(part: Any) -> str:
    """A text that is equal for equal settings: partials by function and arguments, files by size and time."""
    if isinstance(part, partial):
        return f"{describe(part.func)}({sorted(part.keywords.items())})"
    if inspect.isroutine(part):
        return f"{part.__module__}.{part.__qualname__}"
    if hasattr(part, "fingerprint"):
        return str(part.fingerprint)
    return repr(part)


def code(*parts: Any) -> list[Path]:
    """The files that the rows depend on: this one, those that the parts are written in, and what these import of us."""
    found: set[Path] = set()
    waiting = {Path(__file__), *(file for part in parts for file in _written_in(part, set()))}
    while waiting:
        found.add(file := waiting.pop())
        waiting |= _imported(file) - found
    return sorted(found)


def _written_in(part: Any, seen: set[int]) -> set[Path]:
    """The files of a part's class or function, and of the parts that it holds; not those of other packages."""
    if id(part) in seen:
        return set()
    seen.add(id(part))
    name = getattr(part, "__module__", None) or "builtins"
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    own: set[Path] = set()
    if isinstance(part, partial):
        inside = [part.func, *part.keywords.values()]
    elif isinstance(part, list | tuple):
        inside = list(part)
    elif not file or "site-packages" in file or name.partition(".")[0] in sys.stdlib_module_names:
        return set()
    else:
        own, inside = {Path(file)}, list(getattr(part, "__dict__", {}).values())
    return own.union(*(_written_in(one, seen) for one in inside))


def _imported(file: Path) -> set[Path]:
    """The project's own files that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    own = (ROOT.joinpath(*name.split(".")[1:]) for name in names if name.startswith(f"{ROOT.name}."))
    files = (place for path in own for place in (path.with_suffix(".py"), path / "__init__.py"))
    return {place for place in files if place.is_file()}
