import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_targets import exact, from_ranks, random_target

from rlhf.reward import losses

FIRST_WINS = [[0, 1]]
EXTREME = [-1e4, -1e2, 0.0, 1e2, 1e4]


def test_pairwise_matches_a_loop_over_pairs_in_numpy():
    target = random_target()
    reward = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double()
    expected = np.zeros(4)
    for b in range(4):
        for i in range(4):
            for j in range(4):
                if target.observed[b, i, j] and target.win_prob[b, i, j] > 0.5:
                    gap = float(reward[b, i] - reward[b, j] - 0.7 * target.margin[b, i, j])
                    expected[b] += math.log1p(math.exp(-gap))
    assert np.allclose(losses.pairwise(reward, target, margin_scale=0.7), expected, atol=1e-12)


def test_pairwise_with_margin_and_centring_is_the_formula_of_trl():
    g = torch.Generator().manual_seed(0)
    chosen, rejected, margin = torch.randn(3, 16, generator=g).double()
    margin = margin.abs()
    target = from_ranks([[0, 1]] * 16, margin=margin[:, None, None])
    reward = torch.stack([chosen, rejected], dim=1)
    ours = losses.pairwise(reward, target).mean() + 0.01 * losses.centring(reward, target).mean()
    theirs = -F.logsigmoid(chosen - rejected - margin).mean() + 0.01 * torch.mean((chosen + rejected) ** 2)
    assert abs(ours - theirs) < 1e-12
    half = losses.pairwise(reward.float(), target).mean() + 0.01 * losses.centring(reward.float(), target).mean()
    assert abs(half - theirs) < 1e-7


def test_a_margin_asks_the_chosen_side_for_more_whichever_side_it_stands_on():
    for ranks in ([[0, 1]], [[1, 0]]):
        target = from_ranks(ranks, margin=1.5)
        chosen, rejected = (0, 1) if ranks == [[0, 1]] else (1, 0)
        reward = torch.zeros(1, 2).double()
        reward[0, chosen], reward[0, rejected] = 2.0, 0.5
        assert losses.pairwise(reward, target).item() == pytest.approx(math.log(2))
        assert losses.pairwise(reward, target, margin_scale=0.0).item() < 0.3
        assert losses.ranking(reward, target, margin_scale=1.0).item() == pytest.approx(math.log(2))
        assert losses.ranking(reward, target).item() < 0.3


def test_scaled_weighs_a_pair_by_its_margin_and_by_one_where_none_is_stated():
    reward = exact([[1.0, 0.2], [0.3, 1.1], [0.4, 0.1]])
    plain = from_ranks([[0, 1], [1, 0], [0, 1]])
    graded = replace(plain, margin=plain.observed * exact([3.0, 2.0, 0.0])[:, None, None])
    each = losses.pairwise(reward, plain)
    assert torch.allclose(losses.scaled(reward, graded), each * exact([3.0, 2.0, 1.0]), atol=1e-12)
    assert torch.equal(losses.scaled(reward, plain), each)
    tied = from_ranks([[0, 0]], margin=3.0)
    assert losses.scaled(torch.zeros(1, 2).double(), tied).item() == pytest.approx(math.log(2))


def test_a_tie_costs_log_two_at_equal_rewards_and_has_no_margin():
    target = from_ranks([[0, 0]], margin=3.0)
    for loss in (losses.pairwise, losses.soft_label, losses.ranking, losses.plackett_luce):
        reward = torch.zeros(1, 2).double().requires_grad_()
        value = loss(reward, target).sum()
        assert value.item() == pytest.approx(math.log(2))
        (gradient,) = torch.autograd.grad(value, reward)
        assert gradient.abs().max() == 0
        assert loss(exact([[0.3, -0.3]]), target) > value


