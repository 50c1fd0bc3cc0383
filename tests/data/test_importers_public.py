"""One golden row per format: which side is better is the mistake that nothing else would notice (T19)."""

from functools import partial
from pathlib import Path

import pytest
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

import rlhf.data.importers as importers
from rlhf.annotate.aggregation import soft
from rlhf.data.source import Source
from rlhf.records import RecordError, stop

CONF = Path(__file__).parents[2] / "conf" / "data"


def read(importer, *rows, **options):
    return list(partial(importer, **options)(((f"file:{n}", r) for n, r in enumerate(rows, 1)), stop))


def best(record, criterion=None):
    """Texts from best to worst by the aggregated votes."""
    rank = soft(record, criterion=criterion).rank
    return [c.text for _, c in sorted(zip(rank, record.completions, strict=True), key=lambda x: x[0])]


USER = {"role": "user", "content": "Q"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
Q = ({"role": "user", "content": "Q"},)
HH = "\n\nHuman: Q\n\nAssistant: "


@pytest.mark.parametrize(
    ("name", "row", "prompt"),
    [
        ("pairs", {"prompt": "Q", "chosen": "good", "rejected": "bad"}, "Q"),
        ("pairs", {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, Q),
        ("pairs", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}, Q),
        ("pairs", {"prompt": "Q", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, Q),
        ("pairs", {"prompt": "Q", "chosen": "bad", "rejected": "good", "margin": -1.0}, "Q"),
        ("openrlhf", {"prompt": "Q", "chosen": "good", "rejected": "bad"}, "Q"),
        ("hh_rlhf", {"chosen": HH + "good", "rejected": HH + "bad"}, Q),
        ("shp", {"history": "Q", "human_ref_A": "good", "human_ref_B": "bad", "labels": 1}, "Q"),
        ("shp", {"history": "Q", "human_ref_A": "bad", "human_ref_B": "good", "labels": 0}, "Q"),
        ("llamafactory", {"instruction": "Q", "input": "", "chosen": "good", "rejected": "bad"}, "Q"),
        (
            "llamafactory",
            {
                "conversations": [{"from": "human", "value": "Q"}],
                "chosen": {"from": "gpt", "value": "good"},
                "rejected": {"from": "gpt", "value": "bad"},
            },
            Q,
        ),
        ("rewardbench", {"prompt": "Q", "chosen": "good", "rejected": "bad", "subset": "s"}, "Q"),
        ("rewardbench", {"prompt": "Q", "chosen": ["good"], "rejected": ["bad"], "subset": "s"}, "Q"),
        (
            "nemo_ranks",
            {"context": [USER], "completions": [{"rank": 1, "completion": [BAD]}, {"rank": 0, "completion": [GOOD]}]},
            Q,
        ),
        (
            "summarize_from_feedback",
            {"info": {"id": "t3", "post": "Q"}, "summaries": [{"text": "bad"}, {"text": "good"}], "choice": 1},
            "Q",
        ),
        (
            "oasst",
            {"messages": [USER], "responses": [{"text": "bad", "rank": 1}, {"text": "good", "rank": 0}]},
            Q,
        ),
        (
            "oasst",
            {
                "message_tree_id": "t",
                "prompt": {
                    "role": "prompter", "text": "Q",
                    "replies": [
                        {"role": "assistant", "text": "bad", "rank": 1},
                        {"role": "assistant", "text": "good", "rank": 0},
                    ],
                },
            },
            Q,
        ),
        (
            "ultrafeedback",
            {
                "instruction": "Q",
                "completions": [
                    {"response": "bad", "annotations": {"helpfulness": {"Rating": "2"}}, "overall_score": 3},
                    {"response": "good", "annotations": {"helpfulness": {"Rating": "5"}}, "overall_score": 8.5},
                ],
            },
            "Q",
        ),
        ("ultrafeedback", {"chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8, "score_rejected": 3}, Q),
    ],
)  # fmt: skip
def test_the_better_answer_comes_out_better(name, row, prompt):
    (record,) = read(getattr(importers, name), row)
    assert best(record) == ["good", "bad"]
    assert record.prompt == prompt
    label = soft(record)
    assert label.win_prob[label.rank.argmin(), label.rank.argmax()] == 1.0


def test_implicit_text_prompts_end_between_words():
    (record,) = read(importers.pairs, {"chosen": "Say hi. Hello you", "rejected": "Say hi. Help"})
    assert record.prompt == "Say hi. "
    assert best(record) == ["Hello you", "Help"]


def test_a_margin_survives():
    (record,) = read(importers.pairs, {"prompt": "Q", "chosen": "a", "rejected": "b", "margin": 2.5})
    assert record.votes[0].margin == 2.5


def test_other_columns_by_option():
    row = {"input": "Q", "better": "good", "worse": "bad"}
    (record,) = read(importers.pairs, row, prompt_key="input", chosen_key="better", rejected_key="worse")
    assert best(record) == ["good", "bad"]


def test_helpsteer_rows_of_one_prompt_become_one_record():
    rows = [
        {
            "prompt": p,
            "response": r,
            "helpfulness": h,
            "correctness": 4,
            "coherence": 4,
            "complexity": 1,
            "verbosity": 1,
        }
        for p, r, h in [("Q", "good", 4), ("Q", "bad", 0), ("R", "x", 1), ("R", "y", 1)]
    ]
    first, second = read(importers.helpsteer, *rows)
    assert best(first, "helpfulness") == ["good", "bad"]
    assert {v.criterion for v in first.votes} == {
        "helpfulness",
        "correctness",
        "coherence",
        "complexity",
        "verbosity",
    }
    assert soft(second, criterion="helpfulness").win_prob[0, 1] == 0.5  # T17


def test_workers_on_the_same_summaries_become_votes_of_one_record():
    row = {"info": {"id": "t3", "post": "Q"}, "summaries": [{"text": "a", "policy": "sup"}, {"text": "b"}]}
    rows = [
        row | {"choice": c, "worker": w, "extra": {"confidence": 7}}
        for c, w in [(0, "w1"), (1, "w2"), (0, "w3")]
    ]
    (record,) = read(importers.summarize_from_feedback, *rows)
    assert [v.annotator for v in record.votes] == ["w1", "w2", "w3"]
    assert soft(record).win_prob[0, 1] == pytest.approx(2 / 3)
    assert record.completions[0].source["model"] == "sup"


def test_equal_ranks_tie():
    answers = [
        {"rank": r, "completion": [{"role": "assistant", "content": c}]}
        for r, c in [(1, "a"), (1, "b"), (0, "c")]
    ]
    (record,) = read(importers.nemo_ranks, {"context": [USER], "completions": answers})
    assert record.votes[0].ranking == (("c2",), ("c0", "c1"))


def test_deep_oasst_trees_give_a_record_per_ranked_message():
    def node(role, text, rank=None, replies=()):
        return {"role": role, "text": text, "rank": rank, "replies": list(replies)}

    deep = [node("assistant", "c", 1), node("assistant", "d", 0)]
    tree = node("prompter", "Q", replies=[
        node("assistant", "a", 1), node("assistant", "b", 0, [node("prompter", "more", 0, deep)]),
    ])  # fmt: skip
    first, second = read(importers.oasst, {"message_tree_id": "t", "prompt": tree})
    assert best(first) == ["b", "a"]
    assert [m["content"] for m in second.prompt] == ["Q", "b", "more"]
    assert best(second) == ["d", "c"]


def test_hh_transcripts_that_part_early_keep_the_rest_in_the_answer():
    row = {
        "chosen": HH + "hm\n\nHuman: R\n\nAssistant: good",
        "rejected": HH + "no\n\nHuman: S\n\nAssistant: bad",
    }
    (record,) = read(importers.hh_rlhf, row)
    assert record.prompt == Q
    assert best(record)[0] == "hm\n\nHuman: R\n\nAssistant: good"


rating = st.none() | st.sampled_from(["N/A", "", "1", "5", 3])


@given(st.lists(rating, min_size=2, max_size=4))
def test_missing_ratings_leave_their_answer_out_and_never_decide(ratings):  # T18
    answers = [
        {"response": f"r{i}", "annotations": {"helpfulness": {"Rating": r}}} for i, r in enumerate(ratings)
    ]
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
        (
            "summarize_from_feedback",
            {"info": {}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0},
            "post",
        ),
        ("llamafactory", {"conversations": [{"from": "alien", "value": ""}]}, "human | gpt"),
    ],
)
def test_a_bad_row_names_its_place_and_the_problem(name, row, message):
    with pytest.raises(RecordError, match="file:1") as error:
        read(getattr(importers, name), row)
    assert message.replace("\\", "") in str(error.value)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_importer_option_instantiates(path, tmp_path):
    cfg = OmegaConf.load(path)
    if "importer" not in cfg:
        return
    cfg.path = str(tmp_path)
    source = instantiate(cfg)
    assert isinstance(source, Source)
    assert callable(source.importer)


@pytest.mark.parametrize(
    ("name", "file", "rows"), [("hh_rlhf", "hh_harmless_sample", 128), ("oasst", "oasst_rankings", 135)]
)
def test_real_files_import_whole(shared, name, file, rows):
    source = Source(getattr(importers, name), path=str(shared / "data" / f"{file}.jsonl"))
    found = list(source.records())
    assert len(found) == rows
    assert all(soft(r).observed.any() for r in found)
