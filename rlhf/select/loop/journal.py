"""What a selector's run in the loop has done, append-only: nothing obtained is lost or obtained twice, whenever it is
stopped.

    {"event": "selected", "round": 3, "pairs": [{"pair_id", "row", "utility", "reason", "random", "second"}, ...]}
    {"event": "votes", "round": 3, "pair_id": "...", "votes": [...]}      as soon as the votes on a pair are there
    {"event": "result", "round": 3, ...}                                   what the round came to

A line is whole or it did not happen: half a line at the end, left by a kill, is cut off on opening.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class JournalError(ValueError):
    """A journal that cannot be gone on from; the message names file and line."""


@dataclass
class Journal:
    """Events of one selector's run in order.

    Args:
        path: the file; its folder is made.

    Raises:
        JournalError: a line before the last is not an event, or another process has the journal open.
    """

    path: Path

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise JournalError(
                f"{self.path}: another process is at work on this journal; wait for it or stop it"
            ) from error
        self.events: list[Event] = self._read()

    def _read(self) -> list[Event]:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        events = []
        for number, line in enumerate(whole.decode("utf-8").splitlines(), start=1):
            try:
                event = json.loads(line)
                event["event"], event["round"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise JournalError(
                    f"{self.path}:{number}: not an event of an active run (restore the file, or start a new run)"
                ) from error
            events.append(event)
        return events

    def add(self, event: str, round_: int, **fields: Any) -> Event:
        """Append one event; it is with the operating system when this returns."""
        entry = {"event": event, "round": round_, **fields}
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()
        self.events.append(entry)
        return entry

    def sync(self) -> None:
        """Everything so far on the disk itself."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def of(self, event: str, round_: int | None = None) -> list[Event]:
        """The events of one kind, of one round or of all."""
        return [e for e in self.events if e["event"] == event and round_ in (None, e["round"])]

    def selected(self, round_: int) -> Sequence[Mapping[str, Any]] | None:
        """The pairs chosen in a round; None where it has not been chosen yet."""
        found = self.of("selected", round_)
        return found[0]["pairs"] if found else None
