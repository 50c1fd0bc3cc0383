"""Counting without memory: rows of small numbers that go to disk by their hash, so that equal hashes meet again."""

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

BUCKETS = 64  # files that rows are spread over by the first bits of their hash; one of them is in memory while counting
HELD = 16_384  # rows in memory before they are written


class Spill:
    """A growing table whose memory does not grow: `add` rows, then read `buckets`.

    Args:
        fields: of a row beside `hash` (16 hex digits when added, a 64-bit integer when read).
    """

    def __init__(self, fields: list[tuple[str, DTypeLike]]) -> None:
        self.dtype = np.dtype([("hash", np.uint64), *fields])
        self._held: list[tuple[int, ...]] = []
        self._files: list[IO[bytes]] = []

    def add(self, hash: str, *values: int) -> None:
        """Append one row."""
        self._held.append((int(hash, 16), *values))
        if len(self._held) == HELD:
            self._write()

    def buckets(self) -> Iterator[NDArray[Any]]:
        """All rows in parts; rows with the same hash are in the same part."""
        if not self._files:
            yield np.array(self._held, dtype=self.dtype)
            return
        self._write()
        for file in self._files:
            file.seek(0)
            yield np.frombuffer(file.read(), dtype=self.dtype)

    def _write(self) -> None:
        if not self._files:
            self._files = [tempfile.TemporaryFile() for _ in range(BUCKETS)]  # noqa: SIM115  # they live as long as the spill
        rows = np.array(self._held, dtype=self.dtype)
        place = rows["hash"] >> np.uint64(58)
        rows = rows[np.argsort(place, kind="stable")]
        ends = np.cumsum(np.bincount(place.astype(np.int64), minlength=BUCKETS))
        for file, part in zip(self._files, np.split(rows, ends[:-1]), strict=True):
            file.write(part.tobytes())
        self._held = []
