"""The shaped reward: its invariants, and independent oracles."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.optimise.shaping.rules import Term
from rlhf.optimise.shaping.shape import ESTIMATORS, explain, k1, k2, k3, sequence_kl, shape_rewards


def batch(seed=0, rows=6, width=9):
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(1, width + 1, (rows,), generator=g)
    mask = torch.arange(width)[None, :] < length[:, None]
    logp = -torch.rand(rows, width, generator=g) * 3
    ref = -torch.rand(rows, width, generator=g) * 3
    return torch.randn(rows, generator=g), logp, ref, mask


def by_hand(scores, logp, ref, mask, beta, rule=0.0, doubt=None, clip=None):
    """The module's first line in plain Python floats, one completion at a time."""
    out = []
    for b in range(len(scores)):
        kl = sum(float(logp[b, t] - ref[b, t]) for t in range(mask.shape[1]) if mask[b, t])
        value = float(scores[b]) - (float(doubt[b]) if doubt is not None else 0.0) + rule
        value = max(-clip, min(clip, value)) if clip else value
        out.append(value - (float(beta[b]) if isinstance(beta, torch.Tensor) else beta) * kl)
    return torch.tensor(out)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(["k1", "k2", "k3"]), st.sampled_from(["token", "sequence"]),
    st.sampled_from([None, 0.5, 5.0]), st.floats(0, 2),
)  # fmt: skip
def test_parts_and_tokens_add_up_and_masked_tokens_get_nothing(seed, estimator, placement, clip, beta):
    scores, logp, ref, mask = batch(seed)
    doubt = scores.abs() / 3
    eos = Term(torch.tensor([-1.0, 0, 0, 0, 0, 0]), torch.tensor([True] + [False] * 5))
    shaped = shape_rewards(
        scores, logp, ref, mask, beta, estimator=estimator, placement=placement, clip=clip, uncertainty=doubt,
        missing_eos=eos, length=-torch.ones(6) / 7,
    )  # fmt: skip
    assert torch.equal(sum(shaped.parts.values()), shaped.seq_reward)  # to the last bit
    torch.testing.assert_close(shaped.token_rewards.sum(1), shaped.seq_reward, rtol=1e-5, atol=1e-4)
    assert bool((shaped.token_rewards[~mask] == 0).all())
    assert shaped.seq_reward.dtype == torch.float32
    assert not shaped.seq_reward.requires_grad


def test_it_is_the_sum_that_its_docstring_states():
    scores, logp, ref, mask = batch(3)
    doubt, betas = torch.rand(6), torch.rand(6)
    shaped = shape_rewards(
        scores, logp, ref, mask, betas, uncertainty=doubt, length=torch.full((6,), -0.25), clip=0.8,
        group=torch.arange(6),
    )  # fmt: skip
    torch.testing.assert_close(shaped.seq_reward, by_hand(scores, logp, ref, mask, betas, -0.25, doubt, 0.8))


def test_whatever_stands_at_masked_places_changes_nothing():
    scores, logp, ref, mask = batch(1)
    clean = shape_rewards(scores, logp, ref, mask, 0.3)
    for junk in (-torch.inf, torch.nan, torch.inf):
        dirty = shape_rewards(scores, logp.masked_fill(~mask, junk), ref.masked_fill(~mask, junk), mask, 0.3)
        assert torch.equal(clean.token_rewards, dirty.token_rewards)
        assert torch.isfinite(dirty.kl_tok_mean)
        assert torch.equal(clean.kl_tok_mean, dirty.kl_tok_mean)


def test_order_batch_size_and_padding_side_change_nothing():
    scores, logp, ref, mask = batch(2)
    whole = shape_rewards(scores, logp, ref, mask, 0.2, clip=1.0)
    order = torch.randperm(6)
    shuffled = shape_rewards(scores[order], logp[order], ref[order], mask[order], 0.2, clip=1.0)
    assert torch.equal(shuffled.seq_reward, whole.seq_reward[order])
    alone = torch.cat(
        [shape_rewards(scores[[i]], logp[[i]], ref[[i]], mask[[i]], 0.2, clip=1.0).seq_reward for i in range(6)]
    )
    assert torch.equal(alone, whole.seq_reward)

    def left(x):
        return torch.stack([row.roll(int(mask.shape[1] - keep.sum())) for row, keep in zip(x, mask, strict=True)])

    rolled = shape_rewards(scores, left(logp), left(ref), left(mask), 0.2, clip=1.0)
    torch.testing.assert_close(rolled.seq_reward, whole.seq_reward)
    torch.testing.assert_close(rolled.token_rewards, left(whole.token_rewards))


def test_beta_zero_gives_the_score_on_the_last_token():
    scores, logp, ref, mask = batch(4)
    shaped = shape_rewards(scores, logp, ref, mask, 0.0)
    assert torch.equal(shaped.seq_reward, scores)
    last = mask.sum(1) - 1
    assert torch.equal(shaped.token_rewards[torch.arange(6), last], scores)
    assert int((shaped.token_rewards != 0).sum()) == 6


