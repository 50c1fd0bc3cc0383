"""What `annotate.py` does with tasks: let annotators vote and report, or only report."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rlhf.annotate.report import ReportOptions, beside, disputed, printed, write_report
from rlhf.data.source import RecordSource
from rlhf.labels.vote_table import VoteTableBuilder
from rlhf.records import Comparison, RecordError, read, write

Annotators = Callable[[Iterable[Comparison]], Iterable[Comparison]]
"""Records to the same records with more votes."""


@dataclass(frozen=True)
class Job:
    """One call of `annotate.py`.

    Args:
        source: the records of the data group, for reports on votes that are there already.
        tasks: file of records to vote on.
        out: the file to write.
        report: how the report is made.
        adjudicate_below: records with a pair whose most frequent answer has a smaller share go to the expert queue.
    """

    source: RecordSource
    tasks: Path | None
    out: Path
    report: ReportOptions
    adjudicate_below: float = 0.6

    def task_file(self) -> Path:
        """The file of tasks. Raises RecordError where none was given or there is no such file."""
        if self.tasks is None:
            raise RecordError("no tasks given", key="tasks", remedy="tasks=<file that sample.py wrote>")
        if not self.tasks.is_file():
            raise RecordError("no such file", place=str(self.tasks), key="tasks", remedy="check the path")
        return self.tasks

    def add_votes(self, annotators: Annotators, on_voted: Callable[[], None] = lambda: None) -> None:
        """Write the tasks with the annotators' votes to `out`, and the report beside it.

        Until every vote is there, the file is `<out>.partial`; `on_voted` runs before it gets its name.

        Raises:
            RecordError: `out` exists, or there are no tasks.
        """
        tasks = self.task_file()
        if self.out.exists():
            remedy = "out=<another file>: votes are never overwritten"
            raise RecordError("exists already", place=str(self.out), remedy=remedy)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        partial = self.out.with_name(f"{self.out.name}.partial{''.join(self.out.suffixes[-1:])}")
        number = write(partial, annotators(read(tasks)))
        on_voted()
        if not any(record.votes for record in read(partial)):
            remedy = "a task needs two completions at least; see what annotates them"
            raise RecordError("nobody voted on any of these tasks", place=str(tasks), key="tasks", remedy=remedy)
        partial.replace(self.out)
        print(f"votes on {number} records: {self.out}")
        self.finish(lambda: read(self.out), Path(f"{self.out}.report.json"))

    def finish(self, records: Callable[[], Iterable[Comparison]], out: Path) -> None:
        """Read the records once; write the report to `out`, its lists beside it, and print what a person reads first.

        Raises:
            RecordError: nobody has voted.
        """
        out.parent.mkdir(parents=True, exist_ok=True)
        box, place = VoteTableBuilder(), beside(out)
        queue = place("adjudicate.jsonl")
        partial = queue.with_name(f"{queue.name}.partial")
        waiting = write(partial, disputed(box.taking(records()), self.adjudicate_below))
        if not len(box.vote_table().unit):
            partial.unlink()
            raise RecordError("no votes to report on", place=str(self.out), remedy="annotate the tasks first")
        numbers = write_report(out, box, self.report, place)
        partial.replace(queue)
        print(printed(numbers))
        print(f"  {waiting} records for an expert in {queue}")
        print(f"report: {out}", flush=True)


def written(path: Path, text: str) -> None:
    """Write a file for another tool, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"written: {path}")


def report_only(job: Job) -> None:
    """`annotator=report`: the report on votes that are there already."""
    job.finish(job.source.records, job.out)
    if job.source.skipped_count:
        print(f"  {job.source.skipped_count} rows could not be read, the first: {job.source.skipped[0]}")
