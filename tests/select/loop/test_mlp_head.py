"""The network head: many networks at once are what each would be alone, and weight decay is tuned without peeking."""

import numpy as np
import pytest
import torch
from pools import pool_of
from torch.nn.functional import binary_cross_entropy_with_logits

from rlhf.select.loop.learners import Labels
from rlhf.select.loop.mlp_head import MlpLearner


def alone(pool, labels, part, decay, seed, head):
    """One network by the textbook: its rewards of all completions."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(pool.width, head.hidden), torch.nn.Tanh(), torch.nn.Linear(head.hidden, 1, bias=False)
    )
    features = torch.tensor(pool.features, dtype=torch.float32)
    left, right = (torch.tensor(side[labels.rows][part]) for side in (pool.left, pool.right))
    share, votes = (torch.tensor(v[part], dtype=torch.float32) for v in (labels.share, labels.votes))
    optimizer = torch.optim.Adam(network.parameters(), lr=head.lr)
    for _ in range(head.steps):
        optimizer.zero_grad()
        rewards = network(features)[:, 0]
        data = binary_cross_entropy_with_logits(rewards[left] - rewards[right], share, weight=votes, reduction="sum")
        shrink = sum((p**2).sum() for p in network.parameters())
        ((data + decay / 2 * shrink) / len(share)).backward()
        optimizer.step()
    return network(features)[:, 0].detach().numpy()


@pytest.fixture(scope="module")
def labelled():
    rng = np.random.default_rng(5)
    pool = pool_of(rng)
    rows = rng.permutation(np.flatnonzero(pool.selectable))[:60]
    z = pool.z(rows) @ rng.standard_normal(pool.width)
    votes = rng.integers(1, 4, len(rows)).astype(float)
    return pool, Labels(rows, rng.binomial(votes.astype(int), 1 / (1 + np.exp(-z))) / votes, votes)


def test_members_are_what_each_would_be_alone(labelled):
    pool, labels = labelled
    head = MlpLearner(hidden=5, members=2, steps=40, decays=(0.7,))
    trained = head(pool, labels, seed=3)
    every = np.arange(len(labels.rows))
    for member, seed in enumerate((4, 5)):
        expected = alone(pool, labels, every, 0.7, seed, head)
        np.testing.assert_allclose(trained.pool.members[member], expected, atol=2e-3)
    np.testing.assert_allclose(trained.rewards, trained.pool.members.mean(0), atol=1e-6)
    assert trained.pool.features.shape == (len(pool.features), 10)


def test_predictions_out_of_fold_do_not_see_the_prompt(labelled):
    pool, labels = labelled
    head = MlpLearner(hidden=5, members=1, steps=40, decays=(0.7,))
    before = head(pool, labels, seed=3).state.out_of_fold
    one = pool.prompt[labels.rows] == pool.prompt[labels.rows[0]]
    turned = Labels(labels.rows, np.where(one, 1 - labels.share, labels.share), labels.votes)
    after = head(pool, turned, seed=3).state.out_of_fold
    np.testing.assert_allclose(after[one], before[one], atol=1e-6)
    assert np.abs(after - before).max() > 1e-3


def test_the_decay_with_the_lowest_loss_out_of_fold_is_taken(labelled):
    pool, labels = labelled
    found = {decay: MlpLearner(hidden=5, steps=40, decays=(decay,))(pool, labels, 0).nll for decay in (0.3, 3.0, 300.0)}
    both = MlpLearner(hidden=5, steps=40, decays=tuple(found))(pool, labels, 0)
    assert both.nll == pytest.approx(min(found.values()), abs=1e-4)
    assert both.state.posterior.regularisation == min(found, key=found.get)
    assert found[300.0] == pytest.approx(np.log(2), abs=0.01)  # silenced
