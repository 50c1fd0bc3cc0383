"""Golden rows of the importers of research sets."""

from collections import Counter

import pytest
from hydra.errors import InstantiationException
from research_rows import ARGUMENTS, LLMBAR, PAIR, PANDALM, QA, jsonl, rankme_row, rows, source

from rlhf.data.importers import llmbar, pandalm, qa_feedback, rankme, ukpconvarg, ukpconvarg_source
from rlhf.data.importers.research import SCALE
from rlhf.data.source import Source
from rlhf.records import RecordError, dump, parse, read, stop, write


@pytest.fixture
def texts(tmp_path):
    return jsonl(tmp_path / "texts.jsonl", ARGUMENTS)


def choices(record):
    return {v.annotator: v.choice for v in record.votes}


def test_ukpconvarg_names_winners_by_argument_and_keeps_every_vote(texts):
    (record,) = ukpconvarg(rows(PAIR), stop, responses_path=texts)
    assert (record.prompt_id, record.prompt, record.domain) == ("p", "Tea?", "d")
    assert [(c.id, c.text) for c in record.completions] == [("x", "Yes."), ("y", "No.")]
    assert choices(record) == {"w1": "x", "w2": "y", "w3": "tie"}
    assert [v.seconds for v in record.votes] == [12, 40, 7]
    assert record.meta == {"pair_id": "x_y", "gold": "y", "in_strict": True}
    assert record.completions[0].meta == {"pagerank_score": 0.2}


def test_ukpconvarg_follows_the_row_when_the_pair_is_turned_round(texts):
    turned = PAIR | {"a": "y", "b": "x"}
    (record,) = ukpconvarg(rows(turned), stop, responses_path=texts)
    assert [c.text for c in record.completions] == ["No.", "Yes."]
    assert choices(record) == {"w1": "y", "w2": "x", "w3": "tie"}
    assert record.meta["gold"] == "x"


def test_ukpconvarg_without_a_gold_label_says_none(texts):
    (record,) = ukpconvarg(rows(PAIR | {"gold": None}), stop, responses_path=texts)
    assert record.meta["gold"] is None


@pytest.mark.parametrize("path", [None, "nowhere.jsonl"])
def test_ukpconvarg_without_the_texts_names_the_key(path):
    with pytest.raises(RecordError, match=r"data\.responses_path"):
        list(ukpconvarg(rows(PAIR), stop, responses_path=path))


def test_ukpconvarg_with_an_unknown_argument_names_place_argument_and_remedy(texts):
    with pytest.raises(RecordError, match=r"file:1: key 'b'.*'z'.*data\.responses_path"):
        list(ukpconvarg(rows(PAIR | {"b": "z"}), stop, responses_path=texts))


def test_a_bad_text_row_is_named_by_line(tmp_path):
    path = jsonl(tmp_path / "texts.jsonl", [ARGUMENTS[0], {"prompt_id": "p"}])
    with pytest.raises(RecordError, match=r"texts\.jsonl:2.*response_id"):
        list(ukpconvarg(rows(PAIR), stop, responses_path=path))


def test_bad_pairs_are_skipped_and_counted_when_asked(tmp_path, texts):
    bad = [PAIR | {"a": "z"}, PAIR | {"annotations": [["w1", "maybe", 3]]}, PAIR | {"annotations": [["w1"]]}, PAIR]
    source = ukpconvarg_source(jsonl(tmp_path / "pairs.jsonl", bad), texts, on_error="skip")
    assert len(list(source.records())) == 1
    assert source.skipped_count == 3
    assert "maybe" in source.skipped[1]


def test_pandalm_joins_instruction_and_input_and_names_the_models():
    (record,) = pandalm(rows(PANDALM), stop)
    assert record.prompt == "Translate.\n\nHund"
    assert [(c.text, c.source["model"]) for c in record.completions] == [("dog", "llama-7b"), ("cat", "opt-7b")]
    assert choices(record) == {"ann1": "a", "ann2": "a", "ann3": "tie"}
    assert record.meta == {"pair_id": 7}


def test_pandalm_pairs_share_a_prompt_id_when_they_share_a_prompt():
    other = PANDALM | {"pair_id": 8, "a": "hound"}
    without_input = PANDALM | {"input": ""}
    first, second, third = pandalm(rows(PANDALM, other, without_input), stop)
    assert first.prompt_id == second.prompt_id != third.prompt_id
    assert third.prompt == "Translate."


def test_qa_feedback_keeps_winners_with_their_texts_under_any_shuffle():
    for seed in (None, 0, 1, 2):
        (record,) = qa_feedback(rows(QA), stop, shuffle_seed=seed)
        text = {c.id: c.text for c in record.completions}
        assert text == {"r0": "one", "r1": "two", "r2": "three", "r3": "four"}
        named = [({text[i] for i in v.pair}, text.get(v.choice, v.choice)) for v in record.votes]
        assert named == [({"one", "two"}, "tie"), ({"one", "three"}, "three"), ({"two", "four"}, "two")]


def test_qa_feedback_pairs_follow_the_shuffled_order():
    for seed in range(10):
        (record,) = qa_feedback(rows(QA), stop, shuffle_seed=seed)
        assert all(record.position(v.pair[0]) < record.position(v.pair[1]) for v in record.votes)


