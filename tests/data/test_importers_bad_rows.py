"""Rows that are not what their format says: a clear error with its place, and the next row is read."""

import json
from copy import deepcopy

import pytest
from golden_rows import BAD, GOLDEN, GOOD, USER, WHOLE, read
from hypothesis import given
from hypothesis import strategies as st

import rlhf.data.importers as importers
from rlhf.data.source import Source
from rlhf.labels.aggregation import soft
from rlhf.records import RecordError

JUNK = [None, 3, "x", "", [], {}, [1], {"a": 1}, True, float("nan"), [[]], ["x"]]


def places(value, path=()):
    """Every path into a JSON value, the empty one first."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def put(value, path, junk):
    if not path:
        return junk
    value = deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = junk
    return value


MALFORMED = [(name, row) for name, row, _ in GOLDEN] + [(name, row) for name, (row, _) in WHOLE.items()]


@pytest.mark.parametrize(("name", "row"), MALFORMED)
def test_junk_anywhere_in_a_row_is_a_record_error_and_the_next_row_is_read(name, row):
    for path in places(row):
        for junk in JUNK:
            bad = []
            rows = iter([("file:1", put(row, path, junk)), ("file:2", row)])
            found = list(getattr(importers, name)(rows, bad.append))
            assert found, (path, junk)
            assert all(error.place == "file:1" for error in bad), (path, junk)


rating = st.none() | st.sampled_from(["N/A", "", "1", "5", 3])


@given(st.lists(rating, min_size=2, max_size=4))
def test_missing_ratings_leave_their_answer_out_and_never_decide(ratings):
    answers = [{"response": f"r{i}", "annotations": {"helpfulness": {"Rating": r}}} for i, r in enumerate(ratings)]
    (record,) = read(importers.ultrafeedback, {"instruction": "Q", "completions": answers})
    observed = soft(record, criterion="helpfulness").observed
    given_ = [r not in (None, "N/A", "") for r in ratings]
    for i in range(len(ratings)):
        for j in range(len(ratings)):
            assert observed[i, j] == (i != j and given_[i] and given_[j])


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("pairs", {"prompt": "Q", "chosen": "same", "rejected": "same"}, "same text"),
        ("pairs", {"prompt": "Q", "chosen": "a"}, "'rejected': missing"),
        ("pairs", {"chosen": [USER, GOOD], "rejected": [GOOD, BAD]}, "part before their last"),
        ("pairs", {"prompt": "other", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "prompt_key=null"),
        ("pairs", {"chosen": "abc", "rejected": "xyz"}, "there is no prompt"),
        ("rewardbench", {"prompt": "Q", "chosen": ["a"], "rejected": []}, "either side"),
        ("rm_bench", {"prompt": "Q", "chosen": ["a"], "rejected": ["b"]}, "key 'domain'"),
        ("llmbar_pairs", {"input": "Q", "output_1": "a", "output_2": "b", "label": 0}, "1 or 2"),
        ("rewardbench", {"prompt": 3, "chosen": "a", "rejected": "b"}, "list of messages"),
        ("oasst", {"messages": [USER], "responses": [{"text": "a", "rank": 0}]}, "at least two"),
        ("hh_rlhf", {"chosen": "no turns", "rejected": "at all"}, "not a transcript"),
        ("shp", {"history": "Q", "human_ref_A": "a", "human_ref_B": "b", "labels": 7}, "1 where A"),
        ("nemo_ranks", {"context": [USER], "completions": []}, "at least two"),
        ("rewardbench", {"prompt": "Q", "chosen": "a", "rejected": 3}, "must be a string"),
        ("oasst", {"x": 1}, "'prompt': missing"),
        (
            "ultrafeedback",
            {"instruction": "Q", "completions": [{"response": "a", "annotations": {"h": {"Rating": "?"}}}]},
            "'\\?'",
        ),
        ("helpsteer", {"prompt": "Q", "helpfulness": 3}, "'response': missing"),
        ("summarize_from_feedback", {"info": {}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0}, "post"),
        ("llamafactory", {"conversations": [{"from": "alien", "value": ""}]}, "human | gpt"),
    ],
)
def test_a_bad_row_names_its_place_and_the_problem(name, row, message):
    with pytest.raises(RecordError, match="file:1") as error:
        read(getattr(importers, name), row)
    assert message.replace("\\", "") in str(error.value)


PREFERRED = {"prompt": "Q", "chosen": "good", "rejected": "bad"}
JSON_MARGINS = ["NaN", "Infinity", "-Infinity", '"nan"', '"inf"', '"much"', "[1]", "1e999", "1" + "0" * 400]


@pytest.mark.parametrize("margin", JSON_MARGINS, ids=lambda m: m[:10])
def test_a_margin_that_is_no_finite_number_is_refused_with_file_line_key_and_remedy(tmp_path, margin):
    path = tmp_path / "pairs.jsonl"
    good = json.dumps(PREFERRED)
    path.write_text("\n".join([good, good[:-1] + f', "margin": {margin}}}', good]) + "\n")
    with pytest.raises(RecordError, match=r"pairs\.jsonl:2: key 'margin': .*\(a finite number; leave it out"):
        list(Source(importers.pairs, path=str(path)).records())
    lenient = Source(importers.pairs, path=str(path), on_error="skip")
    assert len(list(lenient.records())) == 2
    assert lenient.skipped_count == 1
    assert "pairs.jsonl:2: key 'margin'" in lenient.skipped[0]


@pytest.mark.parametrize("row", [{}, *({"margin": m} for m in (None, "", "N/A", 0, "0"))], ids=str)
def test_a_margin_that_is_not_stated_is_none(row):
    (record,) = read(importers.pairs, PREFERRED | row)
    assert record.votes[0].margin == 0.0


def test_the_error_names_the_column_that_holds_the_margin():
    with pytest.raises(RecordError, match="file:1: key 'gap': is nan"):
        read(importers.pairs, PREFERRED | {"gap": float("nan")}, margin_key="gap")
