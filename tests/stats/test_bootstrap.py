"""Bootstrap intervals: coverage by simulation, clusters, and what stays undefined.

Limits on simulated coverage: of 200 intervals that each hold the truth with probability 0.95, fewer than 179 or all
200 do with probability below 0.001 (binomial: 0.0003 and 0.00004).
"""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom, binomtest
from scipy.stats import norm as normal
from scipy.stats import t as student

from rlhf.evaluation.metrics.calibration import BINS, ece, equal_width, fold
from rlhf.stats import bootstrap
from rlhf.stats.bootstrap import cluster_bootstrap, cluster_sums, ece_bounds, resampled_sums, unanimous

SIMULATIONS = 200
FEWEST, MOST = 179, 199


def test_the_stated_limits_are_the_binomial_ones():
    assert binom.cdf(FEWEST - 1, SIMULATIONS, 0.95) < 0.001
    assert binom.sf(MOST, SIMULATIONS, 0.95) < 0.001


def clustered(rng, prompts=80, pairs=6):
    """Right or wrong [prompts, pairs]: each prompt has its own difficulty, Beta(2, 1) with mean 2/3."""
    return (rng.random((prompts, pairs)) < rng.beta(2, 1, (prompts, 1))).astype(float)


def holds(right, cluster, truth, seed):
    sums = cluster_sums(np.column_stack([right.ravel(), np.ones(right.size)]), cluster)
    low, high = cluster_bootstrap(sums[:, :1], sums[:, 1:], samples=300, seed=seed)
    return low[0] <= truth <= high[0], high[0] - low[0]


def test_a_95_percent_interval_holds_the_truth_95_times_in_100_and_a_naive_one_does_not():
    rng = np.random.default_rng(0)
    by_prompt, by_pair = [], []
    for seed in range(SIMULATIONS):
        right = clustered(rng)
        by_prompt.append(holds(right, np.repeat(np.arange(80), 6), 2 / 3, seed))
        by_pair.append(holds(right, np.arange(480), 2 / 3, seed))
    assert FEWEST <= sum(inside for inside, _ in by_prompt) <= MOST
    assert sum(inside for inside, _ in by_pair) < FEWEST
    # Var(mean of a cluster of 6) / Var(6 independent) = 1 + 5·icc, icc = 1/(2+1+1) = 0.25: 1.5 times as wide
    ratio = np.mean([w for _, w in by_prompt]) / np.mean([w for _, w in by_pair])
    assert ratio == pytest.approx(1.5, rel=0.05)


