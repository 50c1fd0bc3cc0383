"""The head against scipy, derivatives and closed forms; λ by cross-validation against what is known to be best."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit

from rlhf.select.laplace import GRID, Posterior, fit, information, newton, tie_information, tune


def labelled(rng, m, d, scale=1.0):
    z = rng.standard_normal((m, d))
    theta = scale * rng.standard_normal(d)
    votes = rng.integers(1, 6, m).astype(float)
    return z, rng.binomial(votes.astype(int), expit(z @ theta)) / votes, votes, theta


@pytest.mark.parametrize(("m", "d"), [(40, 5), (4, 12)])
def test_the_head_is_the_minimum_that_scipy_finds(m, d):
    z, share, votes, _ = labelled(np.random.default_rng(1), m, d)

    def loss(theta):
        mu = z @ theta
        data = votes * (share * np.logaddexp(0, -mu) + (1 - share) * np.logaddexp(0, mu))
        return data.sum() + 0.7 / 2 * theta @ theta

    found = fit(z, share, votes, 0.7)
    np.testing.assert_allclose(found.theta, minimize(loss, np.zeros(d), tol=1e-12).x, atol=1e-5)
    gradient = lambda theta: approx_fprime(theta, loss, 1e-6)  # noqa: E731
    hessian = np.array([approx_fprime(found.theta, lambda t, i=i: gradient(t)[i], 1e-4) for i in range(d)])
    np.testing.assert_allclose(found.factor @ found.factor.T, hessian, rtol=0.05, atol=0.05)


def test_votes_count_as_repeated_pairs_and_sides_may_be_swapped():
    rng = np.random.default_rng(2)
    z, _, _, _ = labelled(rng, 20, 4)
    share = rng.integers(0, 2, 20).astype(float)
    twice = fit(np.vstack([z, z]), np.tile(share, 2), np.ones(40), 1.0)
    np.testing.assert_allclose(fit(z, share, np.full(20, 2.0), 1.0).theta, twice.theta, atol=1e-8)
    swapped = fit(-z, 1 - share, np.ones(20), 1.0)
    np.testing.assert_allclose(fit(z, share, np.ones(20), 1.0).theta, swapped.theta, atol=1e-10)


def test_newton_finds_separable_minima_and_large_scales():
    z = np.array([[1e4], [2e4]])
    theta = newton(z, np.ones(2), np.ones(2), 1e-6, np.zeros(1))
    assert np.isfinite(theta).all()
    assert theta[0] > 0


def test_posterior_variance_draws_and_prior():
    rng = np.random.default_rng(3)
    z, share, votes, _ = labelled(rng, 30, 4)
    found = fit(z, share, votes, 1.0)
    precision = found.factor @ found.factor.T
    np.testing.assert_allclose(found.covariance(), np.linalg.inv(precision), atol=1e-10)
    np.testing.assert_allclose(found.variance(z), np.einsum("nd,de,ne->n", z, found.covariance(), z), rtol=1e-8)
    draws = found.draw(200_000, rng)
    np.testing.assert_allclose(np.cov(draws.T), found.covariance(), atol=0.02 * np.abs(found.covariance()).max())
    np.testing.assert_allclose(draws.mean(0), found.theta, atol=0.01)
    np.testing.assert_allclose(Posterior.prior(4, 2.0).variance(z), (z**2).sum(1) / 2)


def test_information_is_the_curvature_of_the_likelihood():
    mu = np.linspace(-3, 3, 7)
    p = expit(mu)
    np.testing.assert_allclose(information(p), p * (1 - p))
    np.testing.assert_allclose(information(p, votes=3.0), 3 * p * (1 - p))
    for gamma in (0.3, 0.9):
        seen = gamma * p + (1 - gamma) / 2
        slope = (
            gamma * p * (1 - p)
        )  # d seen / d mu, so the information of a coin with P = seen is slope² / (seen (1 - seen))
        np.testing.assert_allclose(information(p, reliability=gamma), slope**2 / (seen * (1 - seen)))


def test_information_of_votes_with_ties_is_the_variance_of_the_score():
    mu = np.linspace(-3, 3, 7)
    for tie in (-1.0, 0.5):
        odds = np.exp(np.stack([mu / 2, np.full(7, tie), -mu / 2]))
        probability = odds / odds.sum(0)
        score = np.array([0.5, 0.0, -0.5])[:, None]
        mean = (probability * score).sum(0)
        np.testing.assert_allclose(tie_information(mu, tie), (probability * (score - mean) ** 2).sum(0))
    np.testing.assert_allclose(tie_information(mu, -50.0), expit(mu) * (1 - expit(mu)), atol=1e-12)


def test_tuning_leaves_whole_prompts_out():
    """Each prompt has a label of its own and a feature that names it: seen in training, it would be known by heart."""
    rng = np.random.default_rng(4)
    prompts = np.repeat(np.arange(12), 6)
    z = np.eye(12)[prompts] * 3
    share = rng.integers(0, 2, 12).astype(float)[prompts]
    found = tune(z, share, np.ones(72), prompts)
    np.testing.assert_allclose(found.out_of_fold, 0.5)


def test_tuning_shrinks_noise_and_frees_signal():
    rng = np.random.default_rng(5)
    noise, signal = [], []
    for _ in range(10):
        z = rng.standard_normal((80, 10))
        noise.append(tune(z, rng.integers(0, 2, 80).astype(float), np.ones(80), np.arange(80)).regularisation)
        share = (rng.random(80) < expit(z @ np.full(10, 1.5))).astype(float)
        signal.append(tune(z, share, np.ones(80), np.arange(80)).regularisation)
    assert np.median(noise) > 30 * np.median(signal)
    assert min(signal) >= min(GRID) * 5
