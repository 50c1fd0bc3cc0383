"""Raw rows to the record: field access with clear errors, and the shapes that many formats share."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import groupby
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from rlhf.data.file_formats import Rows
from rlhf.data.source import each
from rlhf.records import Comparison, OnBad, RecordError, parse, parse_prompt, prompt_hash

Row = Mapping[str, Any]
Options = ParamSpec("Options")


def per_row(
    convert: Callable[Concatenate[Row, Options], Comparison],
) -> Callable[Concatenate[Rows, OnBad, Options], Iterator[Comparison]]:
    """The importer `(rows, on_bad, *, options)` of a format with one record per row, from the row to its record."""

    @wraps(convert)
    def importer(rows: Rows, on_bad: OnBad, /, *args: Options.args, **kwargs: Options.kwargs) -> Iterator[Comparison]:
        return each(rows, on_bad, lambda row: [convert(row, *args, **kwargs)])

    return importer


def need(row: Row, key: str) -> Any:
    """The value under a key that the format requires. Raises RecordError naming the key and those there are."""
    if key not in row or row[key] is None:
        raise RecordError("missing", key=key, remedy=f"this row has {', '.join(map(str, row)) or 'no keys'}")
    return row[key]


def text(row: Row, key: str) -> str:
    """A required string. Raises RecordError."""
    value = need(row, key)
    if not isinstance(value, str):
        raise RecordError(f"must be a string, got {type(value).__name__}", key=key)
    return value


def optional_text(row: Row, key: str) -> str:
    """A string, or "" where the key is absent or null. Raises RecordError."""
    return "" if row.get(key) is None else text(row, key)


def mapping(value: Any, key: str) -> Row:
    """An object; null counts as an empty one. Raises RecordError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RecordError(f"must be an object, got {type(value).__name__}", key=key)
    return value


def objects(row: Row, key: str) -> list[Row]:
    """A required list of objects. Raises RecordError."""
    found = listed(row, key)
    if not all(isinstance(item, Mapping) for item in found):
        raise RecordError("must be a list of objects", key=key)
    return found


def listed(row: Row, key: str) -> list[Any]:
    """A required list (arrays of Parquet included). Raises RecordError."""
    value = need(row, key)
    if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
        raise RecordError(f"must be a list, got {type(value).__name__}", key=key)
    return list(value)


def number(value: Any, key: str) -> float | None:
    """A rating as a number, or None where there is none ("N/A", empty, null, NaN). Raises RecordError."""
    rating = _float(value, key, "a number, or N/A where nobody rated")
    return None if rating is None or math.isnan(rating) else rating


def strength(value: Any, key: str) -> float:
    """A stated strength of preference, 0 where none is stated ("N/A", empty, null).

    Raises RecordError, also on NaN and infinity: a broken number must not pass for "none stated".
    """
    remedy = "a finite number; leave it out, or null, where no strength is stated"
    stated = _float(value, key, remedy)
    if stated is not None and not math.isfinite(stated):
        raise RecordError(f"is {value!r}", key=key, remedy=remedy)
    return stated or 0.0


def _float(value: Any, key: str, remedy: str) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().upper() in ("", "N/A", "NA", "NONE")):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise RecordError(f"is {value!r}", key=key, remedy=remedy) from None


def zero_or_one(row: Row, key: str, meaning: str) -> int:
    """A required 0 or 1, "0" and "1" of CSV included. Raises RecordError with the meaning as its remedy."""
    value = number(need(row, key), key)
    if value not in (0.0, 1.0):
        raise RecordError(f"is {row[key]!r}", key=key, remedy=meaning)
    return int(value)


def part(place: str, *, folder: bool = False) -> str:
    """The part of a set that a row's place names: its hub split, or its file without ending and shard number.

    Args:
        place: `file:line`, or `set[split]:row`.
        folder: the file's folder instead of the file.
    """
    file = place.rpartition(":")[0]
    if file.endswith("]"):
        return file.rpartition("[")[2][:-1]
    path = Path(file)
    return path.parent.name if folder else path.name.partition(".")[0].partition("-0")[0]


