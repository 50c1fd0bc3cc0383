"""One golden row per format: which side is better is the mistake that nothing else would notice (T19)."""

from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

import rlhf.data.importers as importers
from rlhf.annotate.aggregation import soft
from rlhf.data.prompt_key import prompt_hash
from rlhf.data.source import Source
from rlhf.records import RecordError, parse, stop

CONF = Path(__file__).parents[2] / "conf" / "data"


def read(importer, *rows, **options):
    return list(partial(importer, **options)(((f"file:{n}", r) for n, r in enumerate(rows, 1)), stop))


def best(record, criterion=None):
    """Texts from best to worst by the aggregated votes."""
    rank = soft(record, criterion=criterion).rank
    return [c.text for _, c in sorted(zip(rank, record.completions, strict=True), key=lambda x: x[0])]


USER = {"role": "user", "content": "Q"}
SYSTEM, MORE = {"role": "system", "content": "S"}, {"role": "user", "content": "more"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
Q = ({"role": "user", "content": "Q"},)
HH = "\n\nHuman: Q\n\nAssistant: "


GOLDEN = [
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
    ("rm_bench", {"prompt": "Q", "chosen": ["good"], "rejected": ["bad"], "domain": "chat", "id": 3}, "Q"),
    ("llmbar_pairs", {"input": "Q", "output_1": "good", "output_2": "bad", "label": 1}, "Q"),
    ("llmbar_pairs", {"input": "Q", "output_1": "bad", "output_2": "good", "label": 2}, "Q"),
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
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "prompt"), GOLDEN)
def test_the_better_answer_comes_out_better(name, row, prompt):
    (record,) = read(getattr(importers, name), row)
    assert best(record) == ["good", "bad"]
    assert record.prompt == prompt
    label = soft(record)
    assert label.win_prob[label.rank.argmin(), label.rank.argmax()] == 1.0


