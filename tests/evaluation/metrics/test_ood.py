import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import chi2, norm
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score

from rlhf.evaluation.metrics.ood import (
    Reference,
    clustered_auroc,
    detection,
    fit_reference,
    laplace_covariance,
    with_typical,
)


def fitted(rng, n=4000, d=6):
    mix = rng.normal(size=(d, d))
    features = rng.normal(size=(n, d)) @ mix + 3.0
    first, second = np.arange(0, n, 2), np.arange(1, n, 2)
    weight = rng.normal(size=d)
    return fit_reference(features, features @ weight, first, second, weight), mix


def test_mahalanobis_of_ordinary_features_is_chi_square():
    rng = np.random.default_rng(0)
    reference, mix = fitted(rng)
    distance = reference.detect(rng.normal(size=(4000, 6)) @ mix + 3.0)["mahalanobis"]
    assert distance.mean() == pytest.approx(6, abs=0.3)  # standard error 0.055
    assert np.quantile(distance, 0.9) == pytest.approx(chi2.ppf(0.9, 6), rel=0.06)


def test_mahalanobis_does_not_depend_on_the_units_of_the_features():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, 3))
    pairs = np.arange(0, 20_000, 2), np.arange(1, 20_000, 2)
    scale = np.array([1.0, 1.3, 0.8])
    a = fit_reference(x, x[:, 0], *pairs, np.ones(3)).detect(x[:5])["mahalanobis"]
    b = fit_reference(x * scale, x[:, 0], *pairs, np.ones(3)).detect(x[:5] * scale)["mahalanobis"]
    np.testing.assert_allclose(a, b, rtol=0.02)  # shrinkage alone makes them differ


def test_laplace_in_one_dimension_is_its_closed_form_at_the_fixed_point():
    rng = np.random.default_rng(2)
    difference, weight = rng.normal(size=(500, 1)), np.array([0.7])
    p = expit(difference @ weight)
    curvature = float((p * (1 - p) * difference[:, 0] ** 2).sum())
    covariance = laplace_covariance(difference, difference @ weight, weight)[0, 0]
    precision = 1 / covariance - curvature
    assert precision == pytest.approx(curvature / (curvature + precision) / 0.49, rel=1e-6)  # λ = γ / w²
    assert covariance == pytest.approx(1 / (curvature + precision))


def test_a_direction_that_no_pair_shows_keeps_the_variance_of_the_prior():
    difference = np.column_stack([np.random.default_rng(3).normal(size=300), np.zeros(300)])
    covariance = laplace_covariance(difference, difference[:, 0], np.array([1.0, 0.5]))
    assert covariance[1, 1] > 10 * covariance[0, 0]
    assert covariance[0, 1] == pytest.approx(0, abs=1e-12)


def test_detectors_find_a_shift_and_survive_the_file(tmp_path):
    rng = np.random.default_rng(4)
    reference, mix = fitted(rng)
    ordinary = rng.normal(size=(500, 6)) @ mix + 3.0
    reference = with_typical(reference, ordinary)
    reference.save(tmp_path / "ood.safetensors")
    again = Reference.load(tmp_path / "ood.safetensors")
    far = rng.normal(size=(500, 6)) @ mix * 2 + 3.0
    for name in ("mahalanobis", "laplace"):
        before, after = reference.detect(far)[name], again.detect(far)[name]
        np.testing.assert_allclose(before, after, rtol=1e-3)
        assert np.median(again.ood_score(name, after)) > 0.8
        inside = again.ood_score(name, again.detect(ordinary)[name])
        assert inside.mean() == pytest.approx(0.5, abs=0.01)
        assert detection(again.detect(ordinary)[name], after, (np.arange(500), np.arange(500, 1000))).auroc.value > 0.75


def test_auroc_equals_scikit_learn_ties_included():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 5, 40).astype(float), rng.integers(1, 6, 30).astype(float)
    area, low, high = clustered_auroc(a, b, (np.arange(40), np.arange(40, 70)))
    assert area == pytest.approx(roc_auc_score(np.repeat([0, 1], [40, 30]), np.concatenate([a, b])))
    assert low < area < high


def test_interval_of_auroc_covers_when_examples_of_a_prompt_are_alike():
    """The true area comes from a large sample. With 95 % coverage, fewer than 86 hits of 100 have
    a chance of 1e-4, and the interval that ignores clusters covers about 2 times in 3 here."""
    rng = np.random.default_rng(6)

    def draw(prompts, each=8):
        code = np.repeat(np.arange(prompts), each)
        values = rng.normal(size=prompts)[code] + 0.5 * rng.normal(size=prompts * each)
        return values, code

    truth = roc_auc_score(np.repeat([0, 1], 200_000), np.concatenate([draw(25_000)[0], draw(25_000)[0] + 1]))
    hits = naive = 0
    for _ in range(100):
        (a, pa), (b, pb) = draw(40), draw(40)
        _, low, high = clustered_auroc(a, b + 1, (pa, pb + 40))
        hits += low <= truth <= high
        alone = np.arange(len(a) * 2)
        _, low, high = clustered_auroc(a, b + 1, (alone[: len(a)], alone[len(a) :]))
        naive += low <= truth <= high
    assert hits >= 86
    assert naive < hits


def test_one_prompt_has_no_interval_and_nothing_shifted_is_refused():
    one = np.zeros(3, int)
    assert np.isnan(clustered_auroc(np.arange(3.0), np.arange(3.0), (one, one))[1])
    with pytest.raises(ValueError, match="both at least one"):
        detection(np.arange(3.0), np.zeros(0), (one, np.zeros(0, int)))


def test_fpr95_and_aupr_of_a_perfect_and_a_blind_detector():
    prompts = np.arange(100), np.arange(100, 200)
    perfect = detection(np.zeros(100), np.ones(100), prompts)
    assert (perfect.auroc.value, perfect.aupr.value, perfect.fpr95.value) == (1.0, 1.0, 0.0)
    blind = detection(np.zeros(100), np.zeros(100), prompts)
    assert (blind.auroc.value, blind.aupr.value, blind.fpr95.value) == (0.5, 0.5, 1.0)


def test_aupr_and_fpr95_between_blind_and_perfect():
    """Average precision as the step integral of sklearn's curve, and of normal scores; false alarms by counting."""
    rng = np.random.default_rng(11)
    ordinary, shifted = rng.normal(size=3000).round(2), rng.normal(1.0, 1.5, size=1000).round(2)  # with ties
    found = detection(ordinary, shifted, (np.arange(3000), np.arange(3000, 4000)))
    truth, scores = np.repeat([0, 1], [3000, 1000]), np.concatenate([ordinary, shifted])
    precision, recall, _ = precision_recall_curve(truth, scores)
    assert found.aupr.value == pytest.approx(-(np.diff(recall) * precision[:-1]).sum())
    assert found.aupr.value == pytest.approx(auc(recall, precision), abs=0.01)
    bars = np.unique(scores)
    enough = [bar for bar in bars if (shifted >= bar).mean() >= 0.95]
    assert found.fpr95.value == pytest.approx((ordinary >= max(enough)).mean())
    exact = norm.sf(norm.ppf(0.05, 1.0, 1.5))  # 0.93: the lowest 5 % of the shifted lie below most ordinary ones
    assert found.fpr95.value == pytest.approx(exact, abs=4 * 0.02)
    assert 0.3 < found.aupr.value < 0.8  # a random order would have 0.25
    assert found.auroc.value == pytest.approx(norm.cdf(1 / np.sqrt(1 + 1.5**2)), abs=4 * 0.011)
