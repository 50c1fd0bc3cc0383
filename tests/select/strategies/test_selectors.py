"""What each family of selectors promises beyond the contract: closed forms, brute force, statistics."""

from dataclasses import replace

import numpy as np
import pytest
from pools import pool_of, state_of
from scipy.special import expit

from rlhf.records import RecordError
from rlhf.select import LabelState, PairPool, at_random, query
from rlhf.select.loop.learners import with_features
from rlhf.select.pool import Candidates
from rlhf.select.strategies.diversity import facility_location, k_centre, prompt_coverage, quotas
from rlhf.select.strategies.duels import delta_ucb, double_thompson, max_min_lcb
from rlhf.select.strategies.error_focused import domain_quotas, error_focused, error_rates, second_votes
from rlhf.select.strategies.log_det import greedy, log_det
from rlhf.select.strategies.mixed import MixPart, cold_start, log_density_ratio, mix, policy_aware, safe, without_copies
from rlhf.select.strategies.uncertainty import (
    bald,
    disagreement,
    entropy,
    fisher,
    laplace_power,
    margin,
    mutual_information,
)


@pytest.fixture
def pool_and_state():
    rng = np.random.default_rng(11)
    pool = pool_of(rng)
    return pool, state_of(pool, rng)


def candidates(pool, state):
    free = np.setdiff1d(np.flatnonzero(pool.selectable), state.rows)
    return Candidates(pool, state, free[np.argsort(pool.ids[free])])


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("sizes", [(2048, 256, 65536), (5, 3, 10), (1, 1, 1)])
def test_lazy_log_det_chooses_what_full_greedy_chooses(pool_and_state, monkeypatch, sizes):
    for name, size in zip(("AT_ONCE", "IN_HAND", "NEAR"), sizes, strict=True):
        monkeypatch.setattr(f"rlhf.select.strategies.log_det.{name}", size)
    pool, state = pool_and_state
    of = candidates(pool, state)
    price = pool.cost[of.rows]
    places, gains = greedy(of, of.weight, price, 20)
    z, inverse, expected = pool.z(of.rows), state.posterior.covariance(), []
    for step in range(20):
        gain = np.log1p(of.weight * np.einsum("nd,de,ne->n", z, inverse, z)) / price
        gain[expected] = -1
        expected.append(int(np.argmax(gain)))
        assert gains[step] == pytest.approx(gain.max(), rel=1e-9)
        scaled = np.sqrt(of.weight[expected[-1]]) * z[expected[-1]]
        inverse = np.linalg.inv(np.linalg.inv(inverse) + np.outer(scaled, scaled))
    assert places.tolist() == expected


def test_log_det_gains_add_up_to_the_determinant_and_beat_chance(pool_and_state):
    pool, state = pool_and_state

    def information(rows):
        z = pool.z(rows)
        w = expit(z @ state.posterior.theta)
        precision = state.posterior.factor @ state.posterior.factor.T
        more = precision + (z.T * (w * (1 - w))) @ z
        return np.linalg.slogdet(more)[1] - np.linalg.slogdet(precision)[1]

    found = query(pool, state, 15, rng(), selector=log_det)
    assert found.utilities.sum() == pytest.approx(information(found.indices), rel=1e-8)
    lucky = [information(query(pool, state, 15, rng(s), selector=at_random).indices) for s in range(50)]
    assert information(found.indices) > max(lucky)


def test_near_copies_are_not_chosen_twice_by_log_det():
    z = np.vstack([np.tile([3.0, 0, 0], (10, 1)), [[0, 2.0, 0]], [[0, 0, 1.9]]])
    pool = PairPool(z, np.arange(12), None, np.arange(12), np.arange(12))
    found = query(pool, LabelState.empty(3, regularisation=1.0), 3, rng(), selector=log_det)
    assert {10, 11} <= set(found.indices)
    top = query(pool, LabelState.empty(3), 3, rng(), selector=fisher)
    assert not {10, 11} & set(top.indices)
    distinct = query(pool, LabelState.empty(3), 3, rng(), selector=lambda *a: without_copies(*a, selector=fisher))
    assert {10, 11} <= set(distinct.indices)


