"""How votes are spent: one on many pairs, several on few, or more where they differ; always as many as the budget."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from rlhf.data.splits import BalancedSplit
from rlhf.labels.aggregation import soft
from rlhf.records import Vote
from rlhf.select.loop.budget import LabelBudget, Votes, agreed
from rlhf.select.loop.label_sources import HeldBack
from rlhf.select.loop.learners import LinearLearner
from rlhf.select.loop.learning_curve import baseline
from rlhf.select.loop.selector_run import Journal, SelectorRun
from rlhf.select.pool_builder import build_pool
from rlhf.select.strategies.selector import at_random
from rlhf.toy.qualities import ToyQualities
from rlhf.toy.world import ToyWorld

PLAN = LabelBudget(start=10, batch=9, rounds=4)


@pytest.fixture(scope="module")
def built():
    built = build_pool(
        ToyWorld(size=120, min_votes=5), BalancedSplit(val=0.1, test=0.3), ToyQualities(), soft, only_voted=True
    )
    five = np.array([len(votes) >= 5 for votes in built.held_back])
    return replace(built, pool=replace(built.pool, selectable=built.pool.selectable & five))


def cast(*choices):
    return [Vote(f"v{i}", pair=("a", "b"), choice=choice) for i, choice in enumerate(choices)]


def labelled(built, folder, votes):
    """Results, and pair -> its votes in the order they were obtained."""
    plan = replace(PLAN, votes=votes)
    results = list(SelectorRun("random", at_random, 3, built, LinearLearner(), HeldBack(), soft, plan, folder).rounds())
    found = {}
    for event in Journal(folder / "journal.jsonl").of("votes"):
        found.setdefault(event["pair_id"], []).extend(event["votes"])
    return results, found


@pytest.mark.parametrize(
    ("choices", "expected"),
    [("a", False), ("aa", True), ("ab", False), ("aab", True), ("aabb", False), ("aabbt", False), ("tta", True),
     ("", False)],
)  # fmt: skip
def test_votes_agree_when_one_answer_leads_with_two(choices, expected):
    assert agreed(cast(*({"t": "tie"}.get(c, c) for c in choices))) is expected


def test_owed_are_pairs_short_of_votes_or_split_and_with_room():
    room = np.array([5, 5, 5, 2, 5])
    have = {0: cast("a"), 1: cast("a", "b"), 2: cast("a", "a"), 3: cast("a", "b"), 4: cast(*"abtab")}
    found = Votes(per_pair=2, until_agreed=True).owed(have, room)
    assert found == {0: "another vote: 1 of 2 so far", 1: "another vote: 1 against 1 so far"}
    assert list(Votes(per_pair=2).owed(have, room)) == [0]
    assert Votes().owed(have, room) == {}


@pytest.mark.parametrize(
    "votes",
    [Votes(), Votes(per_pair=5), Votes(per_pair=2, until_agreed=True), Votes(again=0.33), Votes(per_pair=2, again=0.5)],
    ids=["one", "five", "two then more", "open", "both"],
)  # fmt: skip
def test_every_round_buys_exactly_its_votes_whatever_a_pair_gets(built, tmp_path, votes):
    results, found = labelled(built, tmp_path, votes)
    assert [r["labels"] for r in results] == [10, 19, 28, 37, 46]
    assert sum(map(len, found.values())) == 46
    assert max(map(len, found.values())) <= votes.most


def test_two_then_more_asks_again_where_votes_differ_and_nowhere_else(built, tmp_path):
    _, found = labelled(built, tmp_path, Votes(per_pair=2, until_agreed=True))
    more = [votes for votes in found.values() if len(votes) > 2]
    assert more
    assert all(len({v["choice"] for v in votes[:2]}) == 2 for votes in more)
    reasons = [
        p["reason"] for e in Journal(tmp_path / "journal.jsonl").of("selected") for p in e["pairs"] if p["second"]
    ]
    assert any(r.startswith("another vote: 1 against 1") for r in reasons)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"per_pair": 6}, "per_pair=6"), ({"again": 1.0}, "again=1.0"), ({"reliability": 0.5}, "reliability=0.5")],
)
def test_impossible_plans_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Votes(**wrong)


def test_the_baseline_is_random_or_what_comes_nearest():
    assert baseline(["logdet", "random+five", "random"]) == "random"
    assert baseline(["logdet+five", "random+five"]) == "random+five"
    assert baseline(["logdet"]) == "random"


@pytest.mark.slow
def test_ways_to_spend_votes_are_compared_in_one_run_and_named_in_another(train, capsys):
    small = ["task=active", "selector=random", "features=qualities", "task.seeds=2", "split.test=0.3",
             "data.size=150", "task.plan.start=10", "task.plan.batch=10", "task.plan.rounds=1"]  # fmt: skip
    folder = train(*small, "task.compare_votes=[five,two_then_more]")
    found = {row["selector"]: row for row in csv.DictReader((folder / "curve.csv").open())}
    assert set(found) == {"random", "random+five", "random+two_then_more"}
    assert {row["labels"] for row in found.values()} == {"20"}
    assert "random+five" in (folder / "curve.md").read_text()
    folder = train(*small, "votes=two_then_more", "selector=margin")
    found = {row["selector"] for row in csv.DictReader((folder / "curve.csv").open())}
    assert found == {"margin+two_then_more", "random+two_then_more"}
    with pytest.raises(SystemExit):
        train(*small, "task.compare_votes=[seven]")
    assert "task.compare_votes names 'seven': one of five, one, open, two_then_more" in capsys.readouterr().err
