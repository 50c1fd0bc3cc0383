"""Detectors of strange answers: closed forms, independent libraries, and what they do after a save."""

import numpy as np
import pytest
from scipy.stats import chi2, kstest, mannwhitneyu
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.metrics import roc_auc_score

from rlhf.judge.ood import (
    Reference,
    clustered_auroc,
    detection,
    fit_reference,
    laplace_covariance,
    with_typical,
)


def reference_of(rng, n=4000, width=6):
    mixing = rng.normal(size=(width, width))
    weight = rng.normal(size=width)

    def draw(count):
        return rng.normal(size=(count, width)) @ mixing + 3

    features = draw(n)
    first, second = np.arange(0, n, 2), np.arange(1, n, 2)
    return fit_reference(features, features @ weight, first, second, weight), draw, features


def test_mahalanobis_of_ordinary_answers_is_chi_square():
    found, draw, _ = reference_of(np.random.default_rng(0))
    distance = found.detect(draw(2000))["mahalanobis"]
    assert distance.mean() == pytest.approx(6, rel=0.1)
    assert kstest(distance, chi2(6).cdf).pvalue > 1e-3


def test_mahalanobis_is_that_of_the_shrunk_covariance():
    found, draw, features = reference_of(np.random.default_rng(1), n=300)
    new = draw(50)
    expected = LedoitWolf().fit(features).mahalanobis(new)
    np.testing.assert_allclose(found.detect(new)["mahalanobis"], expected, rtol=1e-8)
    plain = EmpiricalCovariance().fit(features).mahalanobis(new)
    assert np.abs(expected / plain - 1).max() > 0.01, "shrinking made a difference"


def test_more_features_than_answers_still_give_finite_distances():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(20, 50))
    found = fit_reference(features, rng.normal(size=20), np.arange(10), np.arange(10, 20), np.ones(50))
    for values in found.detect(rng.normal(size=(5, 50))).values():
        assert np.isfinite(values).all()
        assert (values >= 0).all()


def test_laplace_covariance_is_the_inverse_curvature_at_its_own_precision():
    rng = np.random.default_rng(3)
    difference, weight = rng.normal(size=(200, 4)), np.array([1.0, -2.0, 0.5, 0.0])
    logit = difference @ weight
    found = laplace_covariance(difference, logit, weight)
    p = 1 / (1 + np.exp(-logit))
    curvature = (difference * (p * (1 - p))[:, None]).T @ difference
    rest = np.linalg.inv(found) - curvature
    precision = rest[0, 0]
    np.testing.assert_allclose(rest, precision * np.eye(4), atol=1e-8)
    values = np.linalg.eigvalsh(curvature)
    assert precision == pytest.approx((values / (values + precision)).sum() / (weight @ weight), rel=1e-6)


def test_directions_without_data_are_unsure():
    rng = np.random.default_rng(4)
    difference = rng.normal(size=(500, 3)) * [1, 1, 0]
    found = laplace_covariance(difference, difference @ np.ones(3), np.ones(3))
    assert found[2, 2] > 10 * found[0, 0]


def test_unusual_is_a_share_of_ordinary_answers_and_survives_the_disk(tmp_path):
    found, draw, _ = reference_of(np.random.default_rng(5))
    found = with_typical(found, draw(3000))
    found.save(tmp_path / "ood.safetensors")
    again = Reference.load(tmp_path / "ood.safetensors")
    ordinary, strange = draw(1000), draw(200) + 40
    for reference in (found, again):
        for detector in ("mahalanobis", "laplace"):
            share = reference.unusual(detector, reference.detect(ordinary)[detector])
            assert abs(share.mean() - 0.5) < 0.05
            assert reference.unusual(detector, reference.detect(strange)[detector]).min() > 0.95
    np.testing.assert_allclose(
        again.detect(ordinary)["mahalanobis"], found.detect(ordinary)["mahalanobis"], rtol=1e-3
    )


def test_areas_equal_those_of_scikit_learn_ties_included():
    rng = np.random.default_rng(6)
    ordinary, strange = rng.integers(0, 8, 120).astype(float), rng.integers(2, 10, 80).astype(float)
    found = detection(ordinary, strange, (np.arange(120), np.arange(120, 200)))
    truth = np.repeat([0, 1], [120, 80])
    assert found.auroc == pytest.approx(roc_auc_score(truth, np.concatenate([ordinary, strange])))
    assert found.auroc == pytest.approx(mannwhitneyu(strange, ordinary).statistic / (120 * 80))
    assert found.low < found.auroc < found.high


def test_false_alarms_are_counted_where_95_of_100_strange_ones_are_caught():
    ordinary, strange = np.arange(100.0), np.arange(50.0, 150.0)
    found = detection(ordinary, strange, (np.arange(100), np.arange(100, 200)))
    assert found.fpr95 == pytest.approx(
        0.45
    )  # threshold 55 catches 95 of 100; 45 of 100 ordinary ones are above


def test_repeated_answers_of_a_prompt_do_not_narrow_the_interval():
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=60), rng.normal(1, 1, size=60)
    alone = clustered_auroc(a, b, (np.arange(60), np.arange(60, 120)))
    repeated = clustered_auroc(
        np.repeat(a, 9), np.repeat(b, 9), (np.repeat(np.arange(60), 9), np.repeat(np.arange(60, 120), 9))
    )
    np.testing.assert_allclose(repeated, alone, rtol=1e-12)


def test_a_detector_needs_both_sides():
    with pytest.raises(ValueError, match="ordinary and strange"):
        detection(np.zeros(3), np.zeros(0), (np.arange(3), np.arange(0)))