def test_mutual_information_against_sampling_and_small_variance():
    mean, variance = np.array([0.0, 1.0, -2.0]), np.array([1.0, 0.5, 3.0])
    draws = expit(mean + np.sqrt(variance) * rng().standard_normal((400_000, 3)))

    def h(p):
        return -p * np.log(p) - (1 - p) * np.log(1 - p)

    np.testing.assert_allclose(mutual_information(mean, variance), h(draws.mean(0)) - h(draws).mean(0), atol=2e-3)
    w = expit(mean) * (1 - expit(mean))
    np.testing.assert_allclose(mutual_information(mean, np.full(3, 1e-4)), w * 1e-4 / 2, rtol=1e-2)


def test_margin_and_entropy_order_alike_and_costs_turn_them(pool_and_state):
    pool, state = pool_and_state
    same = [query(pool, state, 10, rng(), selector=s).indices for s in (margin, entropy)]
    np.testing.assert_array_equal(*same)
    dear = query(pool, state, 10, rng(), selector=lambda *a: entropy(*a, cost_power=5.0))
    assert pool.cost[dear.indices].mean() < pool.cost[same[0]].mean()


def test_disagreement_does_not_see_a_member_shifted_as_a_whole(pool_and_state):
    pool, state = pool_and_state
    members = rng().standard_normal((4, len(pool.features)))
    shifted = members + np.array([0.0, 5.0, -3.0, 100.0])[:, None]
    for selector in (disagreement, bald):
        chosen = [
            query(replace(pool, members=m), state, 10, rng(), selector=selector).indices for m in (members, shifted)
        ]
        np.testing.assert_array_equal(*chosen)


def test_laplace_power_draws_in_proportion():
    z = np.sqrt(np.array([[1.0], [2.0], [4.0]]))
    pool = PairPool(z, np.arange(3), None, np.arange(3), np.arange(3))
    first = [query(pool, LabelState.empty(1), 1, rng(s), selector=laplace_power).indices[0] for s in range(3000)]
    share = np.bincount(first, minlength=3) / 3000
    np.testing.assert_allclose(share, np.array([1, 2, 4]) / 7, atol=0.045)  # 5 standard errors


def test_k_centre_takes_the_farthest_and_its_radii_fall(pool_and_state):
    pool, state = pool_and_state
    found = query(pool, state, 10, rng(), selector=k_centre)
    assert (np.diff(found.utilities) <= 1e-5).all()
    z, known = pool.z(candidates(pool, state).rows), pool.z(state.rows)
    distance = np.minimum(
        np.linalg.norm(z[:, None] - known, axis=2).min(1), np.linalg.norm(z[:, None] + known, axis=2).min(1)
    )
    assert found.utilities[0] == pytest.approx(distance.max(), rel=1e-4)


def test_lazy_facility_location_is_greedy(pool_and_state):
    pool, state = pool_and_state
    of = candidates(pool, state)
    found = facility_location(of, 8, rng(), reference=10**6)
    z = pool.z(of.rows)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    known = pool.z(state.rows)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    similar, covered = np.abs(z @ z.T), np.abs(z @ known.T).max(1)
    for row, gain in zip(found.indices, found.utilities, strict=True):
        gains = np.maximum(similar - covered[:, None], 0).mean(0)
        assert gain == pytest.approx(gains.max(), rel=1e-3)
        covered = np.maximum(covered, similar[:, int(np.flatnonzero(of.rows == row)[0])])


def test_quotas_add_up_follow_shares_and_respect_sizes():
    given = quotas(np.array([1.0, 1.0, 2.0]), np.array([100, 3, 100]), 40)
    assert given.sum() == 40
    assert given[1] == 3
    assert given[2] == pytest.approx(2 * given[0], abs=2)
    assert quotas(np.array([1.0, 1.0]), np.array([9, 9]), 4, np.array([4, 0])).tolist() == [0, 4]


