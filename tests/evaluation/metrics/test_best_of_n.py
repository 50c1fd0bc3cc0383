"""Best-of-n against enumeration, exact fractions, closed forms and simulation."""

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest

from rlhf.evaluation.metrics.best_of_n import best_of, common_size, curve, gao_fit, kl_bound, selection_weights, steps


@pytest.mark.parametrize(("n", "size"), [(1, 1), (1, 7), (3, 7), (7, 7), (16, 100)])
def test_weights_are_the_exact_fractions(n, size):
    exact = [float(Fraction(comb(i - 1, n - 1), comb(size, n))) for i in range(1, size + 1)]
    np.testing.assert_allclose(selection_weights(n, size), exact, rtol=1e-11, atol=0)


@pytest.mark.parametrize("n", [1, 2, 500, 8192])
def test_weights_sum_to_one_where_binomials_overflow(n):
    weights = selection_weights(n, 8192)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (np.diff(weights[n - 1 :]) >= 0).all()


@pytest.mark.parametrize("n", [0, 5])
def test_a_best_of_n_needs_n_answers(n):
    with pytest.raises(ValueError, match=r"1 <= n <= 4"):
        selection_weights(n, 4)


def enumerated(n, proxy, value):
    """Mean over all subsets; equal bests share the pick."""
    found = []
    for subset in combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        found.append(np.mean([value[i] for i in subset if proxy[i] == best]))
    return np.mean(found)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 100])
def test_equals_enumeration_over_all_subsets_ties_included(seed, levels):
    rng = np.random.default_rng(seed)
    proxy, value = rng.integers(0, levels, 8).astype(float), rng.normal(size=8)
    expected = [enumerated(n, proxy, value) for n in range(1, 9)]
    np.testing.assert_allclose(best_of(range(1, 9), proxy, value), expected, atol=1e-12)


def test_ends_are_the_mean_and_the_best_and_order_says_nothing():
    rng = np.random.default_rng(0)
    proxy, value = rng.integers(0, 9, 30).astype(float), rng.normal(size=(30, 2))
    one, all_of_them = best_of([1, 30], proxy, value)
    np.testing.assert_allclose(one, value.mean(0))
    np.testing.assert_allclose(all_of_them, value[proxy == proxy.max()].mean(0))
    shuffle = rng.permutation(30)
    np.testing.assert_allclose(best_of([4], proxy[shuffle], value[shuffle]), best_of([4], proxy, value), atol=1e-13)


def test_is_unbiased_for_the_maximum_of_a_uniform():
    """E max of n uniforms = n / (n + 1), whatever N: averaged over many prompts it is hit within its error."""
    rng = np.random.default_rng(1)
    rows = np.stack([best_of([1, 2, 4, 8], x, x) for x in rng.random((4000, 12))])
    error = rows.std(0) / np.sqrt(len(rows))
    assert (np.abs(rows.mean(0) - np.array([1, 2, 4, 8]) / np.array([2, 3, 5, 9])) < 4.5 * error).all()


def test_the_kl_bound_is_exact_for_distinct_answers_and_an_upper_bound_for_repeated_ones():
    """KL(best-of-n || p) on M equally likely answers, from the probabilities of the maximum."""
    for size, slack in ((10, True), (200_000, False)):
        grid = np.arange(size + 1) / size
        probability = np.diff(grid**16)
        kl = float((probability[probability > 0] * np.log(probability[probability > 0] * size)).sum())
        assert kl <= kl_bound(16) + 1e-9
        assert (kl < kl_bound(16) - 0.01) == slack
    assert kl_bound(1) == 0


def test_steps_double_and_end_at_the_size():
    assert steps(1) == (1,)
    assert steps(8) == (1, 2, 4, 8)
    assert steps(11) == (1, 2, 4, 8, 11)


def test_the_fit_recovers_its_own_curve_and_its_peak():
    kl = kl_bound(np.array([1, 2, 4, 8, 16, 64]))
    d = np.sqrt(kl)
    exact = d * (1.5 - 0.4 * d)
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.3, size=(200, len(d)))
    fit = gao_fit(kl, exact + noise - noise.mean(0), bootstrap=200)
    assert (fit.alpha, fit.beta, fit.r2) == pytest.approx((1.5, 0.4, 1.0))
    assert fit.peak == pytest.approx(1.5 / 0.8)
    assert fit.alpha_interval[0] < 1.5 < fit.alpha_interval[1]
    assert fit.beta_interval[0] < 0.4 < fit.beta_interval[1]


