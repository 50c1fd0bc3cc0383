"""Two models on the same pairs: identities, and independent tests of statsmodels."""

import numpy as np
import pytest
from scipy.stats import norm

from rlhf.evaluation.metrics.paired import bootstrap_p, differences
from rlhf.evaluation.metrics.slices import holm
from rlhf.stats.bootstrap import cluster_bootstrap


def models(rng, pairs=600, lead=0.0):
    base = rng.random(pairs)
    return {"a": (base < 0.6 + lead).astype(float), "b": (np.roll(base, 1) < 0.6).astype(float)}


def test_a_model_does_not_differ_from_itself():
    right = models(np.random.default_rng(0))["a"]
    loss = np.random.default_rng(1).random(len(right))
    (found,) = differences(
        {"x": right, "y": right}, {"x": loss, "y": loss}, np.arange(len(right)) // 3, samples=200, seed=0
    )
    assert (found.accuracy.value, found.nll.value) == (0, 0)
    assert -0.05 < found.accuracy.low == -found.accuracy.high < 0  # what prompts that were not seen could still change
    assert found.p == found.mcnemar == 1
    assert found.only_first == found.only_second == 0


def test_undecided_pairs_count_for_neither():
    right = models(np.random.default_rng(3), lead=0.1)
    loss = {name: np.ones(600) for name in right}
    (found,) = differences(right, loss, np.arange(600), samples=50, seed=0)
    holes = {name: np.append(values, [np.nan] * 40) for name, values in right.items()}
    more = {name: np.ones(640) for name in right}
    (again,) = differences(holes, more, np.arange(640), samples=50, seed=0)
    assert again.accuracy.value == pytest.approx(found.accuracy.value)
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
        differences({x: right[x], y: right[y]}, {x: loss[x], y: loss[y]}, np.arange(600), samples=400, seed=0)[0]
        for x, y in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    np.testing.assert_allclose([d.mcnemar for d in found], holm([d.mcnemar for d in alone]))


@pytest.mark.parametrize("clusters", [2, 4, 6])
def test_few_prompts_that_agree_show_no_more_than_their_number_can(clusters):
    sums = np.linspace(1.0, 1.1, clusters)
    assert bootstrap_p(sums, samples=1000, seed=0) == 2.0 ** (1 - clusters)
    with_silent = np.concatenate([sums, np.zeros(3)])  # prompts on which the two do not differ say nothing
    assert bootstrap_p(with_silent, samples=1000, seed=0) >= 2.0 ** (1 - clusters)


def test_the_p_of_few_prompts_agrees_with_their_interval():
    rng, both = np.random.default_rng(5), 0
    for seed in range(60):
        sums = rng.normal(0.8, 1.0, size=8)
        low, high = cluster_bootstrap(sums[:, None], np.ones((8, 1)), samples=400, seed=seed)
        excludes = not low[0] <= 0 <= high[0]
        both += excludes == (bootstrap_p(sums, samples=400, seed=seed) < 0.05)
    assert both >= 54  # they pivot at the median and at the sum, so that a few lie between
