"""Rank agreement inside groups, against SciPy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import rankdata
from scored_sets import group, random_groups

from rlhf.evaluation.metrics import ranking
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.metrics.ranking import kendall, length_metrics, rank_metrics, spearman
from rlhf.evaluation.metrics.scored import Scored
from rlhf.stats.ranks import ranks_of


@pytest.mark.parametrize("k", [2, 3, 7])
def test_spearman_and_kendall_are_scipys_on_rows_with_ties(k):
    rng = np.random.default_rng(k)
    a, b = rng.integers(0, 4, (2, 60, k)).astype(float)
    rows = [i for i in range(60) if len(set(a[i])) > 1 and len(set(b[i])) > 1]
    assert len(rows) > 20
    for ours, theirs in ((spearman, stats.spearmanr), (kendall, stats.kendalltau)):
        expected = [theirs(a[i], b[i]).statistic for i in rows]
        np.testing.assert_allclose(ours(a, b)[rows], expected, atol=1e-12)


def test_a_constant_row_has_no_correlation():
    rows = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    for measure in (spearman, kendall):
        assert np.isnan(measure(rows, rows[::-1])).all()
        assert measure(rows, rows)[1] == pytest.approx(1)


def test_correlations_are_averaged_over_groups_and_never_pooled():
    """Inside both groups the order is right; pooled, the group of high rewards has the worse ranks and r < 1."""
    rows = [group([1.0, 0.0], 1.0, rank=[0, 1]), group([11.0, 10.0, 9.0], 1.0, rank=[0, 1, 2])]
    out = rank_metrics(Scored.from_groups(rows))
    averages = {"spearman": 1.0, "kendall": 1.0, "top1": 1.0, "ndcg": 1.0}
    assert out == {"n_ranked": 2, "n_rank_undefined": 0} | averages


def test_constant_rewards_count_as_zero_and_are_counted_and_tied_votes_are_left_out():
    rows = [
        group([1.0, 0.0, -1.0], 1.0, rank=[0, 1, 2]),  # rho = 1
        group([2.0, 2.0, 2.0], 1.0, rank=[0, 1, 2]),  # constant rewards
        group([3.0, 2.0, 1.0], 0.5, rank=[0, 0, 0]),  # votes rank nothing apart
        group([3.0, 2.0, 1.0], 0.5, rank=[0, -1, -1]),  # one ranked completion
    ]
    out = rank_metrics(Scored.from_groups(rows))
    assert (out["n_ranked"], out["n_rank_undefined"]) == (2, 1)
    assert out["spearman"] == out["kendall"] == 0.5
    assert out["top1"] == pytest.approx((1 + 1 / 3) / 2)
    assert not any(math.isnan(v) for v in out.values())


def test_completions_that_nobody_ranked_do_not_enter():
    ranked = rank_metrics(Scored.from_groups([group([1.0, 5.0, 0.0], 1.0, rank=[0, -1, 1])]))
    assert ranked["spearman"] == ranked["top1"] == 1.0


@pytest.mark.parametrize(
    ("reward", "rank", "credit"),
    [
        ([3.0, 2.0, 1.0], [0, 0, 1], 1.0),  # the choice is one of two best
        ([2.0, 3.0, 1.0], [0, 1, 1], 0.0),
        ([3.0, 3.0, 1.0], [0, 1, 2], 0.5),  # two choices share
        ([3.0, 3.0, 3.0], [1, 0, 0], 2 / 3),
    ],
)
def test_top1_shares_credit_among_equal_rewards_and_accepts_any_of_the_best(reward, rank, credit):
    assert rank_metrics(Scored.from_groups([group(reward, 0.5, rank=rank)]))["top1"] == pytest.approx(credit)


def test_accuracy_is_over_all_pairs_and_the_best_choice_has_another_name():
    """Order 0 > 1 > 2 by the votes; rewards get the best right and confuse the other two: 2 of 3 pairs, top1 = 1."""
    win = np.triu(np.ones((3, 3)), 1)
    out = evaluate(Scored.from_groups([group([3.0, 1.0, 2.0], win, rank=[0, 1, 2])]))
    assert out["pair_accuracy"] == pytest.approx(2 / 3)
    assert out["top1"] == 1.0
    best_against_worst = 1.0
    assert out["pair_accuracy"] != best_against_worst


def test_many_groups_are_taken_in_chunks_with_the_same_result(monkeypatch):
    table = Scored.from_groups(random_groups(np.random.default_rng(0), 50))
    whole = rank_metrics(table) | length_metrics(table)
    monkeypatch.setattr(ranking, "CHUNK", 30)
    assert rank_metrics(table) | length_metrics(table) == pytest.approx(whole)


def test_length_correlation_inside_groups_differs_from_the_pooled_one():
    """Inside each group the longer has the lower reward; between groups longer goes with higher."""
    rows = [group([1.0, 0.0], 1.0, length=[10, 20]), group([9.0, 8.0], 1.0, length=[110, 120])]
    out = length_metrics(Scored.from_groups(rows))
    assert out["length/spearman"] == -1.0
    pooled = stats.spearmanr([1, 0, 9, 8], [10, 20, 110, 120]).statistic
    assert out["length/spearman_pooled"] == pytest.approx(pooled)
    assert pooled > 0


def test_equal_lengths_say_nothing_and_are_counted():
    rows = [group([1.0, 0.0], 1.0, length=[7, 7]), group([1.0, 0.0], 1.0, length=[9, 7])]
    out = length_metrics(Scored.from_groups(rows))
    assert out["length/spearman"] == 1.0
    assert out["n_length_undefined"] == 1
    assert "length/spearman" not in length_metrics(Scored.from_groups(rows[:1]))


@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 4, 6), (1, 0), (0,), (0, 3)])
@pytest.mark.parametrize("method", ["average", "max"])
def test_ranks_are_those_of_scipy_ties_and_empty_sets_included(shape, method):
    values = np.random.default_rng(0).integers(0, 4, size=shape).astype(float)
    found = ranks_of(values, method)
    assert found.shape == values.shape
    if values.size:
        np.testing.assert_array_equal(found, rankdata(values, method=method, axis=-1))
