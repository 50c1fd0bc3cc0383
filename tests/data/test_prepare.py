"""Records to rows on hand-made records: what is masked, renumbered, dropped, and that every loss is counted."""

from dataclasses import replace

import numpy as np
import pytest

from rlhf.data.prepare import Audit, prepare_one
from rlhf.data.render import Renderer
from rlhf.labels.aggregation import soft
from rlhf.models.pretrained import Tiny
from rlhf.records import Comparison, Completion, Vote

LONG = "x" * 100


def record(*texts, votes=(), prompt="p"):
    return Comparison(prompt, prompt, tuple(Completion(f"c{i}", t) for i, t in enumerate(texts)), tuple(votes))


def ranked(*best_first, who="w"):
    return Vote(who, ranking=tuple((c,) for c in best_first))


def prefers(winner, loser, who="w"):
    return Vote(who, pair=(winner, loser), choice=winner, margin=2.0)


@pytest.fixture(scope="module")
def renderer():
    return Renderer(Tiny().tokenizer(), max_length=60, min_prompt=5)


@pytest.fixture
def audit():
    return Audit()


@pytest.fixture
def row_of(renderer, audit):
    return lambda one: next(iter(prepare_one(one, aggregation=soft, renderer=renderer, audit=audit)), None)


def square(row, name):
    k = len(row["length"])
    return np.reshape(row[name], (k, k))


def test_a_row_holds_the_label_of_every_completion_in_its_place(row_of, audit):
    row = row_of(record("worst", "best", "middle", votes=[ranked("c1", "c2", "c0")]))
    assert row["completion_id"] == ["c0", "c1", "c2"]
    assert row["length"] == [5, 4, 6]
    assert row["rank"] == [2, 0, 1]
    assert square(row, "win_prob").tolist() == [[0, 0, 0], [1, 0, 1], [1, 0, 0]]
    assert square(row, "votes").tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    tokens = len(row["prompt"]) * 3 + sum(map(len, row["responses"]))
    assert {k: v for k, v in audit.as_dict().items() if v} == {
        "records": 1, "kept": 1, "completions": 3, "pairs_compared": 3, "tokens": tokens,
        "longest_row_tokens": len(row["prompt"]) + len(row["responses"][2]),
    }  # fmt: skip


def test_a_pair_of_the_same_tokens_is_no_longer_observed_and_loses_its_ranks(row_of, audit):
    row = row_of(record("same", "other", "same", votes=[ranked("c0", "c1", "c2")]))
    assert square(row, "observed").tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert square(row, "win_prob").tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert square(row, "votes").tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert row["rank"] == [-1, 1, -1], "one text cannot be both best and worst"
    assert audit.counts["pairs_identical"] == 1
    assert audit.counts["pairs_compared"] == 3
    assert audit.counts["kept"] == 1


@pytest.mark.parametrize("choice", ["c0", "tie"])
def test_the_margin_and_the_ties_of_an_identical_pair_go_and_the_others_stay(row_of, choice):
    on_same = Vote("w", pair=("c0", "c2"), choice=choice, margin=2.0 * (choice != "tie"))
    row = row_of(record("same", "other", "same", votes=[prefers("c0", "c1"), on_same, prefers("c1", "c2")]))
    assert square(row, "margin").tolist() == [[0, 2, 0], [2, 0, 2], [0, 2, 0]]
    assert not any(row["tie_prob"])


def test_equal_ranks_of_equal_texts_stay(row_of):
    tied = Vote("w", ranking=(("c0", "c2"), ("c1",)))
    row = row_of(record("same", "other", "same", votes=[tied]))
    assert row["rank"] == [0, 1, 0]
    assert square(row, "observed")[0].tolist() == [False, True, False]


