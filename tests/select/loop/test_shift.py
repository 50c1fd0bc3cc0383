"""Shift monitors: no alarm without shift, an alarm with one, and the random share kept apart from the selected."""

from dataclasses import replace

import numpy as np
from pools import pool_of, state_of

from rlhf.select.loop.learners import TrainedRound, with_features
from rlhf.select.loop.shift import embedding_shift, shift


def trained(rng, rows=None):
    pool = pool_of(rng, prompts=200)
    state = state_of(pool, rng, labels=120)
    if rows is not None:
        state = replace(state, rows=rows(pool)[:120])
    return TrainedRound(pool, state, pool.features @ state.posterior.theta, 0.6)


def test_the_two_sample_test_keeps_its_level_and_has_power():
    rng = np.random.default_rng(0)
    alarms = [
        embedding_shift(rng.standard_normal((120, 10)), rng.standard_normal((300, 10)), rng)["classifier/p"] < 0.05
        for _ in range(200)
    ]
    assert np.mean(alarms) < 0.11  # 5% and four standard errors
    moved = embedding_shift(rng.standard_normal((120, 10)) + 0.5, rng.standard_normal((300, 10)), rng)
    assert moved["classifier/auc"] > 0.8
    assert moved["classifier/p"] < 1e-6
    constant = (np.c_[rng.standard_normal((120, 3)), np.ones(120)], np.c_[rng.standard_normal((300, 3)), np.zeros(300)])
    assert embedding_shift(*constant, rng)["embedding/drift"] < 20  # a column without spread is not a huge drift


def test_random_labels_show_no_shift_and_extreme_ones_do():
    rng = np.random.default_rng(1)
    calm = shift(trained(rng), np.ones(120, bool), rng)
    assert abs(calm["length/drift"]) < 0.35
    assert calm["classifier/p"] > 1e-3
    assert 0.85 < calm["coverage"] <= 1

    def longest(pool):
        size = np.where(pool.selectable, (pool.z(np.arange(len(pool))) ** 2).sum(1), -1)
        return np.argsort(-size)

    wild = shift(trained(rng, longest), np.zeros(120, bool), rng)
    assert wild["classifier/p"] < 1e-6
    assert wild["embedding/drift"] > calm["embedding/drift"] + 0.3
    assert wild["margin/drift"] > 0.5


def test_the_monitor_keeps_random_and_selected_apart():
    rng = np.random.default_rng(2)
    model = trained(rng)
    random = np.arange(120) < 40
    share = np.ones(120)
    state = replace(model.state, share=share, out_of_fold=np.where(random, 0.9, 0.2))
    found = shift(replace(model, state=state), random, rng)
    assert found["monitor/random_accuracy"] == 1
    assert found["monitor/selected_accuracy"] == 0
    assert found["monitor/random_pairs"] == 40
    assert found["monitor/random_nll"] < found["monitor/selected_nll"]


def test_the_policys_answers_are_compared_within_a_prompt_and_in_the_trained_models_features():
    rng = np.random.default_rng(4)
    model = trained(rng)
    offset = 100 * rng.standard_normal((20, model.pool.width)).repeat(2, axis=0)  # what is common to a prompt
    target = 0.05 * rng.standard_normal((40, model.pool.width)) + offset
    order = rng.permutation(40)
    near = replace(model.pool, target=target[order], target_prompt=(np.arange(40) // 2)[order])

    def coverage(pool):
        found = shift(replace(model, pool=pool), np.ones(120, bool), np.random.default_rng(0))
        return found.get("coverage/policy")

    assert coverage(near) == 1
    assert coverage(replace(near, target_prompt=None)) < 0.5
    assert coverage(replace(near, target_prompt=np.arange(40))) is None, "one answer a prompt"
    other = with_features(near, near.features, target=20 * rng.standard_normal((40, model.pool.width)))
    assert coverage(other) < 0.1
    assert coverage(with_features(near, near.features)) is None, "target and posterior are not of one space"


def test_few_labels_give_counts_only():
    rng = np.random.default_rng(3)
    pool = pool_of(rng)
    state = state_of(pool, rng, labels=4)
    found = shift(TrainedRound(pool, state, pool.features[:, 0], 0.6), np.ones(4, bool), rng)
    assert set(found) == {"labelled_pairs", "unlabelled_pairs"}