def test_a_ratio_of_sums_is_not_a_mean_of_ratios():
    """Two prompts, one with 1 pair and one with 99: the whole is near the large one, not in the middle."""
    numerators, denominators = np.array([[1.0], [0.0]] * 50), np.array([[1.0], [99.0]] * 50)
    low, high = cluster_bootstrap(numerators, denominators, samples=500, seed=0)
    assert low[0] < 0.01 < high[0] < 0.02


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    rng = np.random.default_rng(1)
    top, bottom = rng.random((40, 2)), np.ones((40, 2))
    once, again = (np.stack(cluster_bootstrap(top, bottom, samples=100, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert (once != np.stack(cluster_bootstrap(top, bottom, samples=100, seed=4))).any()


def test_resampling_in_chunks_changes_nothing(monkeypatch):
    sums = np.random.default_rng(0).random((30, 3))
    whole = resampled_sums(sums, samples=50, seed=0)
    monkeypatch.setattr(bootstrap, "CHUNK", 100)
    np.testing.assert_allclose(resampled_sums(sums, samples=50, seed=0), whole)


def test_resampled_totals_have_the_mean_and_the_variance_of_sampling_with_replacement():
    """E = Σ x and Var = C·Var(x) for C clusters; 4000 resamples know the sd to 1.1 %."""
    values = np.random.default_rng(0).gamma(2, size=(200, 1))
    drawn = resampled_sums(values, samples=4000, seed=1)[:, 0]
    sd = np.sqrt(200) * values.std()
    assert drawn.mean() == pytest.approx(values.sum(), abs=4 * sd / np.sqrt(4000))
    assert drawn.std() == pytest.approx(sd, rel=0.05)


def test_many_clusters_are_pooled_without_changing_the_spread(monkeypatch):
    values = np.random.default_rng(0).gamma(2, size=(4001, 1))
    monkeypatch.setattr(bootstrap, "BLOCKS", 1000)
    drawn = resampled_sums(values, samples=2000, seed=1)[:, 0]
    assert drawn.std() == pytest.approx(np.sqrt(4001) * values.std(), rel=0.08)


@pytest.mark.parametrize("clusters", [0, 1])
def test_fewer_than_two_clusters_have_no_interval(clusters):
    ones = np.ones((clusters, 1))
    low, high = cluster_bootstrap(ones, ones, samples=10, seed=0)
    assert np.isnan([low[0], high[0]]).all()


def test_a_statistic_that_only_one_cluster_carries_is_undefined_and_spoils_no_other():
    bottom = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    low, high = cluster_bootstrap(bottom / 2, bottom, samples=50, seed=0)
    assert low[0] == high[0] == 0.5
    assert np.isnan([low[1], high[1]]).all()


def test_where_all_clusters_agree_the_interval_is_the_exact_binomial_one_over_clusters():
    """Clopper-Pearson: the end at which n of n have probability 0.025; 0.541 for 6 of 6."""
    ones = np.ones((6, 1))
    for credit, known in ((1.0, (0.5407, 1.0)), (0.0, (0.0, 0.4593)), (0.5, (0.2704, 0.7296))):
        top = np.repeat(credit * ones, 3, axis=0)[:6] * 3  # three pairs each: they are no more prompts for it
        low, high = cluster_bootstrap(top, 3 * ones, samples=50, seed=0, within=(0.0, 1.0))
        assert (low[0], high[0]) == pytest.approx(known, abs=1e-4)
    exact = binomtest(6, 6).proportion_ci(method="exact")
    low, high = cluster_bootstrap(ones, ones, samples=50, seed=0, within=(0.0, 1.0))
    assert (low[0], high[0]) == pytest.approx((exact.low, exact.high))
    assert unanimous(0.0, 0.0, 0.0, 6, within=(-1.0, 1.0)) == pytest.approx((-0.4593, 0.4593), abs=1e-4)
    assert unanimous(0.5, 0.4, 0.6, 6) == (0.4, 0.6)  # a spread that is known stays
    assert np.isnan(unanimous(1.0, np.nan, np.nan, 6)).all()


def test_sums_per_cluster_are_sums_per_cluster():
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    np.testing.assert_array_equal(cluster_sums(values, np.array([7, 3, 7])), [[2.0, 20.0], [5.0, 50.0]])


def simulate(overconfidence, seed, pairs=500):
    """Calibration error of a model whose differences are too large by a factor, and its interval."""
    rng = np.random.default_rng(seed)
    difference = rng.normal(scale=1.5, size=pairs)
    won = (rng.random(pairs) < expit(difference)).astype(float)
    probability = expit(difference * overconfidence)
    confidence, agreement = fold(probability, won)
    gaps = np.zeros((pairs, BINS))
    gaps[np.arange(pairs), equal_width(confidence)] = agreement - confidence
    drawn = resampled_sums(np.column_stack([gaps, np.ones(pairs)]), samples=200, seed=seed)
    found = ece_bounds(gaps.sum(0), drawn[:, :-1], float(pairs), drawn[:, -1], pairs)
    return ece(probability, won), *found


def test_the_interval_of_the_calibration_error_starts_at_zero_for_a_calibrated_model():
    error, low, high, by_chance = np.array([simulate(1.0, seed) for seed in range(SIMULATIONS)]).T
    assert FEWEST <= (low == 0).sum() <= SIMULATIONS
    assert (low <= error + 1e-12).all()
    assert (error <= high + 1e-12).all()
    assert by_chance.mean() == pytest.approx(error.mean(), rel=0.05)


def test_the_interval_of_the_calibration_error_finds_an_overconfident_model_and_beats_percentiles():
    """The truth is the binned error on half a million pairs with their exact probabilities as labels."""
    difference = np.random.default_rng(0).normal(scale=1.5, size=500_000)
    truth = ece(expit(2 * difference), expit(difference))
    error, low, high, _ = np.array([simulate(2.0, seed) for seed in range(SIMULATIONS)]).T
    q_low, q_high = 2 * error - high, 2 * error - low
    covered = ((low <= truth) & (truth <= high)).sum()
    assert covered > 0.84 * SIMULATIONS
    assert covered > ((q_low <= truth) & (truth <= q_high)).sum() + 0.1 * SIMULATIONS
    assert (low > 0).sum() > 0.7 * SIMULATIONS


@pytest.mark.parametrize("units", [2, 4, 6])
def test_intervals_of_few_clusters_hold_the_truth_as_often_as_they_say_and_plain_percentiles_do_not(units):
    rng, held, plain = np.random.default_rng(units), 0, 0
    for seed in range(400):
        values = rng.normal(0.3, 1.0, size=(units, 1))
        low, high = cluster_bootstrap(values, np.ones((units, 1)), samples=200, seed=seed)
        held += int(low[0] <= 0.3 <= high[0])
        drawn = bootstrap.resampled_sums(values, samples=200, seed=seed)[:, 0] / units
        plain += int(np.quantile(drawn, 0.025) <= 0.3 <= np.quantile(drawn, 0.975))
    assert held > 0.905 * 400 > plain  # 95% less four standard errors


def test_stretching_gives_means_a_t_interval_and_fades_with_the_number_of_units():
    for n in (2, 5, 30):
        wanted = student.ppf(0.975, n - 1) * np.sqrt(n / (n - 1)) / normal.ppf(0.975)
        assert bootstrap.stretched(n) == pytest.approx(wanted)
    assert bootstrap.stretched(10_000) == pytest.approx(1.0, abs=3e-4)
    drawn = np.random.default_rng(0).normal(2.0, 1.0, size=(100_000, 2))
    low, high = bootstrap.bounds(drawn, np.array([4, 10_000]))
    assert high - 2.0 == pytest.approx([1.96 * 1.875, 1.96], abs=0.03)
    assert 2.0 - low == pytest.approx([1.96 * 1.875, 1.96], abs=0.03)


def test_intervals_end_where_a_share_ends():
    right = np.array([[1.0], [4.0], [5.0]])
    low, high = cluster_bootstrap(right, np.full((3, 1), 5.0), samples=500, seed=0, within=(0.0, 1.0))
    assert (low[0], high[0]) == (0.0, 1.0)
