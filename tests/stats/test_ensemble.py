"""Aggregators of an ensemble: identities, orderings, and the variance's definition pinned."""

import numpy as np
import pytest

from rlhf.stats.ensemble import mean, mean_minus_variance, median, standardise, variance, worst_case

ALL = (mean, median, worst_case, mean_minus_variance)


def test_identical_members_have_no_variance_and_all_aggregators_agree():
    one = np.random.default_rng(0).normal(size=50)
    members = standardise(np.tile(one, (5, 1)))
    np.testing.assert_allclose(variance(members), 0, atol=1e-30)
    for aggregate in ALL:
        np.testing.assert_allclose(aggregate(members), members[0], atol=1e-15)


def test_the_variance_is_the_population_variance():
    members = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [6.0, 1.0], [8.0, 1.0]])
    np.testing.assert_array_equal(variance(members), [8.0, 0.0])  # the sample variance would be 10
    np.testing.assert_array_equal(mean_minus_variance(members, 0.5), [4 - 0.5 * 8, 1.0])


def test_weight_zero_is_the_mean_and_more_weight_is_more_careful():
    members = np.random.default_rng(1).normal(size=(4, 30))
    np.testing.assert_array_equal(mean_minus_variance(members, 0.0), mean(members))
    assert (mean_minus_variance(members, 1.0) < mean_minus_variance(members, 0.1)).all()
    assert (worst_case(members) <= median(members)).all()
    with pytest.raises(ValueError, match="must be >= 0"):
        mean_minus_variance(members, -1.0)


def test_standardising_makes_members_comparable_whatever_their_units():
    members = np.random.default_rng(2).normal(size=(3, 40))
    scaled = members * np.array([[1.0], [100.0], [0.01]]) + np.array([[0.0], [-7.0], [3.0]])
    np.testing.assert_allclose(standardise(scaled), standardise(members), atol=1e-10)
    np.testing.assert_allclose(standardise(members).std(axis=1), 1)
    np.testing.assert_array_equal(standardise(np.full((2, 5), 3.0)), 0)


def test_a_reference_fixes_the_scale():
    reference = np.array([[0.0, 2.0], [10.0, 30.0]])
    np.testing.assert_allclose(standardise(np.array([[3.0], [40.0]]), reference), [[2.0], [2.0]])