def test_the_fit_of_the_mean_is_the_mean_of_the_fits():
    """The coefficients are linear in the gains, so scipy's fit of the mean curve gives the same."""
    from scipy.optimize import curve_fit

    kl = kl_bound(np.array([1, 2, 4, 8]))
    gain = np.random.default_rng(3).normal(size=(20, 4))
    found, _ = curve_fit(lambda d, a, b: d * (a - b * d), np.sqrt(kl), gain.mean(0), (0.0, 0.0))
    fit = gao_fit(kl, gain, bootstrap=0)
    np.testing.assert_allclose((fit.alpha, fit.beta), found, atol=1e-6)


def test_a_gain_that_never_turns_has_no_peak():
    kl = kl_bound(np.array([1, 2, 4]))
    assert gao_fit(kl, np.sqrt(kl)[None], bootstrap=0).peak == np.inf
    with pytest.raises(ValueError, match="two different distances"):
        gao_fit(kl[:2], np.zeros((1, 2)))


def test_the_curve_follows_gold_and_length_beside_the_proxy():
    rng = np.random.default_rng(0)
    proxies = [rng.normal(size=k) for k in (16, 16, 20, 16, 3, 16)]
    gold = [p + rng.normal(size=len(p)) for p in proxies]
    found = curve(proxies, {"gold": gold, "length": [np.full(len(p), 7.0) for p in proxies]}, bootstrap=100)
    assert found.ns == (1, 2, 4, 8, 16)
    assert (found.n_prompts, found.n_left_out) == (5, 1)
    assert (np.diff(found.value["proxy"]) > 0).all()
    assert found.value["proxy"][-1] == pytest.approx(np.mean([best_of([16], p, p)[0] for p in proxies if len(p) > 3]))
    np.testing.assert_allclose(found.value["length"], 7)
    np.testing.assert_allclose(found.value["length/win_rate"], 0.5)
    assert found.value["gold/win_rate"][0] == pytest.approx(0.5)
    assert found.value["gold/win_rate"][-1] > 0.5
    assert (found.low["gold"] <= found.value["gold"]).all()
    assert (found.high["gold"] >= found.value["gold"]).all()
    assert set(found.fit) == {"proxy", "gold", "length"}


@pytest.mark.parametrize(
    ("counts", "size"),
    [
        ([3, 114], 3),  # not 114, which one prompt has
        ([2, 4, 8], 4),
        ([4, 4, 4, 9], 4),
        ([2, 2, 9, 9], 9),
        ([1, 1, 1, 3, 4], 3),  # prompts without a choice have no say
        ([1, 7], 7),
        ([1, 1], 0),
        ([], 0),
    ],
)
def test_n_goes_up_to_what_half_of_the_prompts_and_two_of_them_reach(counts, size):
    assert common_size(np.array(counts, dtype=int)) == size


@pytest.mark.parametrize(("prompts", "fitted"), [(1, False), (4, False), (5, True)])
def test_a_fit_needs_a_few_prompts(prompts, fitted):
    proxies = list(np.random.default_rng(0).normal(size=(prompts, 16)))
    assert bool(curve(proxies, {}, bootstrap=10).fit) == fitted


def test_prompts_without_a_choice_are_refused():
    with pytest.raises(ValueError, match="at least 2 answers"):
        curve([np.zeros(1), np.zeros(1)], {})
    with pytest.raises(ValueError, match="at least 9 answers; the largest has 4"):
        curve([np.zeros(4)], {}, size=9)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Gold = half the proxy plus noise, 60 prompts of 8: E gold of the best of 8 is 0.5 · E max of 8 normals."""
    rng = np.random.default_rng(0)
    truth = 0.5 * 1.4236
    hits = 0
    for trial in range(100):
        proxies = list(rng.normal(size=(40, 8)))
        gold = [0.5 * p + rng.normal(size=8) for p in proxies]
        found = curve(proxies, {"gold": gold}, bootstrap=200, seed=trial)
        hits += found.low["gold"][-1] <= truth <= found.high["gold"][-1]
    # fewer than 82 has odds of 4e-4 even at 92%, about what a percentile interval of 40 prompts reaches
    assert hits >= 82