def test_the_clip_bounds_the_score_and_never_the_kl():
    _, _, _, mask = batch(5)
    logp, ref = torch.zeros(6, 9), torch.full((6, 9), -20.0)
    shaped = shape_rewards(torch.full((6,), 50.0), logp, ref, mask, 1.0, clip=2.0)
    torch.testing.assert_close(shaped.parts["score"], torch.full((6,), 2.0))
    torch.testing.assert_close(shaped.parts["kl"], -20.0 * mask.sum(1))


def test_subtracting_and_replacing_a_missing_end():
    scores, logp, ref, mask = batch(6)
    fired = torch.tensor([True, False, True, False, False, False])
    term = torch.where(fired, -1.0, 0.0)
    subtracted = shape_rewards(scores, logp, ref, mask, 0.0, missing_eos=term)
    replaced = shape_rewards(scores, logp, ref, mask, 0.0, missing_eos=Term(term, fired), uncertainty=torch.ones(6))
    torch.testing.assert_close(subtracted.seq_reward, scores + term)
    torch.testing.assert_close(replaced.seq_reward, torch.where(fired, -1.0, scores - 1))


def test_token_and_sequence_placement_have_the_same_sum():
    scores, logp, ref, mask = batch(7)
    one = shape_rewards(scores, logp, ref, mask, 0.4, placement="token")
    two = shape_rewards(scores, logp, ref, mask, 0.4, placement="sequence")
    torch.testing.assert_close(one.seq_reward, two.seq_reward)
    assert int((two.token_rewards != 0).sum()) == 6


def policy(generator, depth=3, size=4):
    """A random autoregressive policy as log-probabilities of all sequences, token by token: [size^depth, depth]."""
    tables = [torch.randn(*[size] * (t + 1), generator=generator).double().log_softmax(-1) for t in range(depth)]
    every = list(product(range(size), repeat=depth))
    return torch.stack([torch.stack([tables[t][seq[: t + 1]] for t in range(depth)]) for seq in every])


@pytest.mark.parametrize("seed", range(3))
def test_estimators_against_enumeration(seed):
    """Under π, k1 and k3 have the true KL as their mean; k2 has not."""
    g = torch.Generator().manual_seed(seed)
    logp, ref = policy(g), policy(g)
    weight = logp.sum(1).exp()
    assert float(weight.sum()) == pytest.approx(1)
    true = float((weight * (logp.sum(1) - ref.sum(1))).sum())
    mask = torch.ones_like(logp, dtype=torch.bool)
    found = {name: float((weight * sequence_kl(logp, ref, mask, k).double()).sum()) for name, k in ESTIMATORS.items()}
    assert found["k1"] == pytest.approx(true, rel=1e-5)
    assert found["k3"] == pytest.approx(true, rel=1e-5)
    assert abs(found["k2"] - true) > 0.01 * true


def test_estimators_of_two_gaussians_have_the_published_bias_and_spread():
    """Schulman (2020): x ~ N(0, 1) against N(μ, 1), true KL μ²/2; ratios of bias and std to it."""
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0)).double()
    for mu, bias_k2, std in ((0.1, 0.002, (20, 1.42, 1.42)), (1.0, 0.25, (2, 1.73, 1.7))):
        d = -(x**2) / 2 + (x - mu) ** 2 / 2
        true = mu * mu / 2
        for k, wanted in zip((k1, k2, k3), std, strict=True):
            assert float(k(d).std()) / true == pytest.approx(wanted, rel=0.05)
        assert float(k2(d).mean()) / true - 1 == pytest.approx(bias_k2, abs=0.01)


def test_k3_does_not_cancel_where_policies_nearly_agree():
    d = torch.tensor([1e-4, -1e-4])
    torch.testing.assert_close(k3(d), d.double().square().div(2).float(), rtol=2e-3, atol=0)