def test_prompt_coverage_reaches_rare_kinds_of_prompts():
    """95 prompts of one kind and 5 of another: random draws hardly meet the rare kind, quotas do."""
    kinds = np.repeat([0.0, 50.0], [95, 5])
    generator = rng()
    pool = pool_of(generator, prompts=100, prompt_features=np.column_stack([kinds, generator.standard_normal(100)]),
                   selectable=None)  # fmt: skip
    found = query(pool, LabelState.empty(6), 20, rng(), selector=lambda *a: prompt_coverage(*a, clusters=2))
    assert (pool.prompt[found.indices] >= 95).sum() >= 3
    lucky = [(pool.prompt[query(pool, LabelState.empty(6), 20, rng(s), selector=at_random).indices] >= 95).sum()
             for s in range(30)]  # fmt: skip
    assert np.mean(lucky) < 1.6


def test_errors_pull_labels_and_shrinkage_holds_them_back(pool_and_state):
    pool, state = pool_and_state
    wrong = pool.domain[state.rows] == 1
    state = replace(state, out_of_fold=np.where(wrong == (state.share > 0.5), 0.1, 0.9))
    assert error_rates(pool, state, 1.0)[1] > 0.8
    loose, tight = (
        query(pool, state, 20, rng(), selector=lambda *a, k=k: error_focused(*a, prior_pairs=k, most=1.0)).indices
        for k in (1.0, 1e6)
    )
    assert (pool.domain[loose] == 1).sum() > 14
    assert (pool.domain[tight] == 1).sum() == pytest.approx(20 / 3, abs=2)


def test_domain_quotas(pool_and_state):
    pool, state = pool_and_state
    found = query(pool, state, 12, rng(), selector=lambda *a: domain_quotas(*a, shares={0: 3.0, 2: 1.0}))
    assert np.bincount(pool.domain[found.indices], minlength=3).tolist() == [9, 0, 3]


def test_quotas_go_by_the_names_of_domains(pool_and_state):
    pool, state = pool_and_state
    named = replace(pool, domains=("advice", "code", "facts"))
    found = query(named, state, 12, rng(), selector=lambda *a: domain_quotas(*a, shares={"facts": 3, "code": 1}))
    assert np.bincount(pool.domain[found.indices], minlength=3).tolist() == [0, 3, 9]
    assert {r.split(":")[0] for r in found.reasons} == {"quota of domain code", "quota of domain facts"}
    errors = query(named, state, 12, rng(), selector=error_focused)
    assert all(r.split()[2] in named.domains for r in errors.reasons)
    alone = replace(named, domain=np.full(len(pool), -1))
    assert len(query(alone, state, 4, rng(), selector=lambda *a: domain_quotas(*a, shares={"no domain": 1}))) == 4


@pytest.mark.parametrize(
    ("shares", "said"),
    [({"fact": 1.0}, "no domain of the pool: fact"), ({"facts": -1.0}, "0 or more: facts=-1.0"),
     ({"facts": 0.0}, "at least one"), ({}, "at least one"), ({"facts": np.nan}, "0 or more: facts=nan")],
)  # fmt: skip
def test_quotas_that_cannot_be_meant_name_the_domains(pool_and_state, shares, said):
    named = replace(pool_and_state[0], domains=("advice", "code", "facts"))
    with pytest.raises(RecordError, match=rf"^key 'selector\.shares': .*{said}.*the domains are advice, code, facts"):
        query(named, pool_and_state[1], 3, rng(), selector=lambda *a: domain_quotas(*a, shares=shares))


