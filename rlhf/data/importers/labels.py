"""What the sets beside the project share: labels "a", "b" and "tie", and annotations as short lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.importers.raw import listed
from rlhf.records import RecordError


def entries(row: Mapping[str, Any], key: str, fields: str) -> list[list[Any]]:
    """The list of annotations under `key`, each a list of the named fields. Raises RecordError.

    Args:
        row: one raw row.
        key: where the annotations are.
        fields: names of an annotation's fields, separated by blanks; they only count and explain.
    """
    annotations = listed(row, key)
    for n, annotation in enumerate(annotations):
        if not isinstance(annotation, list) or len(annotation) != len(fields.split()):
            remedy = f"[{', '.join(fields.split())}]"
            raise RecordError(f"is {annotation!r}", key=f"{key}[{n}]", remedy=remedy)
    return annotations


def winner(label: Any, a: str, b: str, key: str) -> str:
    """The winner's completion id, or "tie", for the label "a", "b" or "tie". Raises RecordError naming `key`."""
    ids = {"a": a, "b": b, "tie": "tie"}
    if not isinstance(label, str) or label not in ids:
        raise RecordError(f"is {label!r}", key=key, remedy="one of a, b, tie")
    return ids[label]
