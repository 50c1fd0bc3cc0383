"""Slices, selective accuracy, paired comparison, robustness, probes: closed forms and independent oracles."""

from dataclasses import replace

import numpy as np
import pytest
from result_sets import results_of
from scipy.stats import spearmanr
from scored_sets import group, pair
from sklearn.metrics import ndcg_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from rlhf.evaluation.metrics.bias import length_correlation, matched, partial_length_correlation, probe
from rlhf.evaluation.metrics.paired import differences, robustness
from rlhf.evaluation.metrics.ranking import length_metrics, ndcg
from rlhf.evaluation.metrics.scored import Scored
from rlhf.evaluation.metrics.selective import accuracy_at, area, risk_coverage
from rlhf.evaluation.metrics.slices import (
    better_length,
    difference_from_rest,
    holm,
    length_classes,
    margin_classes,
    slice_accuracy,
    source_pairs,
    vote_classes,
)


def test_holm_equals_statsmodels_and_leaves_untested_ones_alone():
    p = np.random.default_rng(0).random(12) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    assert np.isnan(holm([0.01, np.nan, 0.04])[1])
    assert holm([0.01, np.nan, 0.04])[0] == pytest.approx(0.02)


def test_mcnemar_equals_statsmodels_and_the_difference_is_exact():
    rng = np.random.default_rng(1)
    a, b = (rng.random(300) < 0.7).astype(float), (rng.random(300) < 0.6).astype(float)
    found = differences({"a": a, "b": b}, {"a": a, "b": b}, np.arange(300), samples=500, seed=0)[0]
    both, first, second = ((a == 1) & (b == 1)).sum(), (a > b).sum(), (b > a).sum()
    table = [[both, first], [second, ((a == 0) & (b == 0)).sum()]]
    assert found.mcnemar == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert found.accuracy.value == pytest.approx(a.mean() - b.mean())
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high


def test_identical_models_do_not_differ_and_clustering_widens_the_interval():
    rng = np.random.default_rng(2)
    a = (rng.random(400) < 0.7).astype(float)
    same = differences({"a": a, "b": a}, {"a": a, "b": a}, np.arange(400), samples=200, seed=0)[0]
    assert (same.accuracy.value, same.p, same.mcnemar) == (0, 1, 1)
    beyond = 1 - 0.025 ** (1 / 400)  # 400 prompts on which they agree do not show that they always do
    assert same.accuracy[1:] == pytest.approx((-beyond, beyond))
    right = {
        "a": np.repeat((rng.random(40) < 0.7).astype(float), 10),
        "b": np.repeat((rng.random(40) < 0.6).astype(float), 10),
    }
    wide = differences(right, right, np.repeat(np.arange(40), 10), samples=500, seed=0)[0]
    narrow = differences(right, right, np.arange(400), samples=500, seed=0)[0]
    assert np.diff(wide.accuracy[1:]) > 2 * np.diff(narrow.accuracy[1:])
    assert wide.p > narrow.p


