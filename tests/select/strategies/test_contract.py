"""Promises that every selector of conf/selector keeps; a new file there inherits these tests."""

from dataclasses import replace

import hydra
import numpy as np
import pytest
from pools import pool_of, state_of

from rlhf.assemble.schema.options import option, option_names
from rlhf.select import LabelState, PairPool, query

NAMES = option_names("selector")


@pytest.fixture(params=NAMES)
def selector(request):
    return hydra.utils.instantiate(option("selector", request.param), _convert_="all")


@pytest.fixture(params=["first round", "later round", "ensemble, no policy"])
def pool_and_state(request):
    rng = np.random.default_rng(5)
    pool = pool_of(rng)
    if request.param == "first round":
        return pool, LabelState.empty(pool.width)
    state = state_of(pool, rng)
    if request.param == "later round":
        return pool, state
    return replace(pool, members=rng.standard_normal((4, len(pool.features))), target=None), state


def choose(selector, pool, state, budget=12, seed=3):
    return query(pool, state, budget, np.random.default_rng(seed), selector=selector)


def test_selectors_are_found():
    assert len(NAMES) >= 20
    assert {"random", "mixed", "safe", "logdet", "badge"} <= set(NAMES)


@pytest.mark.parametrize("budget", [0, 1, 7, "all"])
def test_the_budget_is_met_exactly_by_distinct_unlabelled_pairs_of_training_prompts(selector, pool_and_state, budget):
    pool, state = pool_and_state
    free = set(np.flatnonzero(pool.selectable)) - set(state.rows)
    size = len(free) if budget == "all" else budget
    found = choose(selector, pool, state, size)
    assert len(found) == len(found.utilities) == len(found.reasons) == len(found.random) == size
    assert len(set(found.indices)) == size
    assert set(found.indices) <= free
    assert all(isinstance(reason, str) and len(reason) > 10 for reason in found.reasons)


def test_more_than_there_is_gets_a_clear_error(selector, pool_and_state):
    pool, state = pool_and_state
    with pytest.raises(ValueError, match="left without labels"):
        choose(selector, pool, state, len(pool) + 1)


def test_an_equal_generator_gives_an_equal_choice(selector, pool_and_state):
    first, second = (choose(selector, *pool_and_state) for _ in range(2))
    np.testing.assert_array_equal(first.indices, second.indices)
    assert first.reasons == second.reasons


def test_the_order_of_the_rows_does_not_matter(selector, pool_and_state):
    pool, state = pool_and_state
    order = np.random.default_rng(8).permutation(len(pool))
    place = np.argsort(order)
    columns = ("left", "right", "ids", "prompt", "domain", "cost", "selectable")
    shuffled = replace(pool, **{name: getattr(pool, name)[order] for name in columns})
    found = choose(selector, shuffled, replace(state, rows=place[state.rows]))
    np.testing.assert_array_equal(shuffled.ids[found.indices], pool.ids[choose(selector, pool, state).indices])


def test_swapping_the_sides_does_not_matter(selector, pool_and_state):
    pool, state = pool_and_state
    flip = np.random.default_rng(9).random(len(pool)) < 0.5
    swapped = replace(pool, left=np.where(flip, pool.right, pool.left), right=np.where(flip, pool.left, pool.right))
    turned = flip[state.rows]
    other = replace(
        state,
        share=np.where(turned, 1 - state.share, state.share),
        out_of_fold=np.where(turned, 1 - state.out_of_fold, state.out_of_fold),
    )
    np.testing.assert_array_equal(choose(selector, swapped, other).indices, choose(selector, pool, state).indices)


def test_a_reward_shifted_per_prompt_changes_nothing(selector):
    """Features shifted by one vector per prompt leave all differences, and so all choices, as they are."""
    rng = np.random.default_rng(6)
    pool = replace(pool_of(rng), target=None, prompt_features=rng.standard_normal((30, 3)))
    state = state_of(pool, rng)
    shift = np.repeat(np.round(rng.standard_normal((30, pool.width)) * 4) / 4, 4, axis=0)
    moved = replace(pool, features=pool.features + shift)
    before, after = (choose(selector, p, state) for p in (pool, moved))
    assert len(set(before.indices) & set(after.indices)) >= 11  # the last digits of the differences move


def test_differences_alone_are_enough(selector):
    rng = np.random.default_rng(7)
    z = rng.standard_normal((60, 5))
    pool = PairPool(z, np.arange(60), None, np.arange(60), np.arange(60) // 3)
    assert len(choose(selector, pool, LabelState.empty(5))) == 12
