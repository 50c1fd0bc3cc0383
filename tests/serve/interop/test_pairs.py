"""Votes to hard pairs: nothing lost without being counted, read back as it was, accepted by TRL."""

import json
from collections import Counter
from functools import partial

import pytest
from datasets import load_dataset

from rlhf.data.importers import pairs as read_pairs
from rlhf.data.render import Renderer
from rlhf.data.source import Source
from rlhf.labels.aggregation import discard, majority, soft
from rlhf.models.pretrained import Tiny
from rlhf.records import Comparison, Completion, RecordError, Vote
from rlhf.serve.interop.pairs import (
    COUNTS,
    RenderedForm,
    both_ways,
    conversational,
    drop,
    export_pairs,
    implicit,
    pairs,
    standard,
)
from rlhf.toy.world import ToyWorld


def record(votes, texts=("A", "B", "C"), prompt="Why?"):
    completions = tuple(Completion(f"c{i}", t) for i, t in enumerate(texts))
    cast = tuple(Vote(f"w{n}", pair=(f"c{i}", f"c{j}"), choice=c) for n, (i, j, c) in enumerate(votes))
    return Comparison("p", prompt, completions, cast)


def rows(*records, **choices):
    counts = Counter()
    found = list(pairs(records, counts, **{"ties": drop, "form": standard} | choices))
    return [(r["chosen"], r["rejected"]) for r in found], counts


def test_the_side_with_more_votes_is_chosen_and_doubt_is_counted():
    votes = [(0, 1, "c1"), (0, 1, "c1"), (0, 1, "c0"), (1, 2, "c1")]
    found, counts = rows(record(votes))
    assert found == [("B", "A"), ("B", "C")]
    assert (counts["pairs_compared"], counts["pairs_disputed"], counts["pairs_tied"]) == (2, 1, 0)


def test_ties_are_dropped_or_written_both_ways_by_choice():
    votes = [(0, 1, "tie"), (1, 2, "c1"), (1, 2, "c2"), (0, 2, "c0")]
    found, counts = rows(record(votes))
    assert (found, counts["pairs_tied"]) == ([("A", "C")], 2)
    found, counts = rows(record(votes), ties=both_ways)
    assert found == [("A", "B"), ("B", "A"), ("A", "C"), ("B", "C"), ("C", "B")]
    assert counts["rows"] == 5


def test_the_aggregation_decides_which_votes_count():
    votes = [(0, 1, "tie"), (0, 1, "tie"), (0, 1, "c0")]
    assert rows(record(votes), aggregation=majority)[0] == []  # most say tie
    assert rows(record(votes), aggregation=soft)[0] == [("A", "B")]  # share 2/3
    found, counts = rows(record(votes), aggregation=partial(discard, min_agreement=0.9))
    assert (found, counts["records_without_pairs"]) == ([], 1)


def test_only_votes_on_the_criterion_count():
    votes = (Vote("w", criterion="style", pair=("c0", "c1"), choice="c0"),
             Vote("w", criterion="truth", pair=("c0", "c1"), choice="c1"))  # fmt: skip
    task = Comparison("p", "Why?", (Completion("c0", "A"), Completion("c1", "B")), votes)
    assert rows(task, criterion="truth")[0] == [("B", "A")]
    assert rows(task, criterion="truth")[1]["pairs_disputed"] == 0


def test_equal_texts_and_records_without_votes_are_counted():
    found, counts = rows(record([(0, 1, "c0"), (0, 2, "c0")], texts=("A", "A", "B")), record([]))
    assert found == [("A", "B")]
    assert {name: counts[name] for name in COUNTS} == {
        "records": 2, "records_without_pairs": 1, "pairs_compared": 2, "pairs_disputed": 0, "pairs_tied": 0,
        "pairs_identical": 1, "rows": 1,
    }  # fmt: skip


CHAT = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Why?"},
)


def test_a_chat_does_not_fit_into_plain_texts():
    with pytest.raises(RecordError, match="form=conversational"):
        rows(record([(0, 1, "c0")], prompt=CHAT))


@pytest.mark.parametrize("form", [standard, conversational, implicit])
@pytest.mark.parametrize("prompt", ["Why is it so?", CHAT])
def test_what_is_exported_is_read_back(tmp_path, form, prompt):
    if form is standard and prompt is CHAT:
        return
    report = export_pairs([record([(0, 1, "c1")], prompt=prompt)], tmp_path / "pairs.jsonl", ties=drop, form=form)
    assert report == json.loads((tmp_path / "pairs.jsonl.report.json").read_text())
    assert set(report) == set(COUNTS)
    (back,) = Source(read_pairs, path=str(tmp_path / "pairs.jsonl")).records()
    as_chat = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    assert back.prompt == (prompt if form is standard else as_chat)
    assert [c.text for c in back.completions] == ["B", "A"]
    assert back.votes[0].choice == back.completions[0].id


def test_rendered_rows_add_up_to_the_text_that_is_scored():
    renderer = Renderer(Tiny().tokenizer(), max_length=200)
    (row,) = pairs([record([(0, 1, "c0")], prompt=CHAT)], Counter(), ties=drop, form=RenderedForm(renderer))
    assert row["prompt"] == renderer.opening_text(CHAT)
    assert row["prompt"] + row["chosen"] == renderer.text(CHAT, "A")
    assert row["prompt"] + row["rejected"] == renderer.text(CHAT, "B")


@pytest.mark.slow
@pytest.mark.parametrize("form", [standard, conversational, implicit])
def test_dpo_trains_on_the_exported_set(tmp_path, policy, form):
    trl = pytest.importorskip("trl", reason="pip install 'preference-reward-models[trl]'")
    file = tmp_path / "pairs.jsonl"
    report = export_pairs(ToyWorld(size=20).records(), file, ties=both_ways, form=form)
    data = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(data) == report["rows"] > 20
    settings = trl.DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, max_steps=2, report_to="none", use_cpu=True,
        bf16=False, save_strategy="no", logging_steps=1, disable_tqdm=True, learning_rate=1e-2, max_length=512,
        activation_checkpointing=False,
    )  # fmt: skip
    trainer = trl.DPOTrainer(model=str(policy), args=settings, train_dataset=data)
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # log 2: the policy still is the reference
    assert losses[1] != losses[0]