def test_a_part_like_the_rest_is_called_different_at_its_level():
    """400 null worlds at 5 %: between 5 and 40 false alarms with probability 1 - 4e-5."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(400):
        cluster = np.repeat(np.arange(60), 4)
        right = (rng.random(240) < np.repeat(rng.beta(6, 3, 60), 4)).astype(float)
        inside = np.repeat(np.arange(60) < 25, 4)[:, None]
        alarms += difference_from_rest(right, inside, cluster)[0] < 0.05
    assert 5 <= alarms <= 40


def test_parts_are_means_over_their_pairs_and_pairs_without_a_right_answer_are_left_out():
    right = np.array([1.0, 0.0, 0.5, np.nan, 1.0])
    code = np.array([0, 0, 1, 1, -1])
    slices = slice_accuracy(right, code, {"a": "a", "b": "b"}, np.arange(5), samples=50, seed=0)
    assert [(p.label, p.pairs, p.accuracy.value) for p in slices] == [("a", 2, 0.5), ("b", 1, 0.5)]
    assert np.isnan(slices[0].p)  # two prompts are too few for a test


def test_classes_of_votes_and_of_the_better_answers_length():
    rows = [pair(1, 0, 3, 0, 0, length=(100, 50)), pair(1, 0, 2, 0, 1, length=(50, 100)), pair(1, 0, 1, 1, 1),
            pair(1, 0, 3, 0, 2, length=(100, 95)), pair(0, 1, 0, 0, 4, length=(10, 30))]  # fmt: skip
    scored = Scored.from_groups(rows)
    code, names = vote_classes(scored)
    assert [names[c] if c >= 0 else None for c in code] == ["all agree", "60% to 80%", None, "50% to 60%", "all agree"]
    code, names = better_length(scored)
    assert [names[c] if c >= 0 else None for c in code] == ["longer", "shorter", None, "similar", "longer"]


def test_risk_coverage_of_a_perfect_order_and_of_no_order():
    right = np.array([1.0, 1, 1, 0, 0])
    assert accuracy_at(np.arange(5, 0, -1.0), right, 0.6) == 1
    assert area(np.arange(5, 0, -1.0), right) == pytest.approx(1 - (1 + 1 + 1 + 3 / 4 + 3 / 5) / 5)
    assert area(np.ones(5), right) == pytest.approx(0.4)  # no order: the overall error at every coverage
    coverage, accuracy = risk_coverage(np.ones(5), right)
    assert set(coverage) == {1.0}
    np.testing.assert_allclose(accuracy, 0.6)


def test_ndcg_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(4)
    reward, rank = (rng.integers(0, 3, (30, 4)).astype(float), rng.permuted(np.tile(np.arange(4), (30, 1)), axis=1))
    expected = [ndcg_score([3 - r], [s]) for r, s in zip(rank, reward, strict=True)]
    np.testing.assert_allclose(ndcg(reward, rank), expected)


def test_members_that_are_one_member_do_not_disagree_and_their_errors_are_the_same():
    rng = np.random.default_rng(5)
    scored = Scored.from_groups([group(rng.normal(size=2), 1.0, prompt=str(i)) for i in range(60)])
    found = robustness(scored, np.stack([scored.reward] * 3))
    assert (found.right.min(0) != found.right.max(0)).mean() == 0
    assert found.disagreement.max() == pytest.approx(0)
    np.testing.assert_allclose(found.correlation, 1)
    assert (found.right < 0.5).all(0).mean() == pytest.approx(1 - found.combined.mean())
    assert robustness(scored, scored.reward[None]) is None


def test_disagreement_is_the_sample_standard_deviation_of_differences_ddof_pinned():
    scored = Scored.from_groups([group([1.0, 0.0], 1.0), group([1.0, 0.0], 0.0, prompt="q")])
    members = np.array([[1.0, 0, 1, 0], [3.0, 0, 2, 0]])
    np.testing.assert_allclose(robustness(scored, members).disagreement, [np.sqrt(2), np.sqrt(0.5)])


def test_partial_correlation_is_zero_where_length_works_through_the_votes_alone():
    """Reward = quality + noise, length = quality + noise: within groups they correlate, given the votes they do not."""
    rng = np.random.default_rng(6)
    rows = []
    for i in range(1500):
        rank = np.array([0, 1, 2, 3])
        quality = -rank.astype(float)
        reward, length = quality + 1.5 * rng.normal(size=4), quality + 1.5 * rng.normal(size=4)
        rows.append(group(reward, 0.5, prompt=str(i), length=length, rank=rank))
    none = partial_length_correlation(Scored.from_groups(rows), samples=200, seed=0)
    assert none.low < 0.05
    assert none.high > -0.05
    biased = [replace(g, reward=g.reward + 2 * g.length) for g in rows]
    assert partial_length_correlation(Scored.from_groups(biased), samples=200, seed=0).low > 0.3


def test_a_probe_that_adds_a_constant_has_that_effect_and_overtakes_what_it_can():
    scored = Scored.from_groups([pair(1, 0, 1, 0, 0, prompt="p"), pair(0, 3, 0, 0, 1, prompt="q")])
    before = results_of(scored)
    after = results_of(replace(scored, reward=scored.reward + 2.0))
    found = probe(before, after, 2.0, samples=50, seed=0)
    assert found.effect.value == 1.0  # log-odds: 2 raw over temperature 2
    assert found.raised.value == 1.0
    assert found.overtakes.value == 0.5  # 0 + 2 > 1, but 0 + 2 < 3
    same = probe(before, before, 2.0, samples=50, seed=0)
    assert (same.effect.value, same.raised.value, same.overtakes.value, same.largest) == (0, 0.5, 0, 0)


def test_answers_are_matched_by_record_and_place_and_missing_ones_are_left_out():
    whole = results_of(Scored.from_groups([group([1.0, 2, 3], 0.5), group([4.0, 5], 0.5, prompt="q")]))
    part = results_of(Scored.from_groups([group([9.0, 8], 0.5)]), record=[0], place=[0, 2])
    assert matched(whole, part).tolist() == [0, -1, 1, -1, -1]
    assert matched(whole, whole).tolist() == [0, 1, 2, 3, 4]


def test_margin_and_length_classes_are_equal_parts_between_the_bounds_they_name():
    rng = np.random.default_rng(8)
    difference = rng.normal(size=1000)
    lengths = rng.permutation(4000)[:2000].reshape(1000, 2)
    scored = Scored.from_groups(
        [
            pair(d, 0.0, 1, 0, 0, prompt=str(i), length=length)
            for i, (d, length) in enumerate(zip(difference, lengths, strict=True))
        ]
    )
    for (code, names), values, count in (
        (margin_classes(difference), np.abs(difference), 5),
        (length_classes(scored), lengths.mean(1), 4),
    ):
        assert len(names) == count
        np.testing.assert_array_equal(np.bincount(code), 1000 // count)
        for c, name in enumerate(names):
            low, high = (float(part) for part in name.split(". ", 1)[1].split(" to "))
            inside = values[code == c]
            assert (low, high) == pytest.approx((inside.min(), inside.max()), abs=0.02 * np.ptp(values))
        assert np.all(np.diff(code[np.argsort(values, kind="stable")]) >= 0)
    same = Scored.from_groups([pair(1, 0, 1, 0, 0, prompt=str(i)) for i in range(7)])
    assert len(set(length_classes(same)[0])) == len(set(margin_classes(same.difference)[0])) == 1
    empty = Scored.from_groups([])
    assert len(length_classes(empty)[0]) == len(margin_classes(empty.difference)[0]) == 0


def test_who_wrote_the_answers_does_not_depend_on_their_order():
    scored = Scored.from_groups([pair(1, 0, 1, 0, 0, prompt=str(i)) for i in range(5)])
    source = np.array([0, 1, 1, 0, 1, 1, -1, 0, 2, 0])  # a b, b a, b b, ? a, c a
    code, names = source_pairs(scored, source, ("b", "a", "c"))
    assert [names[c] if c >= 0 else None for c in code] == ["a vs b", "a vs b", "a vs a", None, "b vs c"]


def test_length_correlations_are_those_of_scipy():
    rng = np.random.default_rng(9)
    rows = [
        group(rng.normal(size=k).round(1), 0.5, prompt=str(i), length=rng.integers(1, 9, k), rank=rng.integers(0, 3, k))
        for i, k in enumerate([2, 3, 5, 5, 40, 2])
    ]
    rows.append(group([1.0, 1.0], 0.5, prompt="silent", length=[1, 2], rank=[0, 1]))
    scored, metrics = Scored.from_groups(rows), length_metrics(Scored.from_groups(rows))
    each = [spearmanr(g.reward, g.length).statistic for g in rows if np.ptp(g.reward) and np.ptp(g.length)]
    assert metrics["length/spearman"] == pytest.approx(np.mean(each))
    assert length_correlation(scored, samples=20, seed=0).value == pytest.approx(np.mean(each))
    assert metrics["length/spearman_pooled"] == pytest.approx(spearmanr(scored.reward, scored.length).statistic)
    assert metrics["n_length_undefined"] == len(rows) - len(each)
    big = rows[4]
    rho = spearmanr(np.column_stack([big.reward, big.length, -big.rank])).statistic
    xy, xz, yz = rho[0, 1], rho[0, 2], rho[1, 2]
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    found = partial_length_correlation(Scored.from_groups([big]), samples=20, seed=0)
    assert found.value == pytest.approx(expected)
