"""Temperature and calibration errors; the artefact round-trips exactly."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
from result_sets import results_of
from scipy.special import expit
from scored_sets import of_pairs
from sklearn.linear_model import LogisticRegression

from rlhf.evaluation.metrics.calibration import (
    Calibration,
    ece,
    fit_temperature,
    fit_temperature_with_prior,
    nll,
    reliability,
)
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.report.section import Evaluation
from rlhf.evaluation.report.sections.calibration import calibration, verdict

adaptive_ece = partial(ece, adaptive=True)


def votes(difference, temperature, rng):
    return (rng.random(len(difference)) < expit(difference / temperature)).astype(float)


@pytest.mark.parametrize("true", [0.003, 0.3, 1.0, 4.0, 500.0])
def test_a_known_temperature_is_found(true):
    rng = np.random.default_rng(0)
    difference = rng.normal(0, 2 * true, 40_000)
    found = fit_temperature(difference, votes(difference, true, rng))
    assert found == pytest.approx(true, rel=0.05)


def test_the_inverse_temperature_is_the_coefficient_of_a_logistic_regression():
    rng = np.random.default_rng(1)
    difference = rng.normal(0, 3, 500)
    won = votes(difference, 2.0, rng)
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(difference[:, None], won)
    assert fit_temperature(difference, won) == pytest.approx(1 / oracle.coef_[0, 0], rel=1e-5)


@pytest.mark.filterwarnings("ignore:the rewards order")
@pytest.mark.parametrize("seed", range(20))
def test_fitting_keeps_the_order_and_never_raises_the_nll_and_is_positive(seed):
    rng = np.random.default_rng(seed)
    difference, share = rng.normal(0, 3, 20), rng.choice([0, 0.5, 1.0, 0.4], 20)
    temperature = fit_temperature(difference, share)
    assert temperature > 0
    assert nll(difference / temperature, share).mean() <= nll(difference, share).mean()
    assert np.array_equal(np.argsort(difference / temperature), np.argsort(difference))


def test_at_the_fitted_temperature_no_other_one_is_better():
    rng = np.random.default_rng(2)
    difference, share = rng.normal(0, 3, 200), rng.random(200)
    share = np.where(difference > 0, np.maximum(share, 0.4), np.minimum(share, 0.6))
    best = fit_temperature(difference, share)
    reached = nll(difference / best, share).mean()
    assert all(nll(difference / t, share).mean() >= reached for t in np.geomspace(best / 10, best * 10, 101))


def test_larger_rewards_get_a_larger_temperature_and_the_same_probabilities():
    rng = np.random.default_rng(3)
    difference = rng.normal(0, 1, 300)
    won = votes(difference, 2.0, rng)
    assert fit_temperature(1000 * difference, won) == pytest.approx(1000 * fit_temperature(difference, won))


def test_a_weight_of_two_is_the_pair_twice_and_a_weight_of_zero_is_no_pair():
    rng = np.random.default_rng(4)
    difference = rng.normal(0, 2, 60)
    won, weight = votes(difference, 2.0, rng), rng.integers(0, 3, 60)
    repeated = fit_temperature(np.repeat(difference, weight), np.repeat(won, weight))
    assert fit_temperature(difference, won, weight.astype(float)) == pytest.approx(repeated)


def test_separable_pairs_get_a_warning_and_a_temperature_from_smoothed_votes():
    """With |D| = 2 everywhere the smoothed votes ask for σ(2/T) = (n+1)/(n+2), so T = 2 / log(n+1)."""
    difference = np.array([2.0, -2.0] * 20)
    with pytest.warns(UserWarning, match="all 40 validation pairs"):
        found = fit_temperature(difference, (difference > 0).astype(float))
    assert found == pytest.approx(2 / np.log(41))
    with pytest.warns(UserWarning, match="all 2 validation pairs"):  # one step further would raise the NLL
        assert fit_temperature(np.array([1.0, 2.0]), np.ones(2)) == 1.0


def test_rewards_no_better_than_chance_get_a_warning_and_probabilities_of_one_half():
    with pytest.warns(UserWarning, match="no better than chance"):
        found = fit_temperature(np.array([1.0, 2.0]), np.zeros(2))
    np.testing.assert_allclose(expit(np.array([1.0, 2.0]) / found), 0.5, atol=1e-4)


def test_nothing_to_fit_leaves_probabilities_alone_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_temperature(np.zeros(3), np.ones(3)) == 1
        assert fit_temperature(np.zeros(0), np.zeros(0)) == 1


def calibrated(temperature, pairs=800, fitted=1.0):
    """A model whose differences are too large by a factor `temperature`, evaluated after dividing by `fitted`."""
    rng = np.random.default_rng(0)
    difference = rng.normal(scale=1.5, size=pairs)
    scored = of_pairs(temperature * difference, votes(difference, 1.0, rng))
    m = evaluate(scored, temperature=fitted, bootstrap=200)
    evaluation = Evaluation("model", results_of(scored), fitted, m, samples=50)
    return m, calibration(evaluation)


def test_a_temperature_that_hurts_is_said_to_and_one_that_helps_too():
    m, section = calibrated(1.0, fitted=0.25)
    assert m["nll/minus_uncalibrated"] == pytest.approx(m["nll"] - m["nll_uncalibrated"])
    assert m["nll/minus_uncalibrated/ci_low"] > 0
    assert "it surely hurt. The temperature made worse on this set: NLL in nats from" in section.text
    assert f"ECE, 15 equal bins from {m['ece_uncalibrated']:.3f} to {m['ece']:.3f}" in section.text
    assert "Both are larger than chance explains" in section.text
    m, section = calibrated(4.0, fitted=4.0)
    assert m["nll/minus_uncalibrated/ci_high"] < 0
    assert "it surely helped." in section.text
    assert "made worse" not in section.text
    assert "Neither is larger than chance explains" in section.text
    m, section = calibrated(1.0, fitted=1.02)
    assert "not told apart from no effect" in section.text
    assert "What the temperature did" not in calibrated(1.0)[1].text  # T = 1 does nothing


def test_everything_after_the_temperature_stands_beside_what_it_was_before():
    m, section = calibrated(4.0, fitted=4.0)
    before = calibrated(4.0)[0]
    for key in ("nll", "brier", "ece"):
        for end in ("", "/ci_low", "/ci_high"):
            assert m[f"{key}_uncalibrated{end}"] == pytest.approx(before[f"{key}{end}"]), key
    for end in ("", "/ci_low", "/ci_high", "/by_chance"):
        assert m[f"ece/adaptive_uncalibrated{end}"] == pytest.approx(before[f"ece/adaptive{end}"])
    assert m["ece_uncalibrated/by_chance"] == pytest.approx(before["ece/by_chance"])
    assert all(None not in row for row in section.tables[0].rows)


def test_the_verdict_hears_both_kinds_of_bins():
    m = {"ece": 0.05, "ece/ci_low": 0.0, "ece/ci_high": 0.1, "ece/by_chance": 0.04, "ece/adaptive": 0.06,
         "ece/adaptive/ci_low": 0.02, "ece/adaptive/ci_high": 0.1, "ece/adaptive/by_chance": 0.04}  # fmt: skip
    assert "In bins of equal counts it is larger than chance explains" in verdict(m)
    assert "does not show" not in verdict(m)
    assert verdict({"ece": 0.05}) == ""


def test_nll_is_finite_for_any_difference():
    assert np.isfinite(nll(np.array([1e6, -1e6]), np.array([1.0, 0.3]))).all()
    assert nll(np.array([0.0]), np.array([0.3])) == pytest.approx(np.log(2))
    assert nll(np.array([1e6]), np.array([0.0])) == pytest.approx(1e6)


# ------------------------------------------------------------------------------------- calibration errors


def test_a_calibrated_model_has_no_error_though_the_winner_always_stands_first():
    """The usual binary error bins P(first) against the labels, all 1: it is mean(1 - p), far from 0."""
    rng = np.random.default_rng(0)
    difference = rng.normal(0, 1.5, 200_000)
    won = votes(difference, 1.0, rng)
    winner_first = expit(np.where(won == 1, difference, -difference))
    ones = np.ones(len(won))
    assert ece(winner_first, ones) < 0.006
    assert adaptive_ece(winner_first, ones) < 0.006
    assert np.mean(1 - winner_first) > 0.3
    assert ece(expit(3 * difference), won) > 0.1


@pytest.mark.parametrize("measure", [ece, adaptive_ece])
def test_the_error_does_not_see_which_side_stands_first(measure):
    rng = np.random.default_rng(1)
    probability, share = rng.integers(0, 1025, 400) / 1024, rng.random(400)
    swap = rng.random(400) < 0.5
    other = measure(np.where(swap, 1 - probability, probability), np.where(swap, 1 - share, share))
    assert measure(probability, share) == pytest.approx(other, abs=1e-14)


@pytest.mark.parametrize("measure", [ece, adaptive_ece])
def test_equal_differences_share_a_bin_whichever_side_stands_first(measure):
    # 1 - σ(-D) and σ(D) differ in the last digit, which must not put them on two sides of an edge
    edges = 0.5 + np.arange(1, 15) / 30
    on_edges = np.log(edges / (1 - edges))
    for seed in range(200):
        rng = np.random.default_rng(seed)
        grid = rng.integers(-4, 5, 200) * rng.choice([0.3, 0.5, 1.0]) / 1.3
        for difference in (grid, on_edges):
            share, side = rng.integers(0, 4, len(difference)) / 3, rng.choice([-1.0, 1.0], len(difference))
            other = measure(expit(side * difference), np.where(side > 0, share, 1 - share))
            assert measure(expit(difference), share) == pytest.approx(other, abs=1e-11), seed


def test_the_error_is_the_weighted_gap_of_its_bins():
    """Confidences 0.6, 0.6 (share right 0.5) and 0.9 (share right 1): (2·0.1 + 1·0.1) / 3 = 0.1."""
    probability, won = np.array([0.6, 0.4, 0.9]), np.array([1.0, 1.0, 1.0])
    assert ece(probability, won) == pytest.approx(0.1)
    table = reliability(probability, won)
    assert [(b.count, b.agreement) for b in table] == [(2, 0.5), (1, 1.0)]
    assert [b.confidence for b in table] == pytest.approx([0.6, 0.9])


@pytest.mark.parametrize("bins", [1, 2, 7, 15])
def test_the_error_agrees_with_a_plain_loop(bins):
    rng = np.random.default_rng(bins)
    probability, share = rng.random(300), rng.random(300)
    total = 0.0
    for b in range(bins):
        inside = []
        for p, y in zip(probability, share, strict=True):
            c, a = (p, y) if p > 0.5 else (1 - p, 1 - y)
            if 0.5 + b / (2 * bins) <= c < 0.5 + (b + 1) / (2 * bins):
                inside.append(a - c)
        total += abs(sum(inside)) / 300
    assert ece(probability, share, bins=bins) == pytest.approx(total)


def test_certainty_is_in_the_last_bin():
    (only,) = reliability(np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    assert (only.confidence, only.agreement, only.count) == (1.0, 1.0, 2)
    assert ece(np.array([0.98, 1.0]), np.array([1.0, 0.0])) == pytest.approx(0.49)  # torchmetrics#3510


def test_adaptive_bins_hold_equal_numbers_and_never_part_equal_confidences():
    rng = np.random.default_rng(0)
    table = reliability(rng.random(150), np.ones(150), adaptive=True)
    assert [b.count for b in table] == [10] * 15
    crowded = reliability(np.array([0.7] * 97 + [0.8, 0.9, 1.0]), np.ones(100), adaptive=True)
    assert max(b.count for b in crowded) >= 97
    assert sum(b.count for b in crowded) == 100


def test_nobody_predicted_is_neither_right_nor_wrong():
    assert ece(np.full(4, 0.5), np.array([1.0, 1.0, 0.0, 1.0])) == 0
    assert ece(np.zeros(0), np.zeros(0)) == adaptive_ece(np.zeros(0), np.zeros(0)) == 0


@pytest.mark.parametrize("bad", [1.2, -0.1, np.nan])
def test_differences_are_not_taken_for_probabilities(bad):
    with pytest.raises(ValueError, match="sigmoid"):
        ece(np.array([0.5, bad]), np.ones(2))


# ------------------------------------------------------------------------------------------- the artefact


def test_the_artefact_round_trips_exactly(tmp_path):
    one = Calibration(1 / 3, 0.1 + 0.2, 1e-17, 5, 7, "abc", 0.1, "val")
    one.to_json(tmp_path / "c.json")
    assert Calibration.from_json(tmp_path / "c.json") == one
    assert Calibration.identity().probability(1.0, 0.0) == pytest.approx(expit(1.0))


def test_probabilities_are_those_of_the_temperature_and_of_both_sides_together_one():
    one = Calibration(1 / 3, 0.0, 1.0, 5, 7, "abc")
    assert one.probability(2.0, 1.0) == pytest.approx(expit(3.0))
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    np.testing.assert_allclose(one.probability(a, b) + one.probability(b, a), 1)


def test_normalised_rewards_of_the_reference_have_mean_zero_and_std_one():
    reward = np.random.default_rng(0).normal(7, 3, 500)
    one = Calibration(1.0, float(reward.mean()), float(reward.std()), 5, 500, "abc")
    assert one.normalise(reward).mean() == pytest.approx(0, abs=1e-12)
    assert one.normalise(reward).std() == pytest.approx(1)
    assert Calibration(1.0, 2.0, 0.0, 1, 1, "abc").normalise(3.0) == 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_that_cannot_be_is_refused(temperature):
    with pytest.raises(ValueError, match="positive"):
        Calibration(temperature, 0, 1, 0, 0, "")


def test_a_spread_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="reward_std"):
        Calibration(1.0, 0.0, np.nan, 0, 0, "")


def test_a_file_that_is_no_calibration_is_refused_by_name(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"temperature": 1.0}))
    with pytest.raises(ValueError, match=r"calibration\.json.*reward_mean"):
        Calibration.from_json(path)


def prompts_that_differ(rng, prompts, per, scale, votes=3):
    """Differences, vote shares and prompts; the truth is d, rewards are scale · slope of the prompt · (d + noise)."""
    cluster = np.repeat(np.arange(prompts), per)
    d = rng.normal(0, 1.5, len(cluster))
    share = rng.binomial(votes, 1 / (1 + np.exp(-d))) / votes
    slope = np.exp(rng.normal(0, 0.5, prompts))[cluster]
    return scale * slope * (d + rng.normal(size=len(d))), share, cluster


def changed(scale, prompts, per, worlds=40):
    """Change of the NLL on fresh data by the fitted temperature, world by world."""
    found = []
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        temperature = fit_temperature_with_prior(*prompts_that_differ(rng, prompts, per, scale))
        difference, share, _ = prompts_that_differ(rng, 200, 3, scale)
        found.append((nll(difference / temperature, share) - nll(difference, share)).mean())
    return np.array(found)


@pytest.mark.parametrize(("prompts", "per"), [(5, 4), (20, 4), (2, 300)])
def test_the_fit_with_a_prior_does_no_harm_where_nothing_is_to_mend(prompts, per):
    assert changed(0.55, prompts, per).mean() < 0.001


@pytest.mark.parametrize(("prompts", "per", "least"), [(5, 4, 0.15), (20, 4, 0.3), (200, 3, 0.4)])
def test_the_fit_with_a_prior_mends_rewards_that_are_four_times_too_large(prompts, per, least):
    assert changed(2.4, prompts, per).mean() < -least


@pytest.mark.parametrize(("prompts", "per"), [(5, 4), (20, 3), (2, 500)])
def test_rewards_ten_times_too_large_become_better_than_a_coin_whatever_the_validation(prompts, per):
    """What the prior must not prevent: raw NLL is about 2, a coin's 0.693."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        difference, share, _ = prompts_that_differ(rng, 200, 3, 6.0)
        temperature = fit_temperature_with_prior(*prompts_that_differ(rng, prompts, per, 6.0))
        found.append(nll(difference / temperature, share).mean())
    assert np.mean(found) < 0.693
    assert np.median(found) < 0.66


def test_pairs_of_one_prompt_move_the_temperature_less_than_pairs_of_many():
    difference, share, cluster = prompts_that_differ(np.random.default_rng(0), 100, 6, 2.0)
    many = fit_temperature_with_prior(difference, share, cluster)
    few = fit_temperature_with_prior(difference, share, cluster // 50)
    assert 1 < few < many < fit_temperature(difference, share)


def test_probabilities_are_never_made_surer():
    difference, share, cluster = prompts_that_differ(np.random.default_rng(1), 300, 3, 0.2)
    assert fit_temperature(difference, share) < 0.8
    assert fit_temperature_with_prior(difference, share, cluster) == 1
    assert fit_temperature_with_prior(np.zeros(0), np.zeros(0), np.zeros(0, int)) == 1


def test_weights_of_the_fit_with_a_prior_are_repetitions_within_a_prompt():
    difference, share, cluster = prompts_that_differ(np.random.default_rng(2), 50, 1, 2.0)
    weight = np.random.default_rng(3).integers(0, 2, 50)
    kept = weight > 0
    found = fit_temperature_with_prior(difference, share, cluster, weight.astype(float))
    assert found == pytest.approx(fit_temperature_with_prior(difference[kept], share[kept], cluster[kept]))