def test_second_votes_go_where_the_answer_is_open(pool_and_state):
    pool, state = pool_and_state
    m = len(state.rows)
    state = replace(state, votes=np.where(np.arange(m) < 5, 5.0, 1.0), share=np.ones(m), out_of_fold=np.full(m, 0.9))
    open_one = state.rows[10]
    state.out_of_fold[10] = 0.1  # the head contradicts the only vote
    found = second_votes(pool, state, 3, rng())
    assert found.indices[0] == open_one
    assert not set(found.indices) & set(state.rows[:5])
    assert len(second_votes(pool, state, 10**6, rng())) == m - 5


@pytest.mark.parametrize("duel", [double_thompson, max_min_lcb, delta_ucb])
def test_duels_take_one_pair_per_prompt_before_a_second(duel, pool_and_state):
    pool, state = pool_and_state
    prompts = len(np.unique(pool.prompt[candidates(pool, state).rows]))
    found = query(pool, state, prompts, rng(), selector=duel)
    assert len(np.unique(pool.prompt[found.indices])) == prompts


def test_duels_name_the_best_answers_where_the_head_is_sure():
    rewards = np.array([[3.0], [1.0], [0.0], [2.0]])
    left, right = np.triu_indices(4, 1)
    pool = PairPool(rewards, left, right, np.arange(6), np.zeros(6, int))
    sure = replace(
        LabelState.empty(1), posterior=replace(LabelState.empty(1, regularisation=1e12).posterior, theta=np.ones(1))
    )

    def pair(duel):
        row = query(pool, sure, 1, rng(), selector=duel).indices[0]
        return {int(left[row]), int(right[row])}

    assert pair(double_thompson) == {0, 3}
    assert pair(max_min_lcb) == {0, 3}
    assert pair(delta_ucb) == {0, 2}


def test_mixes_keep_their_shares_and_their_random_part_unbiased(pool_and_state):
    pool, state = pool_and_state
    parts = [MixPart("sure", 3, fisher), MixPart("any", 1, at_random)]
    hits = np.zeros(len(pool))
    for seed in range(400):
        found = query(pool, state, 12, rng(seed), selector=lambda *a: mix(*a, parts=parts))
        assert found.random.sum() == 3
        assert [r.split(":")[0] for r in found.reasons].count("sure") == 9
        hits[found.indices[found.random]] += 1
    free = candidates(pool, state).rows
    expected = 1200 / len(free)
    assert ((hits[free] - expected) ** 2 / expected).sum() < len(free) + 5 * np.sqrt(2 * len(free))  # chi², 5 sigma
    assert query(pool, state, 10, rng(), selector=safe).random.sum() == 2
    with pytest.raises(ValueError, match="shares"):
        mix(candidates(pool, state), 3, rng(), parts=[MixPart("none", 0.0, fisher)])


def test_a_cold_start_crosses_over_inside_a_batch(pool_and_state):
    pool, state = pool_and_state
    known = len(state.rows)
    found = query(pool, state, 10, rng(), selector=lambda *a: cold_start(*a, then=fisher, labels=known + 4))
    assert [r.startswith("cold start") for r in found.reasons] == [True] * 4 + [False] * 6


def test_the_density_ratio_finds_the_policys_answers():
    generator = rng(1)
    features = generator.standard_normal((400, 2))
    features[200:, 0] += 3
    pool = PairPool(features, np.arange(0, 400, 2), np.arange(1, 400, 2), np.arange(200), np.arange(200),
                    target=generator.standard_normal((300, 2)) + np.array([3, 0]))  # fmt: skip
    of = Candidates(pool, LabelState.empty(2), np.arange(200))
    ratio = log_density_ratio(of, 10_000, rng())
    assert np.mean(ratio[100:, None] > ratio[:100]) > 0.97
    trained = with_features(pool, generator.standard_normal((400, 5)))
    again = log_density_ratio(Candidates(trained, LabelState.empty(5), np.arange(200)), 10_000, rng())
    np.testing.assert_allclose(again, ratio, err_msg="a trained model's features do not hide the policy")
    found = query(pool, LabelState.empty(2), 40, rng(), selector=lambda *a: policy_aware(*a, power=2.0))
    assert (found.indices >= 100).mean() > 0.9
