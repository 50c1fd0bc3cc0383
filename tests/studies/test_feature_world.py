"""Gold, votes and members of the world that studies measure in."""

import numpy as np
import pytest
import torch

from rlhf.reward.losses import pairwise, soft_label
from rlhf.studies.feature_world import WIDTH, FeatureWorld, pair_target, train


def test_gold_pays_for_the_cue_up_to_one_and_charges_beyond():
    world = FeatureWorld(np.eye(WIDTH)[1])
    at = np.zeros((4, WIDTH))
    at[:, 0] = [0, 1, 2, -1]
    assert world.gold(at).tolist() == [0, 1.5, -3, -1.5]
    assert world.gold(np.eye(WIDTH)[1]) == 1


@pytest.mark.parametrize("spread", [0.7, 2.0])
def test_votes_are_right_but_for_the_flipped_ones(spread):
    world, rng = FeatureWorld.draw(0), np.random.default_rng(0)
    for noise in (0.0, 0.25):
        x, win = world.votes(4000, noise, rng, spread=spread)
        assert x.std() == pytest.approx(spread, rel=0.02)
        lead = world.gold(x[:, 0]) - world.gold(x[:, 1])
        wrong = ((lead > 0) != (win == 1)).mean()
        assert abs(wrong - noise) <= 4.5 * np.sqrt(noise * (1 - noise) / 4000)
    x, win = world.votes(4000, 0.0, rng, spread=spread, sharpness=2.0)
    p = 1 / (1 + np.exp(-2 * (world.gold(x[:, 0]) - world.gold(x[:, 1]))))
    assert abs((win - p).sum()) < 4.5 * np.sqrt((p * (1 - p)).sum())


def test_the_votes_reach_the_projects_losses():
    labels, reward = pair_target([1.0, 0.0], [1.0, 1.0]), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    expected = torch.nn.functional.softplus(torch.tensor([-2.0, 2.0]))
    torch.testing.assert_close(soft_label(reward, labels), expected)
    torch.testing.assert_close(pairwise(reward, labels), expected)


def test_members_differ_and_the_single_model_sees_every_vote():
    x, win = FeatureWorld.draw(1).votes(200, 0.0, np.random.default_rng(1), spread=0.7)
    model = train(x, win, members=2, steps=100, seed=0)
    rewards = model.rewards(x)
    assert rewards.shape == (3, 400)
    right = [((r[::2] > r[1::2]) == (win == 1)).mean() for r in rewards]
    assert min(right) > 0.8
    assert right[0] == max(right)
    assert np.corrcoef(rewards).min() < 0.999