def test_soft_label_of_certain_votes_is_pairwise():
    target = from_ranks([[0, 1, 2], [2, 0, 1]])
    reward = torch.randn(2, 3).double()
    assert torch.allclose(losses.soft_label(reward, target), losses.pairwise(reward, target), atol=1e-14)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_soft_label_is_least_where_the_model_says_what_the_votes_say(p, eps):
    target = replace(from_ranks(FIRST_WINS), win_prob=exact([[[0, p], [1 - p, 0]]]))
    seen = (1 - 2 * eps) * p + eps
    reward = exact([[math.log(seen / (1 - seen)), 0.0]]).requires_grad_()
    value = losses.soft_label(reward, target, label_smoothing=eps)
    assert value.item() == pytest.approx(-seen * math.log(seen) - (1 - seen) * math.log(1 - seen))
    (gradient,) = torch.autograd.grad(value.sum(), reward)
    assert gradient.abs().max() < 1e-15


def test_soft_label_is_the_mean_of_the_losses_of_single_votes():
    votes = from_ranks([[0, 1], [0, 1], [1, 0], [0, 0]])
    share = replace(from_ranks(FIRST_WINS), win_prob=exact([[[0, 0.625], [0.375, 0]]]))
    reward = exact([[1.3, -0.4]])
    single = losses.pairwise(reward.expand(4, 2), votes).mean()
    assert losses.soft_label(reward, share).item() == pytest.approx(single.item(), abs=1e-14)


def test_label_smoothing_is_the_expected_loss_under_flipped_labels():
    reward = exact([[0.9, 0.2]])
    right, wrong = from_ranks([[0, 1]]), from_ranks([[1, 0]])
    for loss in (losses.pairwise, losses.soft_label, losses.ranking, losses.dpo):
        expected = 0.9 * loss(reward, right) + 0.1 * loss(reward, wrong)
        assert torch.allclose(loss(reward, right, label_smoothing=0.1), expected)


def test_ranking_gives_each_prompt_the_same_weight_whatever_its_size():
    target = from_ranks([[0, 1, 2, 3], [0, 1, -1, -1]])
    reward = torch.zeros(2, 4).double()
    assert torch.allclose(losses.ranking(reward, target), torch.full((2,), math.log(2)).double())
    assert torch.allclose(losses.pairwise(reward, target), exact([6.0, 1.0]) * math.log(2))


def test_the_gradient_of_a_group_is_the_sum_over_its_separate_pairs():
    reward = exact([[0.3, -1.0, 2.0, 0.1]]).requires_grad_()
    group = losses.ranking(reward, from_ranks([[2, 0, 3, 1]])).sum()
    order = [1, 3, 0, 2]
    pairs = [(order[i], order[j]) for i in range(4) for j in range(i + 1, 4)]
    rows = torch.stack([reward[0, list(pair)] for pair in pairs])
    separate = losses.pairwise(rows, from_ranks([[0, 1]] * 6)).mean()
    (ours,), (theirs,) = torch.autograd.grad(group, reward), torch.autograd.grad(separate, reward)
    assert torch.allclose(ours, theirs, atol=1e-15)