def test_a_record_whose_only_pair_is_the_same_tokens_is_dropped_and_counted(row_of, audit):
    assert row_of(record("same", "same", votes=[prefers("c0", "c1")])) is None
    assert {k: v for k, v in audit.as_dict().items() if v} == {
        "records": 1, "dropped/identical": 1, "pairs_compared": 1, "pairs_identical": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "order", "kept", "rank"),
    [
        (("a", LONG, "b", "c"), ("c1", "c3", "c0", "c2"), ["c0", "c2", "c3"], [1, 2, 0]),
        ((LONG, "a", LONG, "c"), ("c3", "c0", "c2", "c1"), ["c1", "c3"], [1, 0]),
        (("a", "b", "c", LONG), ("c2", "c0", "c3", "c1"), ["c0", "c1", "c2"], [1, 2, 0]),
    ],
)  # fmt: skip
def test_an_answer_too_long_leaves_and_the_others_keep_their_order(row_of, audit, texts, order, kept, rank):
    row = row_of(record(*texts, votes=[ranked(*order)]))
    assert row["completion_id"] == kept
    assert row["rank"] == rank
    better = np.less.outer(rank, rank)
    assert square(row, "win_prob").tolist() == better.tolist()
    n = len(kept)
    assert audit.counts["completions"] == n
    assert audit.counts["completions_too_long"] == 4 - n
    assert audit.counts["pairs_compared"] == 6
    assert audit.counts["pairs_lost_too_long"] == 6 - n * (n - 1) // 2


def test_unranked_answers_stay_unranked_when_another_one_leaves(row_of):
    row = row_of(record("a", LONG, "b", "c", votes=[ranked("c1", "c3", "c0")]))
    assert row["rank"] == [1, -1, 0]


def test_a_record_that_loses_its_only_pair_to_length_is_dropped_and_counted(row_of, audit):
    assert row_of(record("short", LONG, votes=[prefers("c0", "c1")])) is None
    assert {k: v for k, v in audit.as_dict().items() if v} == {
        "records": 1, "dropped/too_long": 1, "completions_too_long": 1, "pairs_compared": 1, "pairs_lost_too_long": 1
    }  # fmt: skip


def test_records_without_votes_are_dropped_and_counted(row_of, audit):
    assert row_of(record("a", "b")) is None
    assert {k: v for k, v in audit.as_dict().items() if v} == {"records": 1, "dropped/no_votes": 1}


def test_trimmed_prompts_and_their_tokens_are_counted(row_of, renderer, audit):
    row = row_of(record("a", "bb", votes=[prefers("c0", "c1")], prompt="q" * 70))
    whole = len(renderer.opening_ids("q" * 70)) + len(renderer.encode("", ["bb"]).responses[0])
    assert audit.counts["prompts_trimmed"] == 1
    assert audit.counts["prompt_tokens_trimmed"] == whole - 60
    assert audit.longest == 60 == len(row["prompt"]) + len(row["responses"][1])


def test_ties_are_counted_by_the_pair(row_of, audit):
    row_of(record("a", "b", "c", votes=[Vote("w", ranking=(("c0", "c2"), ("c1",)))]))
    assert audit.counts["pairs_tied"] == 1
    assert audit.counts["pairs_compared"] == 3


def test_a_duplicate_is_a_record_with_the_same_prompt_answers_and_votes(renderer, audit):
    first = record("a", "b", votes=[prefers("c0", "c1")])
    others = [
        replace(first, prompt="another"),
        replace(first, completions=(*first.completions[:1], Completion("c1", "B"))),
        replace(first, votes=(prefers("c1", "c0"),)),
        replace(first, votes=(prefers("c0", "c1", who="v"),)),
        replace(first, votes=(Vote("w", ranking=(("c0",), ("c1",))),)),
        replace(first, votes=(Vote("w", likert={"c0": 2, "c1": 1}),)),
        replace(first, votes=(Vote("w", likert={"c0": 3, "c1": 1}),)),
    ]
    stream = [first, *others, replace(first, prompt_id="a new name"), first, others[-1]]
    rows = [row for r in stream for row in prepare_one(r, aggregation=soft, renderer=renderer, audit=audit)]
    for one in stream:
        audit.look_for_duplicate(one)
    assert audit.counts["duplicate_records"] == 3
    assert len(rows) == audit.counts["kept"] == len(stream), "counted, not dropped"


def test_what_was_dropped_and_what_was_kept_add_up_to_what_was_read(renderer, audit):
    votes = [prefers("c0", "c1")]
    stream = [
        record("a", "b", votes=votes), record("a", "b"), record("a", LONG, votes=votes),
        record("s", "s", votes=votes), record("c", "d", votes=votes),
    ]  # fmt: skip
    rows = [row for r in stream for row in prepare_one(r, aggregation=soft, renderer=renderer, audit=audit)]
    assert len(rows) == audit.counts["kept"] == 2
    dropped = {k: v for k, v in audit.as_dict().items() if k.startswith("dropped/")}
    assert dropped == {"dropped/no_votes": 1, "dropped/too_long": 1, "dropped/identical": 1}
    assert audit.counts["records"] == 5
