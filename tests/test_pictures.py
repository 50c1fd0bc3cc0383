"""The pictures of the README: there, small, as wide as they were made, and what they are made from can be read."""

import struct

import pytest

from rlhf.records import read


@pytest.mark.parametrize(("name", "width"), [("report", 1200), ("annotate", 1200), ("overoptimisation", None)])
def test_a_picture_is_there_small_and_as_wide_as_it_was_made(root, name, width):
    picture = (root / "docs" / "images" / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 300_000
    assert width in (None, struct.unpack(">I", picture[16:20])[0])


def test_the_tasks_of_the_annotation_pages_picture_are_records_that_wait_for_votes(root):
    records = list(read(root / "docs" / "images" / "tasks.jsonl"))
    assert [len(r.completions) for r in records] == [2, 2]
    assert not any(r.votes for r in records)
