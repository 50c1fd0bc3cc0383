import itertools
import math

import choix
import numpy as np
import pytest
import torch
from loss_targets import exact, from_ranks, random_target

from rlhf.reward.losses import pairwise, pick_best, plackett_luce, soft_label

REWARD = [0.7, -1.1, 2.3, 0.2, -0.4]


def log_likelihood(reward, order, stages):
    """Plain Plackett-Luce of one order, by its definition as a product of choices."""
    total = 0.0
    for stage in range(min(stages, len(order))):
        total += math.log(math.exp(reward[order[stage]]) / sum(math.exp(reward[j]) for j in order[stage:]))
    return total


def mean_over_orders(reward, rank, stages=99):
    """Mean log-likelihood of all orders that agree with the ranks, found by trying every one."""
    ranked = [i for i in range(len(rank)) if rank[i] >= 0]
    orders = [
        order
        for order in itertools.permutations(ranked)
        if all(rank[a] <= rank[b] for a, b in itertools.pairwise(order))
    ]
    return sum(log_likelihood(reward, order, stages) for order in orders) / len(orders)


@pytest.mark.parametrize(
    "rank",
    [
        [0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [0, 0, 1, 1, 1], [1, 0, 0, 0, 2], [0, 0, 0, 0, 0],
        [-1, 0, 1, -1, 2], [-1, 1, 0, 0, -1], [0, 0, -1, 0, 0], [3, 3, 0, 7, 7],
    ],
)  # fmt: skip
@pytest.mark.parametrize("top", [None, 1, 2, 3, 9])
def test_plackett_luce_is_the_mean_over_every_order_that_agrees(rank, top):
    ours = plackett_luce(exact([REWARD]), from_ranks([rank]), top=top)
    assert ours.item() == pytest.approx(-mean_over_orders(REWARD, rank, top or 99), abs=1e-12)


def test_groups_with_and_without_ties_share_a_batch():
    ranks = [[0, 1, 2, 3, 4], [0, 0, 1, 1, 1], [-1, -1, -1, -1, -1], [2, -1, 0, 1, 1]]
    ours = plackett_luce(exact([REWARD] * 4), from_ranks(ranks))
    expected = [-mean_over_orders(REWARD, r) if max(r) >= 0 else 0.0 for r in ranks]
    assert np.allclose(ours, expected, atol=1e-12)


def test_likelihoods_of_all_orders_sum_to_one():
    orders = list(itertools.permutations(range(4)))
    reward = exact([REWARD[:4]] * len(orders))
    assert plackett_luce(reward, from_ranks(orders)).neg().exp().sum().item() == pytest.approx(1)


def test_a_ranking_of_two_is_bradley_terry_ties_included():
    target = from_ranks([[0, 1], [1, 0], [0, 0]])
    reward = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(plackett_luce(reward, target), soft_label(reward, target), atol=1e-14)
    assert torch.allclose(plackett_luce(reward[:2], from_ranks([[0, 1], [1, 0]])), pairwise(reward, target)[:2])


def test_the_first_place_of_plackett_luce_is_the_choice_of_the_best():
    target = random_target()
    reward = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(plackett_luce(reward, target, top=1), pick_best(reward, target), atol=1e-14)


def test_pick_best_is_the_cross_entropy_of_a_classifier():
    reward = exact([REWARD])
    expected = torch.nn.functional.cross_entropy(reward, torch.tensor([2]))
    assert torch.allclose(pick_best(reward, from_ranks([[1, 1, 0, 1, 2]])).squeeze(), expected)


def test_an_unordered_tail_is_a_top_m_ranking_and_a_tied_tail_is_not():
    reward = exact([REWARD])
    target = from_ranks([[0, 1, 2, 2, 2]])
    unordered = plackett_luce(reward, target, unordered_tail=True)
    assert torch.allclose(unordered, plackett_luce(reward, target, top=2))
    assert plackett_luce(reward, target) > unordered
    some_order = [plackett_luce(reward, from_ranks([[0, 1, *p]])) for p in itertools.permutations([2, 3, 4])]
    marginal = torch.stack(some_order).neg().exp().sum()  # the unordered tail: any of its orders
    assert unordered.neg().exp().item() == pytest.approx(marginal.item())


def test_an_unordered_tail_needs_no_enumeration_at_any_size():
    rank = [[0, 1] + [2] * 20]
    reward = torch.randn(1, 22).double()
    ours = plackett_luce(reward, from_ranks(rank), unordered_tail=True)
    rest = reward[0, 1:].logsumexp(0) - reward[0, 1]
    assert torch.allclose(ours, reward[0].logsumexp(0) - reward[0, 0] + rest)


def test_the_order_inside_a_tie_is_no_information():
    reward = exact([REWARD])
    swapped = reward[:, [1, 0, 2, 3, 4]]
    target = from_ranks([[0, 0, 1, 2, 3]])
    assert torch.allclose(plackett_luce(reward, target), plackett_luce(swapped, target))


def test_a_ranking_that_ties_everything_pulls_nothing_apart():
    reward = torch.full((1, 5), 0.3).double().requires_grad_()
    (gradient,) = torch.autograd.grad(plackett_luce(reward, from_ranks([[0] * 5])).sum(), reward)
    assert gradient.abs().max() < 1e-15


def test_ties_in_ten_completions_are_exact_and_in_eleven_refused():
    rank = [[0, 0, 0, *range(1, 8)]]
    reward = torch.randn(1, 10, generator=torch.Generator().manual_seed(0)).double()
    expected = -mean_over_orders([*reward[0, :3].tolist(), reward[0, 3:].logsumexp(0).item()], [0, 0, 0, 1])
    rest = plackett_luce(reward[:, 3:], from_ranks([list(range(7))]))
    assert plackett_luce(reward, from_ranks(rank)).item() == pytest.approx(expected + rest.item(), abs=1e-12)
    with pytest.raises(ValueError, match="loss=ranking"):
        plackett_luce(torch.zeros(1, 11), from_ranks([[0, 0, *range(1, 10)]]))
    assert plackett_luce(torch.zeros(1, 11).double(), from_ranks([[*range(11)]])).item() == pytest.approx(
        math.log(math.factorial(11))
    )


def test_a_top_of_no_places_is_refused():
    with pytest.raises(ValueError, match=r"loss\.top"):
        plackett_luce(torch.zeros(1, 2), from_ranks([[0, 1]]), top=0)


def fit(rankings, items, alpha):
    """Maximum of the penalised likelihood by Newton's method, in terms of our loss."""
    longest = max(map(len, rankings))
    place = torch.tensor([[*r, *[0] * (longest - len(r))] for r in rankings])
    target = from_ranks([[*range(len(r)), *[-1] * (longest - len(r))] for r in rankings])

    def objective(strength):
        return plackett_luce(strength[place], target).sum() + alpha * strength.square().sum()

    strength = torch.zeros(items).double()
    for _ in range(20):
        slope = torch.autograd.functional.jacobian(objective, strength)
        strength = strength - torch.linalg.solve(torch.autograd.functional.hessian(objective, strength), slope)
    return strength.numpy()


def test_the_maximum_likelihood_estimate_is_that_of_choix():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=6)
    rankings = []
    for _ in range(60):
        some = rng.permutation(6)[: rng.integers(2, 6)]
        rankings.append(some[np.argsort(-(truth[some] + rng.gumbel(size=len(some))))].tolist())
    theirs = choix.opt_rankings(6, rankings, alpha=0.01, tol=1e-12)
    assert np.abs(fit(rankings, 6, 0.01) - theirs).max() < 1e-6
    assert np.corrcoef(theirs, truth)[0, 1] > 0.8  # the case is an informative one
