"""Data that cannot be evaluated as it was asked for is refused with what can."""

from dataclasses import replace

import pytest

from rlhf.assemble.checks.paths import check_criterion
from rlhf.records import Comparison, Completion, RecordError, Vote

VOTE = Vote("w", pair=("a", "b"), choice="a")


def record(*criteria, gold=False):
    votes = tuple(replace(VOTE, criterion=name, gold=gold) for name in criteria)
    return Comparison("p", "Why?", (Completion("a", "One."), Completion("b", "Two.")), votes)


def test_a_criterion_without_votes_is_refused_with_those_that_have_some():
    records = [record(), record("truth", "brevity"), record("nope", gold=True)]
    said = r"^key 'criterion': no vote .* is on nope \(criterion= one of brevity, truth; or leave it out\)$"
    with pytest.raises(RecordError, match=said):
        check_criterion(records, "nope")
    for there in ("truth", "brevity", None):
        check_criterion(records, there)


def test_records_without_votes_are_not_blamed_on_the_criterion():
    check_criterion([record()], "nope")


def test_no_more_is_read_than_shows_it():
    records = iter([record("truth"), record("brevity")])
    check_criterion(records, "truth")
    assert len(list(records)) == 1
