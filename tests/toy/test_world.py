"""The toy world: deterministic, a known gold reward, annotators that behave as stated."""

import hashlib
import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from rlhf.annotate.annotator import Annotator, pool
from rlhf.labels.aggregation import soft
from rlhf.records import RecordError, dump, parse
from rlhf.toy.texts import DOMAINS, OUT_OF_DISTRIBUTION
from rlhf.toy.world import ToyWorld, gold_reward

IDEAL = Annotator("ideal", care=1.0, temperature=1.0, tie_width=0.0, position_bias=0.0, length_bias=0.0)
N = 20_000


def digest(world, count=50):
    lines = [json.dumps(dump(r), sort_keys=True) for r in itertools.islice(world.records(), count)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.fixture(scope="module")
def records():
    return list(ToyWorld(size=2000).records())


def test_the_same_seed_gives_the_same_records_in_another_process():
    code = "import sys; sys.path.insert(0, 'tests/toy'); from test_world import *; print(digest(ToyWorld(seed=3)))"
    env_free = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert env_free.stdout.strip() == digest(ToyWorld(seed=3)) != digest(ToyWorld(seed=4))


def test_record_i_is_the_same_whatever_the_size():
    small, large = ToyWorld(size=20), ToyWorld(size=10**9)
    assert list(small.records()) == list(itertools.islice(large.records(), 20))
    assert large.record(17) == list(small.records())[17]


def test_records_survive_the_disk_and_gold_follows_from_qualities(records):
    for record in records[:300]:
        assert parse(json.loads(json.dumps(dump(record)))) == record
        gold = [gold_reward(c.meta["qualities"], record.domain) for c in record.completions]
        assert ToyWorld.gold(record) == pytest.approx(gold, abs=1e-6)
        assert len({c.text for c in record.completions}) == len(record.completions)


def test_domains_difficulties_and_sizes_are_balanced(records):
    for values in (
        [r.domain for r in records],
        [r.meta["difficulty"] for r in records],
        [len(r.completions) for r in records],
    ):
        counts = [values.count(v) for v in sorted(set(values))]
        assert chisquare(counts).pvalue > 1e-4  # odds of a false alarm
    assert {r.domain for r in records} == set(DOMAINS)
    assert {len(r.completions) for r in records} == {2, 3, 4}


def test_the_domain_held_apart_never_mixes():
    assert {r.domain for r in ToyWorld(size=50, ood=True).records()} == set(OUT_OF_DISTRIBUTION)
    assert not set(DOMAINS) & set(OUT_OF_DISTRIBUTION)


def test_most_prompts_are_different(records):
    assert len({r.prompt for r in records}) > 0.9 * len(records)


def choices(person, gold, lengths=(40, 40), first=0, count=N):
    rng = np.random.default_rng(0)
    made = [person.choose(gold, lengths, first, rng.random) for _ in range(count)]
    return made.count(0) / count, made.count(None) / count


def within(share, expected, count=N):
    """Five standard errors: a false alarm about once in two million."""
    return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / count)


def test_an_ideal_annotator_follows_bradley_terry():
    for difference in (-1.0, 0.0, 2.0):
        share, ties = choices(IDEAL, (difference, 0.0))
        assert within(share, 1 / (1 + math.exp(-difference)))
        assert ties == 0


def test_ties_follow_rao_and_kupper():
    width, d = 0.8, 0.5
    share, ties = choices(replace(IDEAL, tie_width=width), (d, 0.0))
    win, loss = 1 / (1 + math.exp(width - d)), 1 / (1 + math.exp(width + d))
    assert within(share, win)
    assert within(ties, 1 - win - loss)


def test_the_top_of_a_ranking_follows_plackett_luce():
    gold = (1.0, 0.0, -0.5)
    rng = np.random.default_rng(0)
    top = [IDEAL.rank(gold, (40, 40, 40), 0, rng.random)[0][0] for _ in range(N)]
    worth = np.exp(gold) / np.exp(gold).sum()
    for i, expected in enumerate(worth):
        assert within(top.count(i) / N, expected)


def test_biases_show_and_vanish():
    assert within(choices(IDEAL, (0.0, 0.0), (90, 0))[0], 0.5)
    assert choices(replace(IDEAL, length_bias=0.5), (0.0, 0.0), (90, 0))[0] > 0.65
    assert choices(replace(IDEAL, position_bias=1.0), (0.0, 0.0), first=1)[0] < 0.35


def test_the_careless_click_at_random():
    share, ties = choices(replace(IDEAL, care=0.0), (5.0, 0.0))
    assert within(share, 0.5)
    assert ties == 0


def test_a_pool_has_the_stated_share_of_careless_people():
    people = pool(40, careless=0.25, temperature=1, tie_width=0.5, position_bias=0.2, length_bias=0.2, seed=0)
    assert sum(p.care < 0.5 for p in people) == 10
    assert len({p.temperature for p in people}) == 40


def accuracy(records, score):
    right = []
    for record in records:
        label, value = soft(record), score(record)
        for i, j in zip(*np.nonzero(np.triu(label.observed, 1)), strict=True):
            lead = np.sign(value[i] - value[j])
            if label.win_prob[i, j] != 0.5:
                right.append(0.5 if lead == 0 else lead == np.sign(label.win_prob[i, j] - 0.5))
    return np.mean(right)


def test_gold_beats_length_and_length_is_a_cue(records):
    gold = accuracy(records, ToyWorld.gold)
    length = accuracy(records, lambda r: [len(c.text) for c in r.completions])
    assert 0.53 < length < 0.65
    assert gold > length + 0.15


def test_votes_hold_ties_and_both_forms(records):
    votes = [v for r in records for v in r.votes]
    pairwise = [v for v in votes if v.pair]
    assert 0.05 < sum(v.choice == "tie" for v in pairwise) / len(pairwise) < 0.4
    assert any(v.ranking for v in votes)
    assert all(3 <= len({v.annotator for v in r.votes}) <= 5 for r in records)


@pytest.mark.parametrize(
    "wrong",
    [{"min_completions": 1}, {"max_completions": 65}, {"min_completions": 5}, {"min_votes": 6}, {"max_votes": 99}],
)
def test_settings_out_of_range_name_their_key(wrong):
    with pytest.raises(ValueError, match=f"data.{next(iter(wrong))}"):
        ToyWorld(**wrong)


def test_records_of_at_most_four_answers_are_what_they_always_were():
    found = hashlib.sha256()
    for options in ({}, {"ood": True}, {"style": 2.5}, {"min_completions": 4}):
        for record in ToyWorld(size=30, **options).records():
            found.update(repr(record).encode())
    assert found.hexdigest()[:16] == "41973327429fa219"


def test_a_prompt_may_have_many_different_answers_which_are_ranked():
    for record in ToyWorld(size=12, min_completions=5, max_completions=64).records():
        assert len({c.text for c in record.completions}) == len(record.completions) >= 5
        assert all(sorted(i for tied in v.ranking for i in tied) == sorted(c.id for c in record.completions)
                   for v in record.votes)  # fmt: skip


def test_a_task_without_so_many_answers_is_said_and_not_searched_for_ever(monkeypatch):
    monkeypatch.setattr("rlhf.toy.world.answer", lambda *_: "the same")
    with pytest.raises(RecordError, match=r"record 3 .* 1 different answers.*data.max_completions of 1 at most"):
        ToyWorld().record(3)
