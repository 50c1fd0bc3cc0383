import math
from dataclasses import replace

import pytest
import torch
from loss_targets import exact, from_ranks, random_target

from rlhf.reward.losses import LearnedDavidson, LearnedRaoKupper, davidson, rao_kupper, soft_label
from rlhf.reward.ties import davidson_log_probabilities, rao_kupper_log_probabilities

GAPS = torch.tensor([-1e4, -30.0, -1.2, -1e-3, 0.0, 0.4, 7.0, 1e2, 1e4])
MODELS = [
    *[(rao_kupper_log_probabilities, width) for width in (0.0, 1e-30, 1e-6, 0.5, 5.0, 200.0, 1e4)],
    *[(davidson_log_probabilities, log_nu) for log_nu in (-math.inf, -1e3, -2.0, 0.0, 3.0, 1e3)],
]


def probabilities(model, gap, parameter):
    return torch.stack([p.exp() for p in model(gap, parameter)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("model", "parameter"), MODELS)
def test_probabilities_sum_to_one_and_swap_with_the_sides(model, parameter, dtype):
    p = probabilities(model, GAPS.to(dtype), parameter)
    rounding = 2e-3 if dtype == torch.float32 else 1e-11  # exponents of size 1e4 carry this much
    assert torch.allclose(p.sum(0), torch.ones_like(p[0]), atol=rounding)
    assert (p >= 0).all()
    assert torch.allclose(p, probabilities(model, -GAPS.to(dtype), parameter).flip(0), atol=rounding)


def test_rao_kupper_has_the_closed_form_of_the_paper():
    pi, pj, theta = 3.0, 0.8, 1.7  # strengths e^r and threshold e^η
    p = probabilities(rao_kupper_log_probabilities, exact(math.log(pi / pj)), math.log(theta))
    tie = pi * pj * (theta**2 - 1) / ((pi + theta * pj) * (theta * pi + pj))
    expected = exact([pi / (pi + theta * pj), tie, pj / (theta * pi + pj)])
    assert torch.allclose(p, expected, atol=1e-15)


def test_davidson_has_the_closed_form_of_the_paper():
    pi, pj, nu = 3.0, 0.8, 0.6
    p = probabilities(davidson_log_probabilities, exact(math.log(pi / pj)), math.log(nu))
    weights = exact([pi, nu * math.sqrt(pi * pj), pj])
    assert torch.allclose(p, weights / weights.sum(), atol=1e-15)


def test_without_ties_both_models_become_bradley_terry():
    target = random_target()
    target = replace(target, tie_prob=torch.zeros_like(target.tie_prob))
    reward = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    expected = soft_label(reward, target)
    assert torch.allclose(rao_kupper(reward, target, width=0.0), expected, atol=1e-12)
    assert torch.allclose(rao_kupper(reward, target, width=1e-9), expected, atol=1e-7)
    assert torch.allclose(davidson(reward, target, log_nu=-math.inf), expected, atol=1e-12)
    assert torch.allclose(davidson(reward, target, log_nu=-25.0), expected, atol=1e-7)


def test_dropping_ties_is_exact_under_davidson_and_not_under_rao_kupper():
    gap = exact([0.3, 1.0, 2.5])
    win, _, loss = probabilities(davidson_log_probabilities, gap, 0.7)
    assert torch.allclose(win / (win + loss), torch.sigmoid(gap))
    win, _, loss = probabilities(rao_kupper_log_probabilities, gap, 0.7)
    assert (win / (win + loss) > torch.sigmoid(gap) + 0.01).all()


@pytest.mark.parametrize(
    ("model", "parameter", "gap", "as_half", "dropped"),
    [(davidson_log_probabilities, 0.0, 2.0, 0.66, 1.0), (rao_kupper_log_probabilities, 0.5, 1.0, 0.94, 1.23)],
)
def test_scale_of_the_reward_that_ties_imply_is_that_of_the_documentation(model, parameter, gap, as_half, dropped):
    win, tie, loss = probabilities(model, exact(gap), parameter)
    assert (torch.logit(win + tie / 2) / gap).item() == pytest.approx(as_half, abs=0.005)
    assert ((win / loss).log() / gap).item() == pytest.approx(dropped, abs=0.005)


def expected_votes(model, reward, parameter):
    """The target of infinitely many annotators who vote as the model says."""
    target = from_ranks([[*range(reward.shape[1])]])
    win, tie, _ = probabilities(model, reward.unsqueeze(-1) - reward.unsqueeze(-2), parameter)
    return replace(target, win_prob=target.observed * (win + tie / 2), tie_prob=target.observed * tie)


@pytest.mark.parametrize(
    ("make", "model", "truth"),
    [
        (LearnedRaoKupper, rao_kupper_log_probabilities, 0.8),
        (LearnedDavidson, davidson_log_probabilities, math.log(0.6)),
    ],
)
def test_learning_recovers_the_planted_rewards_and_ties(make, model, truth):
    planted = exact([[1.0, -0.5, 0.2, -0.7]])
    target = expected_votes(model, planted, truth)
    loss = make().double()
    reward = torch.zeros(1, 4).double().requires_grad_()
    search = torch.optim.LBFGS(
        [reward, loss.raw], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        search.zero_grad()
        value = loss(reward, target).sum()
        value.backward()
        return value

    search.step(closure)
    assert torch.allclose(reward - reward.mean(), planted, atol=1e-6)
    learned = loss.width if make is LearnedRaoKupper else loss.nu.log()
    assert learned.item() == pytest.approx(truth, abs=1e-6)


def test_a_half_label_for_ties_shrinks_the_reward_that_a_tie_model_recovers():
    planted = exact([[1.0, -1.0]])
    target = expected_votes(davidson_log_probabilities, planted, 1.0)
    at_truth = planted.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(soft_label(at_truth, target).sum(), at_truth)
    assert gradient[0, 0] > 0.05  # descent makes the difference smaller than it is


@pytest.mark.parametrize(("make", "init"), [(LearnedRaoKupper, 0.3), (LearnedDavidson, 2.0)])
def test_a_learned_tie_model_is_the_pure_loss_at_its_parameter(make, init):
    target = random_target()
    reward = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    loss = make(init=init)
    assert len(list(loss.parameters())) == 1
    pure = (
        rao_kupper(reward, target, width=init)
        if make is LearnedRaoKupper
        else davidson(reward, target, log_nu=math.log(init))
    )
    assert torch.allclose(loss(reward, target), pure, atol=1e-6)
    win, tie, lost = loss.probabilities(torch.tensor([0.0, 1.0]))
    assert torch.allclose(win + tie + lost, torch.ones(2))
    assert torch.allclose(win[0], lost[0])


@pytest.mark.parametrize("raw", [-1e4, -80.0, 50.0, 1e4])
def test_the_gradient_of_the_tie_parameter_stays_finite_far_from_its_range(raw):
    target = replace(random_target(), tie_prob=torch.zeros(4, 4, 4).double())
    for loss in (LearnedRaoKupper(), LearnedDavidson()):
        torch.nn.init.constant_(loss.raw, raw)
        reward = torch.randn(4, 4, requires_grad=True)
        loss(reward, target).sum().backward()
        assert torch.isfinite(loss.raw.grad)
        assert torch.isfinite(reward.grad).all()


@pytest.mark.parametrize("gap", [-1e4, -1e2, 0.0, 1e2, 1e4])
@pytest.mark.parametrize("ranks", [[[0, 1]], [[0, 0]]])
def test_gradients_stay_finite_at_extreme_differences(gap, ranks):
    for loss in (LearnedRaoKupper(init=0.1), LearnedDavidson(init=0.1)):
        reward = torch.tensor([[gap, 0.0]], requires_grad=True)
        value = loss(reward, from_ranks(ranks)).sum()
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(reward.grad).all()
        assert torch.isfinite(loss.raw.grad)


def test_parameters_outside_their_domain_are_refused():
    with pytest.raises(ValueError, match="width"):
        rao_kupper(torch.zeros(1, 2), from_ranks([[0, 1]]), width=-0.1)
    for make in (LearnedRaoKupper, LearnedDavidson):
        with pytest.raises(ValueError, match=r"loss\.init"):
            make(init=0.0)
