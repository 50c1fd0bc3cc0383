"""Arena logs and graded preferences: sides, margins, turns; and columns with other names."""

import json

import pytest
from golden_rows import USER, Q, read

import rlhf.data.importers as importers
from rlhf.data.source import Source, check_files
from rlhf.labels.aggregation import soft
from rlhf.records import RecordError, dump, parse

ARENA = {"conversation_a": [USER, {"role": "assistant", "content": "a"}],
         "conversation_b": [USER, {"role": "assistant", "content": "b"}]}  # fmt: skip


def arena(**more):
    (record,) = read(importers.arena, ARENA | more)
    return record


@pytest.mark.parametrize(
    ("winner", "choice"),
    [("model_a", "c0"), ("Model_B", "c1"), ("tie", "tie"), ("tie (bothbad)", "tie"), ("both_bad", "tie")],
)
def test_every_word_of_arenas_is_known(winner, choice):
    (vote,) = arena(winner=winner).votes
    assert vote.choice == choice
    assert vote.meta.get("both_bad", False) == ("bad" in winner)


def test_turns_of_an_arena_after_the_first_answer_stay_in_the_answers():
    more = [{"role": "user", "content": "and then?"}]
    a = [USER, {"role": "assistant", "content": "one"}, *more, {"role": "assistant", "content": "three"}]
    b = [USER, {"role": "assistant", "content": "two"}, *more, {"role": "assistant", "content": "four"}]
    record = arena(winner="tie", conversation_a=a, conversation_b=b)
    assert record.prompt == Q
    assert record.completions[0].text == "one\n\nHuman: and then?\n\nAssistant: three"


def test_turns_in_json_lists_are_read_as_a_chat():
    row = {"prompt": '["Q", "R"]', "response_a": '["same", "x"]', "response_b": '["same", "y"]', "winner": "model_a"}
    (record,) = read(importers.arena, row)
    assert [m["content"] for m in record.prompt] == ["Q", "same", "R"]
    assert [c.text for c in record.completions] == ["x", "y"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"winner": "model_c"}, "'winner': is 'model_c' .*model_a"),
        ({"winner_model_a": 1, "winner_model_b": 1, "winner_tie": 0}, "2 of them are 1 .*exactly one"),
        ({"winner": "tie", "conversation_a": [USER | {"content": [{"text": "x", "image": "i.png"}]}]}, "an image"),
        ({"winner": "tie", "conversation_b": [USER | {"content": "other"}] * 2}, "no prompt in common"),
    ],
)
def test_what_no_arena_says_is_refused(more, message):
    with pytest.raises(RecordError, match=message):
        arena(**more)


@pytest.mark.parametrize(
    ("said", "choice", "margin"),
    [
        (-3, "c0", 3), ("2", "c1", 2), (0, "tie", 0), ("A", "c0", 0), ("response_b", "c1", 0),
        ("B is slightly better", "c1", 1), ("left is better", "c0", 2), ("A is much better than the other", "c0", 3),
        ("B is much worse", "c0", 3), ("tie", "tie", 0), ("about the same", "tie", 0),
    ],
)  # fmt: skip
def test_a_graded_preference_is_a_choice_and_a_margin(said, choice, margin):
    (record,) = read(importers.graded, {"prompt": "Q", "response_a": "a", "response_b": "b", "preference": said})
    assert (record.votes[0].choice, record.votes[0].margin) == (choice, margin)


@pytest.mark.parametrize("said", ["A or B", "better", "", "nan", "yes"])
def test_a_preference_that_names_no_side_is_refused(said):
    with pytest.raises(RecordError, match="preference"):
        read(importers.graded, {"prompt": "Q", "response_a": "a", "response_b": "b", "preference": said})


def test_every_person_of_helpsteer3_votes_and_margins_survive_the_record():
    row = {"context": [USER], "response1": "a", "response2": "b", "overall_preference": 1, "domain": "code",
           "individual_preference": [{"score": 3, "reasoning": "r"}, {"score": 1}, {"score": -1}]}  # fmt: skip
    (record,) = read(importers.helpsteer3, row)
    assert [(v.choice, v.margin) for v in record.votes] == [("c1", 3), ("c1", 1), ("c0", 1)]
    assert parse(json.loads(json.dumps(dump(record)))) == record
    label = soft(record)
    assert label.win_prob[1, 0] == pytest.approx(2 / 3)
    assert label.margin[0, 1] == 2
    (alone,) = read(importers.helpsteer3, {k: v for k, v in row.items() if k != "individual_preference"})
    assert [(v.annotator, v.choice, v.margin) for v in alone.votes] == [("overall", "c1", 1)]
    with pytest.raises(RecordError, match=r"overall_preference.*-3\.\.3"):
        read(importers.helpsteer3, row | {"overall_preference": 4})


def test_columns_are_read_under_the_names_they_have_in_the_file(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("Question,Best answer,Other,chosen\nQ,good,bad,not this\n")
    columns = {"prompt": "Question", "chosen": "Best answer", "rejected": "Other", "margin": None}
    source = Source(importers.pairs, path=str(file), columns=columns)
    (record,) = source.records()
    assert [c.text for c in record.completions] == ["good", "bad"]
    assert source.fingerprint != Source(importers.pairs, path=str(file)).fingerprint


def test_columns_may_be_swapped(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected\nQ,bad,good\n")
    columns = {"chosen": "rejected", "rejected": "chosen"}
    (record,) = Source(importers.pairs, path=str(tmp_path / "a.csv"), columns=columns).records()
    assert [c.text for c in record.completions] == ["good", "bad"]


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("q,better\nQ,good\n")
    source = Source(importers.pairs, path=str(file), columns={"chosen": "beter"})
    with pytest.raises(RecordError, match=r"a\.csv:2: key 'data\.columns\.chosen': no column 'beter' .*q, better"):
        list(source.records())


@pytest.mark.parametrize("text", ["", "\n\n", "prompt,chosen,rejected\n"])
def test_a_file_without_rows_says_that_it_is_empty(tmp_path, text):
    file = tmp_path / ("a.csv" if "," in text else "a.jsonl")
    file.write_text(text)
    with pytest.raises(RecordError, match="is empty: it holds no row"):
        list(Source(importers.pairs, path=str(file)).records())
    skipping = Source(importers.pairs, path=str(file), on_error="skip")
    assert list(skipping.records()) == []
    assert skipping.skipped_count == 1
    if not text:
        with pytest.raises(RecordError, match="is empty"):
            check_files(str(file))


def test_a_file_of_bad_rows_is_not_called_empty(tmp_path):
    (tmp_path / "a.jsonl").write_text("no json\n")
    source = Source(importers.pairs, path=str(tmp_path / "a.jsonl"), on_error="skip")
    assert list(source.records()) == []
    assert "is not JSON" in source.skipped[0]
    assert source.skipped_count == 1
