"""One part of a data set, read through its splitter: train, val, test, or all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from rlhf.records import Comparison, RecordError

if TYPE_CHECKING:
    from rlhf.data.splits import Splitter

PARTS = ("train", "val", "test", "all")


class RecordStream(Protocol):
    """Anything that gives records: `rlhf.data.source.Source`, a toy world, or a part of one."""

    def records(self) -> Iterator[Comparison]:
        """The records from the start."""


class SplitRecords:
    """The records of one part, as a stream.

    Args:
        source: all the records.
        splitter: fitted here where it needs it, once.
        part: one of `PARTS`.

    Raises:
        ValueError: another name.
    """

    def __init__(self, source: RecordStream, splitter: Splitter, part: str) -> None:
        if part not in PARTS:
            raise RecordError(f"part={part}: one of {', '.join(PARTS)}")
        self.source, self.splitter, self.part = source, splitter, part
        if part != "all" and splitter.needs_fit:
            splitter.fit(source.records())

    def records(self) -> Iterator[Comparison]:
        """From the start."""
        every = self.part == "all"
        return (r for r in self.source.records() if every or self.splitter.split_of(r) == self.part)