def test_beta_per_completion_needs_its_correction():
    """d/dθ E[r - β(y) log π/ref] by enumeration, against the score-function gradient of the shaped reward."""
    g = torch.Generator().manual_seed(0)
    theta = torch.randn(5, generator=g, requires_grad=True)
    ref = torch.randn(5, generator=g).log_softmax(0)
    reward, beta = torch.randn(5, generator=g), torch.rand(5, generator=g)
    logp = theta.log_softmax(0)
    (wanted,) = torch.autograd.grad((logp.exp() * (reward - beta * (logp - ref))).sum(), theta)

    def score_function(group):
        logp = theta.log_softmax(0)
        mask = torch.ones(5, 1, dtype=torch.bool)
        shaped = shape_rewards(reward, logp[:, None], ref[:, None], mask, beta, group=group)
        return torch.autograd.grad((logp.exp().detach() * shaped.seq_reward * logp).sum(), theta)[0], shaped

    corrected, shaped = score_function(torch.zeros(5, dtype=torch.long))
    plain, shaped_per_prompt = score_function(torch.arange(5))  # five prompts: nothing to correct
    torch.testing.assert_close(corrected, wanted)
    assert float((plain - wanted).abs().max()) > 0.01
    torch.testing.assert_close(shaped.parts["beta"], -beta)
    assert "beta" not in shaped_per_prompt.parts
    with pytest.raises(ValueError, match="beta differs between completions: group="):
        score_function(None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.zeros(6, 9, dtype=torch.bool)}, "no token"),
        ({"beta": -0.1}, "beta must be >= 0"),
        ({"scores": torch.full((6,), torch.nan)}, "not finite"),
        ({"scores": torch.zeros(5)}, "shapes do not fit"),
        ({"estimator": "k4"}, "one of k1, k2, k3"),
        ({"placement": "end"}, "one of token, sequence"),
        ({"uncertainty": torch.full((6,), -1.0)}, "uncertainty"),
        ({"clip": 0.0}, "clip"),
        ({"uncertainty": torch.full((6,), torch.inf)}, "uncertainty is not finite"),
        ({"uncertainty": torch.full((6,), torch.nan)}, "uncertainty is not finite"),
        ({"uncertainty": torch.ones(1)}, "uncertainty has the shape"),
        ({"beta": torch.inf}, "beta is not finite"),
        ({"beta": torch.nan}, "beta is not finite"),
        ({"beta": torch.ones(1)}, "beta has the shape"),
        ({"beta": torch.ones(5)}, "beta has the shape"),
        ({"length": torch.full((6,), -torch.inf)}, "length is not finite"),
        ({"missing_eos": torch.ones(1)}, "missing_eos has the shape"),
        ({"format": Term(torch.full((6,), torch.nan), torch.zeros(6, dtype=torch.bool))}, "format is not finite"),
        ({"format": Term(torch.zeros(6), torch.zeros(1, dtype=torch.bool))}, "format.replaces"),
        ({"mask": torch.ones(6, 9)}, "mask is torch.float32"),
        ({"group": torch.zeros(5, dtype=torch.long)}, "group has the shape"),
    ],
)
def test_bad_input_is_refused(change, message):
    scores, logp, ref, mask = batch(8)
    good = {"scores": scores, "logp": logp, "ref_logp": ref, "mask": mask, "beta": 0.1}
    with pytest.raises(ValueError, match=message):
        shape_rewards(**good | change)


def test_the_dry_run_shows_numbers_that_add_up():
    scores, logp, ref, mask = batch(9)
    shaped = shape_rewards(scores, logp, ref, mask, 0.1, length=torch.full((6,), -0.5))
    text = explain(shaped, 2, [f"t{i}" for i in range(9)], mask)
    shown = {line.split()[0]: float(line.split()[-1]) for line in text.splitlines() if line.split()[-1][0] in "+-"}
    parts = [shown[name] for name in shaped.parts]
    assert sum(parts) == pytest.approx(float(shaped.seq_reward[2]), abs=1e-3)
    assert shown["sum"] == pytest.approx(float(shaped.seq_reward[2]), abs=1e-3)
    assert text.count("'t") == int(mask[2].sum())
    assert f"raw score    {float(scores[2]):+.4f}\n" in text


def test_the_dry_run_shows_the_score_that_a_rule_replaces():
    scores, logp, ref, mask = batch(9)
    gone = Term(torch.full((6,), -1.0), torch.ones(6, dtype=torch.bool))
    shaped = shape_rewards(scores, logp, ref, mask, 0.1, missing_eos=gone)
    assert torch.equal(shaped.raw, scores)
    text = explain(shaped, 2, [f"t{i}" for i in range(9)], mask)
    assert f"raw score    {float(scores[2]):+.4f}, of which a rule or the clip leaves\n  score        +0.0000" in text


def test_rules_that_replace_the_score_add_up():
    scores, logp, ref, mask = batch(9)
    everywhere = torch.ones(6, dtype=torch.bool)
    terms = {n: Term(torch.full((6,), v), everywhere) for n, v in {"missing_eos": -1.0, "length": -0.5}.items()}
    shaped = shape_rewards(scores, logp, ref, mask, 0.0, **terms)
    assert torch.allclose(shaped.seq_reward, torch.full((6,), -1.5))


def test_the_dry_run_says_what_the_clip_did_where_a_rule_replaced_the_score():
    logp = torch.zeros(1, 2)
    rule = Term(torch.tensor([-10.0]), torch.tensor([True]))
    shaped = shape_rewards(
        torch.tensor([3.0]), logp, logp, torch.ones(1, 2, dtype=torch.bool), 0.0, missing_eos=rule, clip=5.0
    )
    assert shaped.clipped.tolist() == [5.0]
    assert sum(shaped.parts.values()).item() == shaped.seq_reward.item() == -5.0
    shown = explain(shaped, 0, ["a", "b"], torch.ones(1, 2, dtype=torch.bool))
    assert "(clip)       +5.0000 is in the next line\n  score        +5.0000" in shown
