"""Votes of several files in one: none lost, none doubled, none given to a record that is not theirs."""

from dataclasses import replace

import pytest

from rlhf.annotate.job import Job
from rlhf.annotate.merge import merge
from rlhf.annotate.report import ReportOptions, disputed
from rlhf.annotate.simulated import SimulatedAnnotators
from rlhf.records import RecordError, Vote, read, write
from rlhf.toy.world import ToyWorld


@pytest.fixture
def votes():
    bare = [replace(r, votes=()) for r in ToyWorld(size=40, min_completions=2, max_completions=2).records()]
    return list(SimulatedAnnotators().vote(bare))


def joined(tmp_path, records, *others):
    write(tmp_path / "votes.jsonl", records)
    files = []
    for number, other in enumerate(others):
        files.append(str(tmp_path / f"other{number}.jsonl"))
        write(tmp_path / f"other{number}.jsonl", other)
    job = Job(ToyWorld(), tmp_path / "votes.jsonl", tmp_path / "all.jsonl", ReportOptions(samples=20))
    merge(job, answers=files)
    return list(read(tmp_path / "all.jsonl"))


def test_adjudicated_records_take_the_place_of_the_disputed_ones(tmp_path, votes):
    queue = list(disputed(votes, 0.6))
    assert 0 < len(queue) < len(votes)

    def annotated(record):
        a, b = (c.id for c in record.completions)
        return replace(record, votes=(*record.votes, Vote("expert", pair=(a, b), choice=a)))

    whole = joined(tmp_path, votes, [annotated(r) for r in queue])
    names = {r.prompt_id for r in queue}
    assert whole == [annotated(r) if r.prompt_id in names else r for r in votes]


def test_parts_of_the_votes_come_together_whatever_the_files_share(tmp_path, votes):
    def part(keep):
        return [replace(r, votes=tuple(v for n, v in enumerate(r.votes) if n in keep)) for r in votes]

    whole = joined(tmp_path, part({0}), part({0, 1}), part({1, 2})[::-1])
    assert whole == votes


def test_records_that_are_not_there_are_refused_and_nothing_is_written(tmp_path, votes):
    with pytest.raises(RecordError, match="1 records of the other files are not there"):
        joined(tmp_path, votes[1:], votes[:1])
    assert not (tmp_path / "all.jsonl").exists()
    job = Job(ToyWorld(), tmp_path / "votes.jsonl", tmp_path / "x.jsonl", ReportOptions())
    with pytest.raises(RecordError, match="no such file"):
        merge(job, answers=["nowhere.jsonl"])
    with pytest.raises(RecordError, match="names no file"):
        merge(job, answers=[])
