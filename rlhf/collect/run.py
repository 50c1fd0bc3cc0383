"""A sampling run: tasks to a file of records without votes, with a report beside it; goes on after a kill.

<out>                 the records that passed the filters
<out>.report.json     what was read, kept and dropped, and why
<out>.dropped.jsonl   everything that was left out, with its stage and reason: rows that could not be read, prompts that
                      curation passed over, completions that were not picked, that a filter dropped, or left alone
<out>.partial/        while the run goes on: settings.json and samples.jsonl, one prompt per line
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rlhf.collect.filtering import Filtering
from rlhf.collect.prompts import Curation, Dropped, Task
from rlhf.collect.sampling import Completer
from rlhf.data.source import RecordSource, Source
from rlhf.records import Comparison, RecordError, dump, parse, write


@dataclass
class SamplingRun:
    """Everything a run needs.

    Args:
        out: the file of records.
        curation: chooses the tasks.
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

    def __call__(self, source: RecordSource) -> dict[str, Any]:
        """Read, choose, sample, filter, write; returns the report.

        Raises:
            RecordError: `out` exists, or a partial run with other settings is beside it.
        """
        if self.out.exists():
            raise RecordError("exists already", place=str(self.out), remedy="out=<another file>, or move it away")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.out.with_name(self.out.name + ".dropped.jsonl").open("w", encoding="utf-8") as file:
            if isinstance(source, Source):
                source.on_skip = lambda error: _note(file, "read", {"reason": str(error)})
            tasks = self.curation(source.records(), lambda dropped: _note(file, "curation", dropped))
            samples = self._sampled(tasks)
            picked = (self._picked(parse(line["record"]), file) for line in _lines(samples))
            write(self.out, self.filtering(picked, lambda dropped: _note(file, "filter", dropped)))
        report = {
            "unreadable": source.skipped_count,
            "prompts": self.curation.report(tasks),
            "sampling": _sums(samples, "counts"),
            "usage": _sums(samples, "usage"),
            "filters": self.filtering.as_dict(),
            "settings": self.settings,
        }
        Path(f"{self.out}.report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(samples.parent)
        return report

    def _picked(self, record: Comparison, file: IO[str]) -> Comparison:
        picked = self.pick(record)
        ids = {c.id for c in picked.completions}
        for left in record.completions:
            if left.id not in ids:
                named = {"prompt_id": record.prompt_id, "completion_id": left.id}
                _note(file, "pick", named | {"reason": "not picked", "text": left.text})
        return picked

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
                self.completer.usage.clear()
                record = dump(self.completer(task))
                line = {"record": record, "counts": self.completer.counts, "usage": self.completer.usage}
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


def _lines(samples: Path) -> Iterator[dict[str, Any]]:
    with samples.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


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


def _sums(samples: Path, key: str) -> dict[str, float]:
    """Sums of the numbers of all prompts, whichever process made them."""
    total = Counter[str]()
    for line in _lines(samples):
        total.update(line[key])
    return dict(total)


def _note(file: IO[str], stage: str, dropped: Dropped) -> None:
    file.write(json.dumps({"stage": stage} | dropped, ensure_ascii=False) + "\n")
