"""What every option of conf/loss promises, run over the files: a new loss inherits these tests."""

import inspect
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object, instantiate
from loss_targets import alone, exact, padded, permuted, random_target, single_precision
from omegaconf import OmegaConf

from rlhf.reward.losses import centring

FOLDER = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
ABSOLUTE = {"regression"}  # sees the level of the reward, by intention
LIKES_EXTREMES = {"regression"}  # squares the reward


def load(name):
    loss = instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"))
    return loss.double() if isinstance(loss, torch.nn.Module) else loss


@pytest.fixture(params=[*NAMES, "centring"])
def name(request):
    return request.param


@pytest.fixture
def loss(name):
    return centring if name == "centring" else load(name)


@pytest.fixture
def reward():
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(3)).double()


def test_every_loss_is_found():
    expected = "best_of_k davidson dpo pairwise plackett_luce ranking rao_kupper regression scaled soft_label"
    assert " ".join(NAMES) == expected


@pytest.mark.parametrize("config", NAMES)
def test_every_file_states_every_option_with_the_default_of_the_code(config):
    file = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{config}.yaml"))
    code = inspect.signature(get_object(file.pop("_target_"))).parameters
    file.pop("_partial_", None)
    assert file == {k: p.default for k, p in code.items() if p.default is not inspect.Parameter.empty}


def test_gives_one_loss_per_prompt_and_zero_where_nobody_voted(loss, reward):
    target = random_target()
    reward.requires_grad_()
    value = loss(reward, target)
    assert value.shape == (4,)
    assert value[1] == 0
    assert (value[[0, 2, 3]] > 0).all()
    (gradient,) = torch.autograd.grad(value.sum(), reward)
    assert torch.isfinite(gradient).all()
    assert (gradient[1] == 0).all()
    assert (gradient[0] != 0).any()


def test_a_batch_without_a_single_vote_gives_zero_and_no_nan(loss):
    target = alone(random_target(), 1)
    reward = torch.randn(1, 2).requires_grad_()
    value = loss(reward, target)
    (gradient,) = torch.autograd.grad(value.sum(), reward)
    assert (value == 0).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize("junk", [torch.inf, -torch.inf, torch.nan, -100.0, 0.0])
def test_padding_may_hold_anything(loss, reward, junk):
    target = random_target()
    wide = torch.nn.functional.pad(reward.where(target.candidate, junk), (0, 2), value=junk).requires_grad_()
    value = loss(wide, padded(target, 2))
    assert torch.allclose(value, loss(reward, target), atol=1e-14)
    (gradient,) = torch.autograd.grad(value.sum(), wide)
    assert torch.isfinite(gradient).all()
    assert (gradient[~padded(target, 2).candidate] == 0).all()


@pytest.mark.parametrize("level", [0.0, -100.0])
def test_a_ragged_batch_is_its_prompts_one_by_one(loss, reward, level):
    target = random_target()
    together = loss(reward + level, target)
    for b in range(4):
        single = loss((reward + level)[b, target.candidate[b]].unsqueeze(0), alone(target, b))
        assert torch.allclose(together[b : b + 1], single, atol=1e-13)


def test_a_constant_per_prompt_changes_nothing(name, loss, reward):
    target = random_target()
    shift = exact([[5.0], [1.0], [-100.0], [0.3]])
    same = torch.allclose(loss(reward + shift, target), loss(reward, target), atol=1e-12)
    assert same == (name not in {*ABSOLUTE, "centring"})


def test_the_order_of_the_completions_changes_nothing(loss, reward):
    target, order = random_target(), [2, 0, 3, 1]
    assert torch.allclose(loss(reward[:, order], permuted(target, order)), loss(reward, target), atol=1e-13)


def test_members_of_an_ensemble_are_a_loop_over_them(loss):
    target = random_target()
    rewards = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    together = loss(rewards, target)
    assert together.shape == (2, 3, 4)
    for m in range(2):
        for n in range(3):
            assert torch.allclose(together[m, n], loss(rewards[m, n], target), atol=1e-13)


def test_gradients_match_finite_differences(loss, reward):
    target = random_target()
    inputs = [reward.requires_grad_(), *getattr(loss, "parameters", list)()]
    assert torch.autograd.gradcheck(lambda r, *_: loss(r, target), inputs, eps=1e-6, atol=1e-8)


@pytest.mark.parametrize("size", [1e2, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_rewards_have_finite_gradients(name, loss, reward, size, dtype):
    large = (size * reward.sign()).to(dtype).requires_grad_()
    value = loss(large, random_target())
    (gradient,) = torch.autograd.grad(value.sum(), large)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    if name not in {*LIKES_EXTREMES, "centring"}:
        assert gradient.abs().max() <= 10  # at most one per pair, whatever the size of the reward


def test_half_precision_is_raised_before_anything_is_computed(loss, reward):
    target, half = single_precision(random_target()), reward.bfloat16()
    full = loss(half.float(), target)
    assert full.dtype == torch.float32
    assert torch.equal(loss(half, target), full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(half.float(), target), full)
