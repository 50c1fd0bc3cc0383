"""Controllers of β: schedules by hand, the adaptive rule against its equation and a closed loop."""

import math

import pytest
import torch

from rlhf.optimise.shaping.kl_controllers import (
    Adaptive,
    Annealed,
    Context,
    Fixed,
    PerDomain,
    PerPrompt,
    cosine,
    linear,
)

TWO = Context(torch.tensor([0.0, 0.5]), ["safety", None])


def beta(controller) -> float:
    return float(controller.betas(TWO)[0])


@pytest.mark.parametrize(("curve", "quarter"), [(linear, 0.775), (cosine, 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)])
def test_annealing_goes_from_high_to_low_and_stays(curve, quarter):
    controller = Annealed(1.0, 0.1, 100, curve)
    seen = [beta(controller)]
    for _ in range(6):
        controller.update(3.0, 25)
        seen.append(beta(controller))
    assert seen[0] == pytest.approx(1.0)
    assert seen[1] == pytest.approx(quarter)
    assert seen[2] == pytest.approx(0.55)
    assert seen[4:] == pytest.approx([0.1] * 3)
    assert seen == sorted(seen, reverse=True)
    with pytest.raises(ValueError, match="high to low"):
        Annealed(0.1, 0.2, 10)
    with pytest.raises(ValueError, match="start"):
        Annealed(float("nan"), 0.0, 10)


def test_the_adaptive_rule_is_zieglers():
    controller = Adaptive(0.1, target=6.0, horizon=10_000)
    controller.update(6.6, 512)
    assert beta(controller) == pytest.approx(0.1 * (1 + 0.1 * 512 / 10_000))
    big = Adaptive(0.1, target=6.0, horizon=10_000)
    big.update(1000.0, 512)
    assert beta(big) / 0.1 == pytest.approx(1.01024)  # at most 1.0102 a step with 512 episodes
    halved = Adaptive(0.1, target=6.0, horizon=10_000)
    steps = 0
    while beta(halved) > 0.05:
        halved.update(0.0, 512)
        steps += 1
    assert steps == pytest.approx(67, abs=1)


def test_the_adaptive_rule_steers_a_policy_to_its_target():
    """A Gaussian policy at its optimum for β has KL = (g/β)²/2 for a linear reward of slope g."""
    controller, kl = Adaptive(1.0, target=6.0, horizon=1000), math.nan
    for _ in range(600):
        kl = (0.7 / beta(controller)) ** 2 / 2
        controller.update(kl, 64)
    assert kl == pytest.approx(6.0, rel=0.01)


def test_a_kl_per_token_instead_of_per_sequence_would_run_away():
    """The published bug: the controller hears a twelfth of the KL and lets it grow to twelve times the target."""
    controller, kl = Adaptive(1.0, target=6.0, horizon=1000), math.nan
    for _ in range(600):
        kl = (0.7 / beta(controller)) ** 2 / 2
        controller.update(kl / 12, 64)
    assert kl > 60


def test_guards_of_the_adaptive_rule():
    for wrong in ({"init": 0.0}, {"target": 0.0}, {"target": -1.0}, {"horizon": 0}, {"init": 20.0}):
        with pytest.raises(ValueError, match=r"shaping\.controller"):
            Adaptive(**{"init": 0.1, "target": 6.0} | wrong)
    with pytest.raises(ValueError, match="horizon above 12000"):
        Adaptive(0.1, 6.0, horizon=10_000).update(0.0, 60_000)
    with pytest.raises(ValueError, match="not finite"):
        Adaptive(0.1, 6.0).update(math.nan, 10)
    bounded = Adaptive(0.1, 6.0, horizon=100, low=0.05, high=0.2)
    for _ in range(100):
        bounded.update(100.0, 64)
    assert beta(bounded) == pytest.approx(0.2)
    for _ in range(100):
        bounded.update(0.0, 64)
    assert beta(bounded) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "make", [lambda: Fixed(0.1), lambda: Annealed(1.0, 0.1, 500), lambda: Adaptive(0.1, 6.0, 1000),
             lambda: PerPrompt(Adaptive(0.1, 6.0, 1000)), lambda: PerDomain(Annealed(1.0, 0.1, 500), {"safety": 2.0})],
)  # fmt: skip
def test_a_controller_goes_on_where_its_checkpoint_was(make):
    one, two = make(), make()
    for kl in (3.0, 9.0, 20.0):
        one.update(kl, 64)
    two.load_state_dict(one.state_dict())
    for kl in (1.0, 7.0):
        one.update(kl, 64)
        two.update(kl, 64)
    assert torch.equal(one.betas(TWO), two.betas(TWO))


def test_doubt_and_domain_scale_beta_per_prompt():
    torch.testing.assert_close(PerPrompt(Fixed(0.1), 2.0).betas(TWO), torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(PerPrompt(Fixed(0.1), 2.0, most=1.5).betas(TWO), torch.tensor([0.1, 0.15]))
    torch.testing.assert_close(PerDomain(Fixed(0.1), {"safety": 4.0}).betas(TWO), torch.tensor([0.4, 0.1]))
    with pytest.raises(ValueError, match="head=ensemble"):
        PerPrompt(Fixed(0.1)).betas(Context(torch.zeros(2), [None, None]))