def test_unequal_micro_batches_add_up_to_the_gradient_of_the_whole_batch():
    target = random_target()
    reward = torch.randn(4, 4, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    (whole,) = torch.autograd.grad(losses.ranking(reward, target).sum(), reward)
    parts = torch.zeros_like(whole)
    for rows in ([0], [1], [2, 3]):
        part = type(target)(**{k: None if v is None else v[rows] for k, v in vars(target).items()})
        parts += torch.autograd.grad(losses.ranking(reward[rows], part).sum(), reward)[0]
    assert torch.allclose(whole, parts, atol=1e-15)


def test_dpo_on_hard_labels_is_equation_seven_of_the_paper():
    log_ratio = torch.tensor([[-3.0, 5.0], [40.0, 1.0]])
    target = from_ranks([[1, 0], [0, 1]])
    expected = -F.logsigmoid(0.3 * exact([8.0, 39.0]))
    assert torch.allclose(losses.dpo(log_ratio.double(), target, beta=0.3), expected, atol=1e-14)


def test_regression_is_the_mean_over_rated_completions_and_attributes():
    nan = math.nan
    score = [[[1.0, 2.0], [nan, 5.0]], [[nan, nan], [nan, nan]]]
    target = from_ranks([[0, 1], [0, 1]], score=score)
    reward = exact([[[3.0, 9.0], [9.0, 9.0]], [[1.0, 2.0], [9.0, 9.0]]])
    expected = exact([((3 - 1) ** 2 + (1 - 2) ** 2 + (2 - 5) ** 2) / 3, 0.0])
    assert torch.equal(losses.regression(reward, target), expected)
    assert torch.equal(losses.regression(reward.expand(7, 2, 2, 2), target), expected.expand(7, 2))


def test_regression_with_nan_ratings_has_a_finite_gradient():
    target = from_ranks([[0, 1]], score=[[[4.0], [math.nan]]])
    reward = exact([[1.0, 7.0]]).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.regression(reward, target).sum(), reward)
    assert torch.equal(gradient, exact([[-6.0, 0.0]]))


def test_regression_says_what_to_do_when_there_is_nothing_to_predict():
    with pytest.raises(ValueError, match=r"name them, e\.g\. batches\.attributes"):
        losses.regression(torch.zeros(1, 2), from_ranks(FIRST_WINS))
    two = from_ranks(FIRST_WINS, score=[[[1.0, 2.0], [3.0, 4.0]]])
    with pytest.raises(ValueError, match="head=attributes"):
        losses.regression(torch.zeros(1, 2), two)


def test_centring_sees_the_level_and_nothing_else():
    target = from_ranks([[0, 1], [-1, -1]])
    assert torch.equal(losses.centring(torch.tensor([[2.0, -2.0], [9.0, 9.0]]), target), torch.zeros(2))
    assert torch.equal(losses.centring(torch.tensor([[3.0, 1.0], [9.0, 9.0]]), target), torch.tensor([16.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", EXTREME)
def test_pair_losses_stay_exact_at_extreme_differences(gap, dtype):
    for loss in (losses.pairwise, losses.soft_label, losses.ranking, losses.plackett_luce, losses.pick_best):
        reward = torch.tensor([[gap, 0.0]], dtype=dtype, requires_grad=True)
        target = from_ranks(FIRST_WINS)
        value = loss(reward, target).sum()
        exact = np.logaddexp(0, -float(reward.detach()[0, 0]))
        assert value.item() == pytest.approx(exact, rel=1e-6, abs=1e-6)
        (gradient,) = torch.autograd.grad(value, reward)
        assert gradient[0, 0].item() == pytest.approx(-1 / (1 + math.exp(min(gap, 700))), abs=1e-3)


def test_rewards_of_other_groups_are_refused_not_broadcast():
    target = from_ranks([[0, 1]] * 3)
    for wrong in (torch.zeros(3, 1), torch.zeros(1, 2), torch.zeros(2, 6), torch.zeros(3, 2, 1)):
        with pytest.raises(ValueError, match="unflatten"):
            losses.pairwise(wrong, target)


@pytest.mark.parametrize("loss", [losses.pairwise, losses.soft_label, losses.ranking, losses.dpo])
@pytest.mark.parametrize("eps", [-0.1, 0.5])
def test_a_flip_probability_that_is_none_is_refused(loss, eps):
    with pytest.raises(ValueError, match="label_smoothing"):
        loss(torch.zeros(1, 2), from_ranks(FIRST_WINS), label_smoothing=eps)


def test_dpo_refuses_a_beta_that_is_not_positive():
    with pytest.raises(ValueError, match=r"loss\.beta"):
        losses.dpo(torch.zeros(1, 2), from_ranks(FIRST_WINS), beta=0.0)
