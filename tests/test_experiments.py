"""The experiments of docs/methods, each in a world or two: what they measure is what they say."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import length_bias
import overoptimisation
import temperature
from feature_world import WIDTH, World, target, train

from rlhf.reward.losses import pairwise, soft_label


def test_gold_pays_for_the_cue_up_to_one_and_charges_beyond():
    world = World(np.eye(WIDTH)[1])
    at = np.zeros((4, WIDTH))
    at[:, 0] = [0, 1, 2, -1]
    assert world.gold(at).tolist() == [0, 1.5, -3, -1.5]
    assert world.gold(np.eye(WIDTH)[1]) == 1


def test_votes_are_right_but_for_the_flipped_ones():
    world, rng = World.draw(0), np.random.default_rng(0)
    for noise in (0.0, 0.25):
        x, win = world.votes(4000, noise, rng)
        lead = world.gold(x[:, 0]) - world.gold(x[:, 1])
        wrong = ((lead > 0) != (win == 1)).mean()
        assert abs(wrong - noise) <= 4.5 * np.sqrt(noise * (1 - noise) / 4000)
    x, win = world.votes(4000, 0.0, rng, sharpness=2.0)
    p = 1 / (1 + np.exp(-2 * (world.gold(x[:, 0]) - world.gold(x[:, 1]))))
    assert abs((win - p).sum()) < 4.5 * np.sqrt((p * (1 - p)).sum())


def test_the_votes_reach_the_projects_losses():
    labels, reward = target(np.array([1.0, 0.0])), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    expected = torch.nn.functional.softplus(torch.tensor([-2.0, 2.0]))
    torch.testing.assert_close(soft_label(reward, labels), expected)
    torch.testing.assert_close(pairwise(reward, labels), expected)


def test_members_differ_and_the_single_model_sees_every_vote():
    x, win = World.draw(1).votes(200, 0.0, np.random.default_rng(1))
    model = train(x, win, members=3, steps=100, seed=0)
    rewards = model.rewards(x.reshape(-1, WIDTH))
    right = [((r[::2] > r[1::2]) == (win == 1)).mean() for r in rewards]
    assert min(right) > 0.8
    assert right[0] == max(right)
    assert np.corrcoef(rewards).min() < 0.999


def test_a_summary_of_best_of_n_starts_at_zero_and_leads_are_paired():
    proxies, gold = overoptimisation.measured(100, 0.25, worlds=3, answers=128, steps=20)
    found = overoptimisation.summary(proxies, gold)
    assert found["n"] == [1, 2, 4, 8, 16, 32, 64, 128]
    for way in ("single", *overoptimisation.ENSEMBLE):
        assert found[way]["gold"][0] == pytest.approx(0, abs=1e-9)
    lead = found["mean"]["gold"][-1] - found["single"]["gold"][-1]
    assert found["mean"]["lead_at_last_n"][0] == pytest.approx(lead, abs=2e-4)


def test_one_world_of_temperature_scaling():
    row = temperature.one(0, votes=200, noise=0.1, steps=200)
    assert row["single/temperature"] > 1.5
    assert row["single/ece/after"] < row["single/ece/before"]
    assert row["single/nll/after"] < row["single/nll/before"]


def test_one_world_of_length_bias():
    row = length_bias.one(0, votes=300, paid=1.5, steps=300)
    shorter = {head: values["gold accuracy, shorter better"] for head, values in row.items()}
    assert shorter["linear"] < 0.5
    assert shorter["length_controlled"] > 0.9
    assert row["length_controlled"]["paid for length, per sd"] == pytest.approx(1.5, abs=0.6)
