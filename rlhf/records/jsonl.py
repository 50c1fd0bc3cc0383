"""The record on disk: one prompt, its completions and all raw votes, as one line of UTF-8 JSON (JSON Lines).

    {"prompt_id": "p17", "prompt": "text" | [{"role": "user", "content": "..."}], "domain": "optional",
     "completions": [{"id": "c0", "text": "...", "source": {"model": "...", "temperature": 0.9}}, ...],
     "votes": [{"annotator": "w12", "kind": "human|ai|simulated", "criterion": "overall", "seconds": 12.4,
                "pair": ["c0", "c1"], "choice": "c0" | "c1" | "tie"        and, from one who is not sure, "p": 0.8
                | "ranking": [["c2"], ["c0", "c1"]]            best first, ties share a list
                | "likert": {"c0": 4, "c1": 2}}]}              1..5 unless the header says otherwise

A file may begin with one header line, `{"header": {"likert": [1, 6]}}`. Unknown keys are refused, because a
mistyped `vote` would silently lose the votes; keys of your own go under `meta`, which a record, a completion
and a vote may carry and which is written back unchanged. Standard library only, but for files that end in `.zst`.
"""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from rlhf.records.parsing import parse, parse_header
from rlhf.records.types import LIKERT, Comparison, RecordError, Vote

OnBad = Callable[[RecordError], None]
"""What to do with a bad line: raise (`stop`), or note it and go on to the next line."""


TABLES = (".csv", ".tsv")
"""Names of files whose quoted cells may hold line breaks, which must stay as they are."""


def stop(error: RecordError) -> NoReturn:
    """The default for a bad line: raise its error."""
    raise error


def open_text(path: Path, mode: str = "r") -> IO[str]:
    """A UTF-8 text file, a byte order mark left out; through gzip or zstd where its name ends in `.gz` or `.zst`."""
    encoding = "utf-8-sig" if mode == "r" else "utf-8"
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, mode + "t", encoding=encoding))
    if path.suffix == ".zst":
        return io.TextIOWrapper(_zstd(path, mode), encoding=encoding)
    return path.open(mode, encoding=encoding, newline="" if path.suffix in TABLES and mode == "r" else None)


def _zstd(path: Path, mode: str) -> IO[bytes]:
    import pyarrow

    if mode == "r":
        return cast(IO[bytes], io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd")))
    return cast(IO[bytes], io.BufferedWriter(pyarrow.output_stream(str(path), compression="zstd")))


def lines(path: str | Path, on_bad: OnBad = stop) -> Iterator[tuple[str, Any]]:
    """Each non-empty line of a JSON Lines file (`.gz` and `.zst` too) as (`file:line`, decoded value), one at a time.

    Raises:
        RecordError: the file is missing, or is not gzip though its name says so; `on_bad` gets the lines that are
            not UTF-8 or not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError("no such file", place=str(path), remedy="check data.path")
    for number, line in enumerate(_byte_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            value = json.loads(line.decode("utf-8"))
            if b"\\ud" in line.lower():  # an escaped half of a character has no UTF-8
                json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeError as error:
            on_bad(RecordError(f"is not UTF-8: {error}", place=place, remedy="save as UTF-8"))
        except json.JSONDecodeError as error:
            problem = f"is not JSON: {error.msg} at column {error.colno}"
            on_bad(RecordError(problem, place=place, remedy="one whole JSON object per line"))
        except RecursionError:
            on_bad(RecordError("is nested too deeply", place=place, remedy="one flat JSON object per line"))
        else:
            yield place, value


def _byte_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file, through gzip or zstd; without the byte order mark that some editors put first."""
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".zst": partial(_zstd, mode="r")}
    with readable(path), openers.get(path.suffix, partial(open, mode="rb"))(path) as file:
        for number, line in enumerate(file):
            yield line.removeprefix(codecs.BOM_UTF8) if number == 0 else line


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Inside, a file that cannot be decompressed or decoded raises a RecordError with its name."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        remedy = "the file is cut or damaged, or is not gzip: copy it again"
        raise RecordError(f"gzip fails: {error}", place=str(path), remedy=remedy) from error
    except OSError as error:
        if "ZSTD" not in str(error):
            raise
        remedy = "the file is cut or damaged, or is not zstd: copy it again"
        raise RecordError(f"zstd fails: {error}", place=str(path), remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise RecordError(f"is not UTF-8: {error}", place=str(path), remedy="save as UTF-8") from error


def read(path: str | Path, on_bad: OnBad = stop) -> Iterator[Comparison]:
    """The records of a JSON Lines file as a stream; memory does not grow with the file.

    Args:
        path: the file; a name that ends in `.gz` is read through gzip.
        on_bad: gets the `RecordError` (file, line, key, remedy) of every bad line; by default it is raised.
    """
    return parse_rows(lines(path, on_bad), on_bad)


def parse_rows(rows: Iterable[tuple[str, Any]], on_bad: OnBad) -> Iterator[Comparison]:
    """Decoded lines with their places (`file:line`) as records; a header sets the scale of the rest of its file."""
    scale, file = LIKERT, ""
    for place, raw in rows:
        if file != (file := place.rpartition(":")[0]):
            scale = LIKERT
        try:
            if isinstance(raw, dict) and set(raw) == {"header"}:
                scale = parse_header(raw["header"])
                continue
            record = parse(raw, scale)
        except RecordError as error:
            on_bad(error.at(place))
        else:
            yield record


def _vote_json(vote: Vote) -> dict[str, Any]:
    out: dict[str, Any] = {"annotator": vote.annotator, "kind": vote.kind, "criterion": vote.criterion}
    if vote.seconds is not None:
        out["seconds"] = vote.seconds
    if vote.gold:
        out["gold"] = True
    if vote.pair is not None:
        out |= {"pair": list(vote.pair), "choice": vote.choice}
        out |= {"margin": vote.margin} if vote.margin else {}
        out |= {} if vote.p is None else {"p": vote.p}
    if vote.ranking is not None:
        out["ranking"] = [list(group) for group in vote.ranking]
    if vote.likert is not None:
        out["likert"] = dict(vote.likert)
    return out | _meta(vote.meta)


def _meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {"meta": dict(meta)} if meta else {}


def dump(record: Comparison) -> dict[str, Any]:
    """The record as the JSON object of one line; `parse(dump(r)) == r`."""
    prompt = record.prompt if isinstance(record.prompt, str) else [dict(m) for m in record.prompt]
    texts = [{"id": c.id, "text": c.text, "source": dict(c.source), **_meta(c.meta)} for c in record.completions]
    domain = {} if record.domain is None else {"domain": record.domain}
    out = {"prompt_id": record.prompt_id, "prompt": prompt, **domain, "completions": texts}
    return out | {"votes": [_vote_json(v) for v in record.votes]} | _meta(record.meta)


def write(path: str | Path, records: Iterable[Comparison], *, likert: tuple[float, float] = LIKERT) -> int:
    """Write records as JSON Lines (gzip when the name ends in `.gz`), streaming; returns how many.

    Written to a neighbour file first and renamed at the end, so a crash leaves no half file.
    """
    path = Path(path)
    partial = path.with_name("partial-" + path.name)
    count = 0
    with open_text(partial, "w") as file:
        if likert != LIKERT:
            file.write(json.dumps({"header": {"likert": list(likert)}}) + "\n")
        for record in records:
            file.write(json.dumps(dump(record), ensure_ascii=False) + "\n")
            count += 1
    partial.replace(path)
    return count