def consecutive(rows: Rows, on_bad: OnBad, take: Callable[[Row], tuple[Any, Any]], *, anywhere: bool = False) -> Rows:
    """Neighbouring rows with an equal key as one row `{"rows": values}`, placed where the first of them is.

    Args:
        rows: raw rows; only one group is held in memory.
        on_bad: gets the rows that `take` refuses, each with its own place; the rest of their group stays.
        take: a row to its (key, value); raises RecordError.
        anywhere: rows with an equal key need not be neighbours: all are read before the first group comes out.
    """

    def taken() -> Iterator[tuple[str, Any, Any]]:
        for place, row in rows:
            try:
                if not isinstance(row, Mapping):
                    raise RecordError(f"a row must be an object, got {type(row).__name__}")
                key, value = take(row)
            except RecordError as error:
                on_bad(error.at(place))
            else:
                yield place, key, value

    groups: Iterable[list[tuple[str, Any, Any]]] = (list(g) for _, g in groupby(taken(), lambda member: member[1]))
    if anywhere:
        by_key: dict[Any, list[tuple[str, Any, Any]]] = {}
        for member in taken():
            by_key.setdefault(member[1], []).append(member)
        groups = by_key.values()
    for members in groups:
        yield members[0][0], {"rows": [value for _, _, value in members]}


def completions(texts: Sequence[str], sources: Sequence[Row] = ()) -> list[dict[str, Any]]:
    """Completions c0, c1, ... with their sources."""
    found = list(sources) or [{}] * len(texts)
    return [{"id": f"c{i}", "text": t, "source": dict(s)} for i, (t, s) in enumerate(zip(texts, found, strict=True))]


def record(
    prompt: Any, answers: list[dict[str, Any]], votes: Sequence[Row], *, scale: tuple[float, float] = (1.0, 5.0),
    **more: Any,
) -> Comparison:  # fmt: skip
    """The record, checked; its prompt_id is the hash of the prompt unless `more` gives one. Raises RecordError."""
    parsed = parse_prompt(prompt if isinstance(prompt, str) else messages(prompt, "prompt"))
    kept = {k: v for k, v in more.items() if v is not None}
    raw = {"prompt_id": prompt_hash(parsed), "prompt": prompt, "completions": answers, "votes": list(votes)}
    raw["prompt"] = parsed if isinstance(parsed, str) else [dict(m) for m in parsed]
    return parse(raw | kept, scale)


def hard_pair(
    prompt: Any, chosen: str, rejected: str, *, kind: str = "human", margin: float = 0.0, **more: Any
) -> Comparison:
    """One vote by the annotator `label`: the first of two completions wins. Raises RecordError on equal texts."""
    if chosen == rejected:
        remedy = "drop the row, or store it as a tie in the record format"
        raise RecordError("chosen and rejected are the same text", key="chosen, rejected", remedy=remedy)
    vote = {"annotator": "label", "kind": kind, "pair": ["c0", "c1"], "choice": "c0", "margin": margin}
    return record(prompt, completions([chosen, rejected]), [vote], **more)


def messages(value: Any, key: str) -> list[dict[str, str]]:
    """A non-empty list of `{"role", "content"}`; other keys of a message are dropped. Raises RecordError."""
    if isinstance(value, str) or not hasattr(value, "__iter__") or not list(value):
        raise RecordError("must be a non-empty list of messages", key=key)
    out = []
    for m in value:
        if not isinstance(m, Mapping) or not isinstance(m.get("content"), str) or "role" not in m:
            raise RecordError('must be a list of {"role", "content"}', key=key)
        out.append({"role": str(m["role"]), "content": m["content"]})
    return out


def entries(row: Row, key: str, fields: str) -> list[list[Any]]:
    """The list of annotations under `key`, each a list of the named fields. Raises RecordError.

    Args:
        row: one raw row.
        key: where the annotations are.
        fields: names of an annotation's fields, separated by blanks; they only count and explain.
    """
    annotations = listed(row, key)
    for n, annotation in enumerate(annotations):
        if not isinstance(annotation, list) or len(annotation) != len(fields.split()):
            raise RecordError(f"is {annotation!r}", key=f"{key}[{n}]", remedy=f"[{', '.join(fields.split())}]")
    return annotations


def winner(label: Any, a: str, b: str, key: str) -> str:
    """The winner's completion id, or "tie", for the label "a", "b" or "tie". Raises RecordError naming `key`."""
    ids = {"a": a, "b": b, "tie": "tie"}
    if not isinstance(label, str) or label not in ids:
        raise RecordError(f"is {label!r}", key=key, remedy="one of a, b, tie")
    return ids[label]
