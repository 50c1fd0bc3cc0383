"""A sampling run: tasks to a file of records without votes, with a report beside it; goes on after a kill.

<out>                 the records that passed the filters
<out>.report.json     what was read, kept and dropped, and why
<out>.dropped.jsonl   every dropped completion with its reason
<out>.partial/        while the run goes on: settings.json and samples.jsonl, one prompt per line
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.collect.filtering import Filtering
from rlhf.collect.prompts import Curation, Task
from rlhf.collect.sampling import Completer
from rlhf.records import Comparison, RecordError, dump, parse, write


@dataclass
class SamplingRun:
    """Everything a run needs.

    Args:
        out: the file of records.
        curation: has chosen the tasks; its counts go into the report.
        completer: answers them.
        pick: which completions of a record stay, before the filters.
        filtering: the filters.
        settings: what the samples depend on; a partial run with other settings is refused.
        on_record: is told of every finished prompt (progress).
    """

    out: Path
    curation: Curation
    completer: Completer
    pick: Callable[[Comparison], Comparison]
    filtering: Filtering
    settings: dict[str, Any]
    on_record: Callable[[int, int], None] = lambda done, total: None

    def __call__(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """Sample, filter, write; returns the report.

        Raises:
            RecordError: `out` exists, or a partial run with other settings is beside it.
        """
        if self.out.exists():
            raise RecordError(
                "exists already", place=str(self.out), remedy="out=<another file>, or move it away"
            )
        self.out.parent.mkdir(parents=True, exist_ok=True)
        samples = self._sampled(tasks)
        dropped = self.out.with_name(self.out.name + ".dropped.jsonl")
        with dropped.open("w", encoding="utf-8") as file:
            records = (self.pick(record) for record in _read(samples))
            kept = self.filtering(records, lambda d: file.write(json.dumps(d, ensure_ascii=False) + "\n"))
            write(self.out, kept)
        report = {
            "prompts": self.curation.report(list(tasks)),
            "sampling": _counts(samples),
            "filters": self.filtering.as_dict(),
            "settings": self.settings,
        }
        Path(f"{self.out}.report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(samples.parent)
        return report

    def _sampled(self, tasks: Sequence[Task]) -> Path:
        """The file with one line per task, finished tasks taken from an earlier run."""
        folder = Path(f"{self.out}.partial")
        folder.mkdir(exist_ok=True)
        self._same_settings(folder / "settings.json")
        samples = folder / "samples.jsonl"
        done = _whole_lines(samples)
        with samples.open("a", encoding="utf-8") as file:
            for number, task in enumerate(tasks[done:], start=done + 1):
                self.completer.counts.clear()
                line = {"record": dump(self.completer(task)), "counts": dict(self.completer.counts)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
                self.on_record(number, len(tasks))
        return samples

    def _same_settings(self, path: Path) -> None:
        text = json.dumps(self.settings, indent=2, sort_keys=True)
        if path.exists() and path.read_text() != text:
            remedy = f"use the same settings to go on, or delete {path.parent}"
            raise RecordError("a run with other settings stopped here", place=str(path), remedy=remedy)
        path.write_text(text)


def _read(samples: Path) -> Iterator[Comparison]:
    with samples.open(encoding="utf-8") as file:
        for line in file:
            yield parse(json.loads(line)["record"])


def _whole_lines(path: Path) -> int:
    """How many whole lines the file has; a torn last line, left by a kill, is cut off."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
    return data.count(b"\n")


def _counts(samples: Path) -> dict[str, int]:
    """Sums of the counts of all prompts, whichever process made them."""
    total: Counter[str] = Counter()
    with samples.open(encoding="utf-8") as file:
        for line in file:
            total.update(json.loads(line)["counts"])
    return dict(total)