VOTE = {"annotator": "label", "pair": ["c0", "c1"], "choice": "c0"}
WHOLE = {
    "pairs": (
        {"prompt": "Q", "chosen": "good", "rejected": "bad", "prompt_id": 7},
        {"prompt_id": "7", "prompt": "Q", "votes": [VOTE]},
    ),
    "shp": (
        {"post_id": "x", "domain": "d", "history": "Q", "human_ref_A": "bad", "human_ref_B": "good", "labels": "0",
         "score_ratio": 2.0},
        {"prompt_id": "x", "prompt": "Q", "domain": "d", "votes": [VOTE], "meta": {"score_ratio": 2.0}},
    ),
    "rewardbench": (
        {"prompt": "Q", "chosen": ["good"], "rejected": ["bad"], "subset": "Math", "id": 3},
        {"prompt_id": "8e35c2cd3bf6641b", "prompt": "Q", "domain": "Math", "meta": {"row_id": 3},
         "votes": [{"annotator": "label", "ranking": [["c0"], ["c1"]]}]},
    ),
    "oasst": (
        {"prompt_id": "x", "tree_id": "t", "messages": [USER],
         "responses": [{"text": "good", "rank": 0}, {"text": "bad", "rank": 0}]},
        {"prompt_id": "x", "prompt": [USER], "meta": {"tree_id": "t"},
         "votes": [{"annotator": "oasst", "ranking": [["c0", "c1"]]}]},
    ),
    "ultrafeedback": (
        {"chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8, "score_rejected": 8, "prompt_id": "x"},
        {"prompt_id": "x", "prompt": [USER],
         "votes": [{"annotator": "gpt-4", "kind": "ai", "likert": {"c0": 8, "c1": 8}}]},
    ),
    "llamafactory": (
        {"instruction": "Q", "input": "i", "chosen": "good", "rejected": "bad", "system": "S", "history": [["q", "a"]]},
        {"prompt_id": "PROMPT", "votes": [VOTE], "prompt": [
            {"role": "system", "content": "S"}, {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"}, {"role": "user", "content": "Q\ni"}]},
    ),
    "helpsteer": (
        {"prompt": "Q", "response": "good", "helpfulness": 3, "verbosity": "N/A"},
        {"prompt_id": "PROMPT", "prompt": "Q", "completions": [{"id": "c0", "text": "good"}],
         "votes": [{"annotator": "helpsteer", "criterion": "helpfulness", "likert": {"c0": 3}}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_row_becomes_exactly_this_record(name):
    row, expected = WHOLE[name]
    (record,) = read(getattr(importers, name), row)
    both = [{"id": "c0", "text": "good"}, {"id": "c1", "text": "bad"}]
    raw = {"completions": both} | expected
    if raw["prompt_id"] == "PROMPT":
        raw["prompt_id"] = prompt_hash(record.prompt)
    assert record == parse(raw, (0, 10))


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Q", "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, (SYSTEM, USER)),
        ({"prompt": [SYSTEM, USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]}, (SYSTEM, USER)),
        ({"prompt": [USER], "chosen": [GOOD, MORE, GOOD], "rejected": [GOOD, MORE, BAD]}, (USER, GOOD, MORE)),
    ],
)
def test_a_stated_prompt_that_the_chats_repeat_or_go_on_from_is_there_once(row, prompt):
    (record,) = read(importers.pairs, row)
    assert record.prompt == prompt
    assert best(record) == ["good", "bad"]


def test_without_a_prompt_key_the_chats_say_the_prompt():
    row = {"prompt": " Q ", "chosen": [USER, GOOD], "rejected": [USER, BAD]}
    assert read(importers.pairs, row, prompt_key=None)[0].prompt == Q


def test_implicit_prompts_of_transcripts_end_where_the_answer_begins():
    (record,) = read(importers.pairs, {"chosen": HH + "I say good", "rejected": HH + "I say bad"})
    assert record.prompt == HH
    assert best(record) == ["I say good", "I say bad"]


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


def test_the_same_summaries_of_other_posts_stay_apart():
    both = [{"text": "a"}, {"text": "b"}]
    rows = [{"info": {"post": p}, "summaries": both, "choice": c} for p, c in [("P", 0), ("O", 1)]]
    records = read(importers.summarize_from_feedback, *rows)
    assert [(r.prompt, [v.choice for v in r.votes]) for r in records] == [("P", ["c0"]), ("O", ["c1"])]


def steer(prompt, response, helpfulness):
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness}


def summary(worker, choice):
    both = [{"text": "a"}, {"text": "b"}]
    return {"info": {"post": "P"}, "summaries": both, "choice": choice, "worker": worker}


@pytest.mark.parametrize(
    ("name", "rows", "kept"),
    [
        ("helpsteer", [steer("Q", "a", 1), steer("Q", "b", 9), steer("Q", "c", 3)], "ac"),
        ("helpsteer", [steer("Q", "a", 1), 3, steer("Q", "c", 3)], "ac"),
        ("summarize_from_feedback", [summary("a", 0), summary("b", 2), summary("c", 1)], "ac"),
    ],
)
def test_a_bad_row_inside_a_group_is_named_and_costs_only_itself(name, rows, kept):
    bad = []
    (record,) = getattr(importers, name)(((f"file:{n}", r) for n, r in enumerate(rows, 1)), bad.append)
    found = record.completions if name == "helpsteer" else record.votes
    assert "".join(x.text if name == "helpsteer" else x.annotator for x in found) == kept
    assert [error.place for error in bad] == ["file:2"]


def test_groups_are_read_one_at_a_time():
    taken = []
    rows = ((f"file:{n}", taken.append(n) or steer(f"Q{n}", "a", 1)) for n in range(100))
    next(iter(importers.helpsteer(rows, stop)))
    assert len(taken) == 2


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


def message(name, parent, role, text, rank=None):
    return {
        "message_id": name, "parent_id": parent, "message_tree_id": "t",
        "role": role, "text": text, "rank": rank, "lang": "en",
    }  # fmt: skip


MESSAGES = [
    message("t", None, "prompter", "Q"),
    message("1", "t", "assistant", "bad", 1),
    message("2", "t", "assistant", "good", 0),
]


def test_single_oasst_messages_of_the_hub_become_trees_again():
    other = [
        m | {"message_tree_id": "u", "text": m["text"] * 2, "lang": "de"} for m in reversed(MESSAGES)
    ]  # children first
    first, second = read(importers.oasst, *MESSAGES, *other)
    assert best(first) == ["good", "bad"]
    assert (first.prompt, first.meta) == (Q, {"tree_id": "t"})
    assert best(second) == ["goodgood", "badbad"]
    assert read(importers.oasst, *MESSAGES, *other, lang="de") == [second]


def test_a_torn_oasst_tree_is_refused():
    with pytest.raises(RecordError, match="neighbours"):
        read(importers.oasst, *MESSAGES[1:])
    with pytest.raises(RecordError, match="2 messages without a parent"):
        read(importers.oasst, *MESSAGES, message("3", None, "prompter", "R"))


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


def test_parts_of_a_benchmark_are_named_by_subset_folder_file_or_hub_split():
    pair = {"prompt": "Q", "chosen": "good", "rejected": "bad"}
    for place in (
        "x/anthropic_hhh.jsonl:1",
        "x/anthropic_hhh-00000-of-00001.parquet:row 1",
        "pref[anthropic_hhh]:1",
    ):
        (record,) = importers.rewardbench(iter([(place, pair)]), stop)
        assert record.domain == "anthropic_hhh"
    (record,) = importers.rewardbench(iter([("x/y.jsonl:1", pair | {"subset": "donotanswer"})]), stop)
    assert record.domain == "donotanswer"
    row = {"input": "Q", "output_1": "a", "output_2": "b", "label": 1}
    for place in ("LLMBar/Adversarial/GPTInst/dataset.json:[0]", "princeton-nlp/LLMBar[GPTInst]:1"):
        (record,) = importers.llmbar_pairs(iter([(place, row)]), stop)
        assert record.domain == "GPTInst"
