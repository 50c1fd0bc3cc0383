"""Formats whose records lie in several rows, or in trees: grouping, ranks, bad rows inside a group."""

import pytest
from golden_rows import USER, Q, best, read

import rlhf.data.importers as importers
from rlhf.labels.aggregation import soft
from rlhf.records import RecordError, stop


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
    assert {v.criterion for v in first.votes} == {"helpfulness", "correctness", "coherence", "complexity", "verbosity"}
    assert soft(second, criterion="helpfulness").win_prob[0, 1] == 0.5  # equal ratings are a tie


def test_workers_on_the_same_summaries_become_votes_of_one_record():
    row = {"info": {"id": "t3", "post": "Q"}, "summaries": [{"text": "a", "policy": "sup"}, {"text": "b"}]}
    rows = [row | {"choice": c, "worker": w, "extra": {"confidence": 7}} for c, w in [(0, "w1"), (1, "w2"), (0, "w3")]]
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


def test_equal_ranks_tie():
    answers = [
        {"rank": r, "completion": [{"role": "assistant", "content": c}]} for r, c in [(1, "a"), (1, "b"), (0, "c")]
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


def test_parts_of_a_benchmark_are_named_by_subset_folder_file_or_hub_split():
    pair = {"prompt": "Q", "chosen": "good", "rejected": "bad"}
    for place in ("x/anthropic_hhh.jsonl:1", "x/anthropic_hhh-00000-of-00001.parquet:row 1", "pref[anthropic_hhh]:1"):
        (record,) = importers.rewardbench(iter([(place, pair)]), stop)
        assert record.domain == "anthropic_hhh"
    (record,) = importers.rewardbench(iter([("x/y.jsonl:1", pair | {"subset": "donotanswer"})]), stop)
    assert record.domain == "donotanswer"
    row = {"input": "Q", "output_1": "a", "output_2": "b", "label": 1}
    for place in ("LLMBar/Adversarial/GPTInst/dataset.json:[0]", "princeton-nlp/LLMBar[GPTInst]:1"):
        (record,) = importers.llmbar_pairs(iter([(place, row)]), stop)
        assert record.domain == "GPTInst"