def test_qa_feedback_shuffles_the_first_answer_away_from_the_first_place():
    many = [QA | {"prompt_id": f"q{n}"} for n in range(400)]
    first = Counter(r.completions[0].id for r in qa_feedback(rows(*many), stop))
    assert set(first) == {"r0", "r1", "r2", "r3"}
    assert max(first.values()) < 150  # 100 expected, sd 8.7: 5.7 sd, a false alarm in 10^-8 of seeds
    unshuffled = qa_feedback(rows(*many), stop, shuffle_seed=None)
    assert {r.completions[0].id for r in unshuffled} == {"r0"}


@pytest.mark.parametrize("bad", [{"a": 0, "b": 9, "label": "a"}, {"a": 0, "b": 1}, {"a": 0, "b": 1, "label": "c"}, 5])
def test_qa_feedback_refuses_a_bad_comparison(bad):
    with pytest.raises(RecordError, match=r"file:1: key 'comparisons'"):
        list(qa_feedback(rows(QA | {"comparisons": [bad]}), stop))


def test_rankme_gathers_the_systems_of_a_prompt_and_the_ratings_of_an_annotator():
    table = [
        rankme_row("s1", c1=(6, 5, 4), c2=(1, 2, 3)),
        rankme_row("other", "m2", c1=(2, 2, 2)),
        rankme_row("s2", c1=(3, 3, 3)),
    ]
    first, second = rankme(rows(*table), stop)
    assert [c.id for c in first.completions] == ["s1", "s2"]
    assert [c.source["model"] for c in first.completions] == ["s1", "s2"]
    got = {(v.annotator, v.criterion): v.likert for v in first.votes}
    assert got["c1", "informativeness"] == {"s1": 6, "s2": 3}
    assert got["c1", "naturalness"] == {"s1": 5, "s2": 3}
    assert got["c1", "quality"] == {"s1": 4, "s2": 3}
    assert got["c2", "quality"] == {"s1": 3}
    assert len(got) == 6
    assert second.prompt_id == "m2"


def test_rankme_records_survive_the_disk_when_the_scale_is_written(tmp_path):
    record = next(rankme(rows(rankme_row("s1", c1=(6, 5, 4)), rankme_row("s2", c1=(1, 1, 6))), stop))
    write(tmp_path / "r.jsonl", [record], likert=SCALE)
    assert next(read(tmp_path / "r.jsonl")) == record


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (rankme_row("s1", c1=(7, 5, 4)), "off the scale"),
        (rankme_row("s1") | {"ratings": 3}, "ratings"),
        (rankme_row("s1") | {"system": None}, "system"),
    ],
)
def test_rankme_refuses_a_bad_row(bad, problem):
    with pytest.raises(RecordError, match=rf"file:1: .*{problem}"):
        list(rankme(rows(bad), stop))


def test_rankme_refuses_a_system_twice_under_one_prompt():
    with pytest.raises(RecordError, match="ids must be different"):
        list(rankme(rows(rankme_row("s1"), rankme_row("s1")), stop))


def test_llmbar_makes_a_tie_of_a_judge_that_follows_the_position_and_leaves_out_nulls():
    (record,) = llmbar(rows(LLMBAR), stop)
    assert choices(record) == {"J/CoT": "b", "J/Plain": "tie", "K/Plain": "a"}
    assert {v.kind for v in record.votes} == {"ai"}
    assert record.votes[1].meta == {"given": "a", "swapped": "b"}
    assert record.meta["gold"] == "b"


def test_llmbar_gives_the_gold_label_in_place_of_the_verdicts(tmp_path):
    path = jsonl(tmp_path / "file.jsonl", [LLMBAR, LLMBAR | {"pair_id": 4, "gold": "a"}])
    records = list(source("llmbar", path=path, importer={"gold": True}).records())
    assert [choices(r) for r in records] == [{"gold": "b"}, {"gold": "a"}]
    assert {v.kind for r in records for v in r.votes} == {"human"}
    assert [r.meta for r in records] == [{"gold": "b"}, {"gold": "a"}]


@pytest.mark.parametrize("importer", [pandalm, qa_feedback, llmbar])
def test_a_row_without_its_keys_is_an_error_with_its_place(importer):
    with pytest.raises(RecordError, match="file:1: key"):
        list(importer(rows({"prompt": "p", "gold": "a", "models": "x_y"}), stop))


@pytest.mark.parametrize(
    ("name", "row"),
    [("pandalm", PANDALM), ("qa_feedback", QA), ("rankme", rankme_row("s", c=(1, 2, 3))), ("llmbar", LLMBAR)],
)
def test_every_config_builds_a_source_of_its_records(name, row, tmp_path):
    built = source(name, path=jsonl(tmp_path / "file.jsonl", [row]))
    assert isinstance(built, Source)
    assert len(list(built.records())) == 1


@pytest.mark.parametrize("name", ["ukpconvarg", "pandalm", "qa_feedback", "rankme", "llmbar"])
def test_a_config_without_its_file_names_the_key(name):
    with pytest.raises(InstantiationException, match=r"data\.path=<file>"):
        source(name)


def test_the_ukpconvarg_config_takes_two_files(tmp_path, texts):
    built = source("ukpconvarg", path=jsonl(tmp_path / "pairs.jsonl", [PAIR]), responses_path=texts)
    assert [r.meta["pair_id"] for r in built.records()] == ["x_y"]


def test_the_golden_rows_agree_with_the_parser(texts):
    """Importers check through `parse`; a round trip shows that nothing they build is refused."""
    for record in (
        *ukpconvarg(rows(PAIR), stop, responses_path=texts),
        *pandalm(rows(PANDALM), stop), *qa_feedback(rows(QA), stop), *llmbar(rows(LLMBAR), stop),
    ):  # fmt: skip
        assert parse(dump(record)) == record
