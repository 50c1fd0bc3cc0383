"""PPO: gradient and advantages against independent forms, and the acceptance test: it finds π* exactly."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.optimise.policy.ppo_module import clipped_surrogate, gae
from rlhf.optimise.shaping.shape import shape_rewards

V, L = 5, 3
EVERY = torch.tensor(list(product(range(V), repeat=L)))
PREFIX = torch.stack([EVERY.new_zeros(len(EVERY)), 1 + EVERY[:, 0], 1 + V + V * EVERY[:, 0] + EVERY[:, 1]], 1)


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(seed, rows, width):
    """One stretch of tokens per row, anywhere: prompts before it, padding after it, or the other way round."""
    rng = np.random.default_rng(seed)
    begins = rng.integers(0, width, rows)
    ends = [int(rng.integers(b + 1, width + 1)) for b in begins]
    return torch.tensor([[b <= t < e for t in range(width)] for b, e in zip(begins, ends, strict=True)])


def test_on_the_first_pass_the_gradient_is_the_policy_gradient():
    logp, mask = numbers(0, 4, 6).requires_grad_(), masks(0, 4, 6)
    advantage = numbers(1, 4, 6)
    found = clipped_surrogate(logp, logp.detach().clone(), advantage, mask, clip=0.2)
    (grad,) = torch.autograd.grad(found.loss, logp)
    plain = -(torch.where(mask, advantage * logp, 0.0)).sum(1).mean()
    (wanted,) = torch.autograd.grad(plain, logp)
    torch.testing.assert_close(grad, wanted)
    assert found.clipped == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "stays"),
    [
        (1.3, 1.0, False), (1.3, -1.0, True), (0.7, 1.0, True), (0.7, -1.0, False), (1.1, 1.0, True), (0.9, -1.0, True),
    ],
)  # fmt: skip
def test_the_clip_takes_the_gradient_only_where_it_leads_further_away(ratio, advantage, stays):
    logp = torch.tensor([[float(np.log(ratio))]], requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.bool)
    found = clipped_surrogate(logp, torch.zeros(1, 1), torch.full((1, 1), advantage), one, clip=0.2)
    (grad,) = torch.autograd.grad(found.loss, logp)
    assert float(grad) == pytest.approx(-advantage * ratio if stays else 0)
    assert float(found.clipped) == (not stays)


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_advantages_are_those_of_a_naive_sum(seed, lam, gamma):
    """A_t = Σ_k (γλ)^k δ_{t+k}, completion by completion, over the tokens alone."""
    reward, value, mask = numbers(seed, 3, 5), numbers(seed + 1, 3, 5), masks(seed, 3, 5)
    found = gae(reward.masked_fill(~mask, torch.nan), value.masked_fill(~mask, torch.nan), mask, lam=lam, gamma=gamma)
    for row in range(3):
        r, v = reward[row][mask[row]].tolist(), [*value[row][mask[row]].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        wanted = [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(r))) for t in range(len(r))]
        assert found.advantage[row][mask[row]].tolist() == pytest.approx(wanted)
        assert found.target[row][mask[row]].tolist() == pytest.approx([a + b for a, b in zip(wanted, v, strict=False)])
    assert bool((found.advantage[~mask] == 0).all())


def test_the_ends_of_lambda_are_monte_carlo_and_temporal_difference():
    reward, value = numbers(3, 2, 4), numbers(4, 2, 4)
    mask = torch.ones(2, 4, dtype=torch.bool)
    to_go = reward.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(gae(reward, value, mask, lam=1.0).advantage, to_go - value)
    after = torch.cat([value[:, 1:], value.new_zeros(2, 1)], 1)
    torch.testing.assert_close(gae(reward, value, mask, lam=0.0).advantage, reward + after - value)
    bandit = gae(reward[:, :1], value[:, :1], mask[:, :1], lam=0.3)  # one action
    torch.testing.assert_close(bandit.advantage, reward[:, :1] - value[:, :1])


def test_numbers_that_mean_nothing_are_refused():
    one, mask = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"algorithm\.lam=1\.5"):
        gae(one, one, mask, lam=1.5)
    with pytest.raises(ValueError, match=r"algorithm\.clip=0"):
        clipped_surrogate(one, one, one, mask, clip=0.0)


def tokens_logp(logits, rows):
    return logits.log_softmax(-1)[PREFIX[rows], EVERY[rows]]


def gap(kl_as, beta, seed, *, lam=1.0, rollouts=300, size=64, epochs=2, minibatches=2):
    """J* - J after training, exact; J* = β log E_ref[exp(r/β)] is reached by ref · exp(r/β). Values: one per prefix."""
    g = torch.Generator().manual_seed(seed)
    start, table = torch.randn(1 + V + V * V, V, generator=g), torch.randn(V**L, generator=g)
    logits, values = start.clone().requires_grad_(), torch.zeros(1 + V + V * V, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [logits], "lr": 0.03}, {"params": [values], "lr": 0.1}])
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, rollouts)
    every = torch.arange(V**L)
    ref_every = tokens_logp(start, every)
    for _ in range(rollouts):
        drawn = torch.multinomial(tokens_logp(logits.detach(), every).sum(1).exp(), size, True, generator=g)
        old = tokens_logp(logits.detach(), drawn)
        mask = torch.ones_like(old, dtype=torch.bool)
        shaped = shape_rewards(table[drawn], old, ref_every[drawn], mask, beta, estimator=kl_as)
        found = gae(shaped.token_rewards, values.detach()[PREFIX[drawn]], mask, lam=lam)
        for _ in range(epochs):
            for part in torch.randperm(size, generator=g).chunk(minibatches):
                rows = drawn[part]
                surrogate = clipped_surrogate(
                    tokens_logp(logits, rows), old[part], found.advantage[part], mask[part], clip=0.2
                )
                error = values[PREFIX[rows]] - found.target[part]
                optimizer.zero_grad()
                (surrogate.loss + error.square().mean() / 2).backward()
                optimizer.step()
        scheduler.step()
    own, ref = tokens_logp(logits.detach(), every).sum(1), ref_every.sum(1)
    objective = float((own.exp() * (table - beta * (own - ref))).sum())
    return float(beta * torch.logsumexp(ref + table / beta, 0)) - objective


@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.slow
def test_k1_in_the_reward_reaches_the_closed_form_optimum_and_wrong_estimators_miss_it(beta):
    assert gap("k1", beta, seed=0) < 0.02
    for wrong in ("k2", "k3"):
        assert gap(wrong, beta, seed=0, rollouts=120) > 0.05, wrong
