"""Two models on the same pairs: identities, and independent tests of statsmodels."""

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from rlhf.judge.paired import bootstrap_p, differences
from rlhf.judge.parts import difference_from_rest, holm, part_accuracy


def test_holm_equals_statsmodels_and_leaves_out_what_was_not_tested():
    p = [0.04, 0.001, 0.5, 0.01, 0.03]
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    found = holm([*p, np.nan])
    np.testing.assert_allclose(found[:5], multipletests(p, method="holm")[1])
    assert np.isnan(found[5])


def models(rng, pairs=600, lead=0.0):
    base = rng.random(pairs)
    return {
        "a": (base < 0.6 + lead).astype(float),
        "b": (np.roll(base, 1) < 0.6).astype(float),
    }


def test_a_model_does_not_differ_from_itself():
    right = models(np.random.default_rng(0))["a"]
    loss = np.random.default_rng(1).random(len(right))
    (found,) = differences(
        {"x": right, "y": right}, {"x": loss, "y": loss}, np.arange(len(right)) // 3, samples=200, seed=0
    )
    assert (found.accuracy, found.low, found.high, found.nll) == (0, 0, 0, 0)
    assert found.p == found.mcnemar == 1
    assert found.only_first == found.only_second == 0


def test_mcnemar_equals_statsmodels():
    right = models(np.random.default_rng(2), lead=0.08)
    loss = {name: np.zeros(600) for name in right}
    (found,) = differences(right, loss, np.arange(600), samples=100, seed=0)
    a, b = right["a"] > 0.5, right["b"] > 0.5
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert found.mcnemar == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert (found.only_first, found.only_second) == (table[0][1], table[1][0])


def test_undecided_pairs_count_for_neither():
    right = models(np.random.default_rng(3), lead=0.1)
    loss = {name: np.ones(600) for name in right}
    (found,) = differences(right, loss, np.arange(600), samples=50, seed=0)
    holes = {name: np.append(values, [np.nan] * 40) for name, values in right.items()}
    more = {name: np.ones(640) for name in right}
    (again,) = differences(holes, more, np.arange(640), samples=50, seed=0)
    assert again.accuracy == pytest.approx(found.accuracy)
    assert again.mcnemar == found.mcnemar


def test_the_bootstrap_p_is_that_of_the_normal_test_where_both_hold():
    rng = np.random.default_rng(4)
    sums = rng.normal(0.12, 1, size=400)
    found = bootstrap_p(sums, samples=4000, seed=1)
    z = sums.mean() / (sums.std(ddof=1) / 20)
    assert found == pytest.approx(2 * norm.sf(abs(z)), abs=0.02)
    assert bootstrap_p(np.ones(50), samples=99, seed=0) == pytest.approx(0.02)
    assert np.isnan(bootstrap_p(np.ones(1), samples=99, seed=0))


def test_three_models_are_corrected_together():
    rng = np.random.default_rng(5)
    right = models(rng, lead=0.06) | {"c": rng.integers(0, 2, 600).astype(float)}
    loss = {name: np.zeros(600) for name in right}
    found = differences(right, loss, np.arange(600), samples=400, seed=0)
    assert [(d.first, d.second) for d in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    alone = [
        differences(
            {x: right[x], y: right[y]}, {x: loss[x], y: loss[y]}, np.arange(600), samples=400, seed=0
        )[0]
        for x, y in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    np.testing.assert_allclose([d.mcnemar for d in found], holm([d.mcnemar for d in alone]))


def test_parts_by_hand_and_undecided_pairs_in_none():
    right = np.array([1, 1, 0, 1, 0, 0, np.nan, 1])
    code = np.array([0, 0, 0, 1, 1, 1, 1, -1])
    parts = part_accuracy(right, code, ["x", "y", "z"], np.arange(8), samples=100, seed=0)
    assert [(p.label, p.pairs, p.accuracy) for p in parts] == [
        ("x", 3, pytest.approx(2 / 3)), ("y", 3, pytest.approx(1 / 3)),
    ]  # fmt: skip
    assert all(np.isnan(p.p) for p in parts), "ten prompts are too few for the approximation"


def test_parts_that_do_not_differ_are_called_different_at_the_rate_of_the_level():
    rng = np.random.default_rng(6)
    called = 0
    for _ in range(400):
        right = np.repeat(rng.random(60) < 0.7, 4) * 1.0  # pairs of a prompt are right together
        inside = np.repeat(rng.random(60) < 0.4, 4)[:, None]
        called += difference_from_rest(right, inside, np.repeat(np.arange(60), 4))[0] < 0.05
    assert 5 <= called <= 42  # 20 expected; treating pairs as independent would call about 130
