"""Intervals over the groups that were left out, gold pairs, and paired differences: against numbers known by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from result_sets import results_of
from scipy.stats import ttest_1samp
from scored_sets import group, pair

from rlhf.data.merge import merge
from rlhf.evaluation.metrics.left_out import (
    BEFORE,
    WORDS,
    gold_metrics,
    gold_pairs,
    over_groups,
    paired,
    rows,
    share_spearman,
)
from rlhf.evaluation.metrics.scored import Scored
from rlhf.records import Comparison, Completion
from rlhf.records.tables import write_csv

LEADS = (0.093, 0.112, 0.067, -0.029, 0.018, 0.069, 0.043, 0.060, 0.060)
SMALL = {"samples": 50, "seed": 0}


def test_the_interval_is_students_over_groups():
    found = over_groups(LEADS)
    assert (found.value, found.low, found.high) == pytest.approx((0.055, 0.023, 0.087), abs=5e-4)
    assert found[1:] == pytest.approx(tuple(ttest_1samp(LEADS, 0.0).confidence_interval()))
    assert over_groups([0.1, math.nan, 0.3]).value == pytest.approx(0.2)
    alone = over_groups([0.25])
    assert alone.value == 0.25
    assert math.isnan(alone.low)


def test_groups_that_all_agree_have_an_interval_too():
    low, high = over_groups([0.0] * 9)[1:]
    assert low == pytest.approx(-(1 - 0.025 ** (1 / 9)))
    assert high == -low


@pytest.mark.parametrize("groups", [3, 5, 9, 18])
def test_the_interval_holds_the_truth(groups):
    """Leads of groups of 1 to 40 pairs: an effect of the group's own, and each pair gains, loses or changes nothing."""
    rng, held, tries = np.random.default_rng(groups), 0, 2000
    for _ in range(tries):
        up = np.clip(rng.normal(0.25, 0.08, groups), 0.02, 0.6)
        pairs = rng.integers(1, 41, groups)
        lead = (rng.binomial(pairs, up) - rng.binomial(pairs, 0.2)) / pairs
        found = over_groups(lead)
        held += found.low <= 0.05 <= found.high
    assert held / tries >= 0.93


def test_rows_are_means_over_the_pairs_and_prompts_of_a_part():
    """Two parts: right, wrong and even in the first; right in the second. Lengths are right once."""
    groups = [
        pair(2.0, 0.0, 3, 0, 0, prompt="a", length=(20, 10)),
        pair(0.0, 1.0, 3, 0, 0, prompt="b", length=(10, 20)),
        pair(1.0, 0.0, 1, 0, 1, prompt="b"),
        pair(1.0, 0.0, 2, 0, 1, prompt="c", length=(10, 20)),
    ]
    scored = Scored.from_groups(groups)
    others = {WORDS: np.zeros(8), BEFORE: 2 * scored.reward}
    one, two = rows(results_of(scored, others=others), np.array([0, 0, 0, 1]), 2)
    assert (one["n_pairs"], one["n_prompts"], two["n_pairs"], two["n_prompts"]) == (3, 2, 1, 1)
    assert (one["pair_accuracy"], one["baseline/length"], one["lead/length"]) == (0.5, 0.5, 0.0)
    assert (two["pair_accuracy"], two["lead/length"], two["lead/bag_of_words"]) == (1.0, 1.0, 0.5)
    loss = math.log1p(math.exp(-1.0))
    assert two["nll"] == pytest.approx(loss + 1 / 3)
    assert two["nll_uncalibrated"] == pytest.approx(math.log1p(math.exp(-2.0)) + 2 / 3)
    assert two["ece"] == pytest.approx(abs(2 / 3 - 1 / (1 + math.exp(-1.0))))


def test_spearman_is_about_mean_shares_of_judged_answers():
    """Shares 1, .5 and 0 of three answers, a fourth that nobody judged; rewards 3, 1, 2: rho = 1/2."""
    win_prob = np.array([[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=float)
    one = group([3.0, 1.0, 2.0, 9.0], win_prob)
    judged = one.observed.copy()
    judged[3], judged[:, 3] = False, False
    silent = replace(one, reward=np.zeros(4), observed=judged)
    scored = Scored.from_groups([replace(one, observed=judged), silent, pair(1, 0, 1, 0, 0)])
    found = share_spearman(results_of(scored))
    assert found[:2].tolist() == pytest.approx([0.5, 0.0])
    assert math.isnan(found[2])


def argued(better, texts, prompt="p", **meta):
    completions = tuple(Completion(name, text) for name, text in texts.items())
    return Comparison("id", prompt, completions, meta={"gold": better} | meta)


def test_gold_pairs_are_found_in_records_that_were_merged():
    parts = [
        argued("x", {"x": "one", "y": "two"}, in_strict=True),
        argued("y", {"x": "one", "y": "three"}),
        argued("tie", {"x": "one", "y": "four"}),
        argued(None, {"x": "one", "y": "five"}),
        argued("x", {"x": "one", "y": "six"}, in_strict=False),
    ]
    merged = merge(parts)
    texts = [c.text for c in merged.record.completions]
    assert [(texts[a], texts[b]) for a, b in gold_pairs(merged)] == [("one", "two"), ("three", "one")]


def test_gold_accuracy_auc_and_cross_entropy_by_hand():
    """Leads of gold's choice: 2, 1 and -1. In both orders: positives 2 1 -1, negatives -2 -1 1."""
    scored = Scored.from_groups(
        [pair(2, 0, 1, 0, 0, prompt="a"), pair(0, 1, 1, 0, 0, prompt="b"), pair(0, 1, 1, 0, 0, prompt="b")]
    )
    gold = {0: [(0, 1)], 1: [(1, 0)], 2: [(0, 1)], 7: [(0, 1)]}
    found = gold_metrics(results_of(scored, others={WORDS: np.zeros(6)}), gold, np.array([0, 1, 1]), **SMALL)
    assert found["gold/n_pairs"] == 3
    assert found["gold/pair_accuracy"] == pytest.approx(2 / 3)
    assert found["gold/auc"] == pytest.approx((3 + 2.5 + 1.5) / 9)
    assert found["gold/auc/mean"] == pytest.approx((1 + 0.5) / 2)
    losses = [math.log1p(math.exp(-lead)) for lead in (2, 1, -1)]
    assert found["gold/nll"] == pytest.approx(np.mean(losses))
    assert found["gold/baseline/bag_of_words/auc"] == 0.5
    assert found["gold/lead/bag_of_words"] == pytest.approx((0.5 + 0.0) / 2)
    assert gold_metrics(results_of(scored), {}, np.array([0, 1, 1]), **SMALL) == {}


def groups_file(path, accuracy, fold=0):
    write_csv(path, [{"group": f"g{i}", "fold": fold, "pair_accuracy": a} for i, a in enumerate(accuracy)])
    return path


def test_two_settings_are_paired_by_group_whatever_the_order(tmp_path):
    one = groups_file(tmp_path / "one.csv", [0.5] * 9)
    other = groups_file(tmp_path / "other.csv", [0.5 + lead for lead in LEADS])
    found = paired(one, other)
    assert list(found) == ["pair_accuracy"]
    assert tuple(found["pair_accuracy"]) == pytest.approx(tuple(over_groups(LEADS)))
    assert paired(one, groups_file(tmp_path / "folds.csv", [0.5] * 9, fold=1)) is None
