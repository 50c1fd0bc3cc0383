"""`annotator=merge`: the votes of several files on the same records, in one file, none of them twice."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from rlhf.annotate.job import Job
from rlhf.records import Comparison, RecordError, Vote, prompt_hash, read


def merge(job: Job, *, answers: Sequence[str]) -> None:
    """Add to the records of `tasks` the votes of other files; `out` gets them all, e.g. after adjudication.

    Args:
        job: its tasks may have votes already.
        answers: files of the same records, or of some of them.

    Raises:
        RecordError: no such file, or a record that `tasks` does not hold.
    """
    given = _votes(answers)
    job.add_votes(lambda records: merged(records, given))


def merged(records: Iterable[Comparison], given: dict[str, list[Vote]]) -> Iterator[Comparison]:
    """The records with the votes of `given` that they do not have yet.

    Raises:
        RecordError: votes are left over, because no record is theirs.
    """
    left = set(given)
    for record in records:
        key = identity(record)
        left.discard(key)
        new = [vote for vote in given.get(key, []) if vote not in record.votes]
        yield replace(record, votes=(*record.votes, *new))
    if left:
        raise RecordError(
            f"{len(left)} records of the other files are not there, with the same prompt and completions",
            key="tasks", remedy="tasks=<the file that all of them came from>",
        )  # fmt: skip


def identity(record: Comparison) -> str:
    """What makes a record the same in two files: its prompt and the ids and texts of its completions."""
    parts = [prompt_hash(record.prompt), record.prompt_id, *(f"{c.id}\0{c.text}" for c in record.completions)]
    return sha256("\0\0".join(parts).encode("utf-8", "replace")).hexdigest()


def _votes(files: Sequence[str]) -> dict[str, list[Vote]]:
    """Record -> the different votes of all files."""
    if not files:
        raise RecordError("names no file", key="annotator.answers", remedy="annotator.answers=[<votes>, ...]")
    found: dict[str, list[Vote]] = {}
    for file in files:
        if not Path(file).is_file():
            raise RecordError("no such file", place=file, key="annotator.answers", remedy="check the path")
        for record in read(Path(file)):
            votes = found.setdefault(identity(record), [])
            votes.extend(vote for vote in record.votes if vote not in votes)
    return found
