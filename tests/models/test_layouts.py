"""Packed and shared layouts give the rewards and gradients of one sequence at a time, on stock models."""

import copy
from functools import partial

import pytest
import torch
from model_zoo import small
from torch.nn.attention.flex_attention import flex_attention

from rlhf.data.token_layout import packed, padded, shared
from rlhf.models import layouts
from rlhf.models.backbone import Backbone
from rlhf.models.block_attention import AttentionPlan, blocks_cpu
from rlhf.models.heads import LinearHead
from rlhf.models.lora import Lora, frozen
from rlhf.models.reward_model import RewardModel

CAUSAL = ["llama", "llama_gqa", "qwen2", "qwen3", "gpt2", "pythia", "gemma", "gemma3", "mistral", "phi3", "opt"]
ENCODERS = ["bert", "roberta", "electra", "distilbert"]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-7}
alone_layout = partial(padded, pad_id=1)


def reward_model(name, dtype=torch.float32, **options):
    backbone = Backbone(small(name, **options))
    return RewardModel(backbone, LinearHead(backbone.hidden_size)).to(dtype)


def layout_of(model):
    return shared if model.backbone.causal else packed


def groups(k, *, seed=0, size=3):
    """Ragged prompts and completions; `size` prompts with k completions each."""
    generator = torch.Generator().manual_seed(seed + 100 * k)

    def ids(low, high):
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(5, 250, (length,), generator=generator).tolist()

    return [ids(1, 40) for _ in range(size)], [[ids(1, 25) for _ in range(k)] for _ in range(size)]


def value_and_gradient(model, batches):
    """Rewards and the gradient of a curved function of them, all parameters in one vector."""
    model.zero_grad()
    rewards = torch.cat([model(tokens) for tokens in batches])
    (rewards.double() * torch.linspace(-1, 2, len(rewards), dtype=torch.float64)).tanh().sum().backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return rewards.detach(), torch.cat(gradients)


def one_at_a_time(model, prompts, responses):
    return [alone_layout([p], [[r]]) for p, rs in zip(prompts, responses, strict=True) for r in rs]


def assert_same(model, prompts, responses, layout, tolerance):
    expected, gradient = value_and_gradient(model, one_at_a_time(model, prompts, responses))
    found, other = value_and_gradient(model, [layout(prompts, responses)])
    assert (found - expected).norm() <= tolerance * expected.norm()
    assert (other - gradient).norm() <= tolerance * gradient.norm()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CAUSAL + ENCODERS)
def test_rewards_and_global_gradient_equal_one_sequence_at_a_time(name, dtype):
    model = reward_model(name, dtype)
    for k in (1, 2, 3, 4, 8):
        assert_same(model, *groups(k), layout_of(model), TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["llama_gqa", "gpt2", "pythia", "bert"])
@pytest.mark.parametrize("option", ["lora", "gradient_checkpointing", "ragged_k"])
def test_options_leave_it_exact(name, option):
    model = reward_model(name, torch.float64, gradient_checkpointing=option == "gradient_checkpointing")
    prompts, responses = groups(4)
    if option == "lora":
        model.backbone = Lora(rank=4)(model.backbone).double()
        for n, p in model.named_parameters():
            if "lora_B" in n:
                torch.nn.init.normal_(p, std=0.1)
    if option == "ragged_k":
        responses = [responses[0], responses[1][:1], responses[2][:2]]
    assert_same(model.train(), prompts, responses, layout_of(model), 1e-7)


def test_packed_is_exact_for_causal_models_too():
    model = reward_model("llama_gqa", torch.float64)
    assert_same(model, *groups(3), packed, 1e-7)


def test_an_empty_prompt_and_a_single_token_are_fine():
    model = reward_model("llama", torch.float64)
    assert_same(model, [[], [7]], [[[8, 9], [10]], [[11], [12]]], shared, 1e-7)


def test_a_completion_without_tokens_is_refused():
    with pytest.raises(ValueError, match="without tokens"):
        shared([[5]], [[[6], []]])


def test_completions_do_not_see_each_other_nor_other_prompts():
    model = reward_model("llama").eval()
    prompts, responses = groups(3)
    before = model(shared(prompts, responses))
    changed = copy.deepcopy(responses)
    changed[1][1] = [200, 201, 202]
    after = model(shared(prompts, changed))
    moved = (before - after).abs() > 1e-6
    assert moved.tolist() == [n == 4 for n in range(9)]


def test_shared_stores_every_prompt_once():
    prompts, responses = groups(4)
    tokens = shared(prompts, responses)
    size = sum(len(p) + sum(map(len, rs)) for p, rs in zip(prompts, responses, strict=True))
    assert tokens.input_ids.shape == (1, size)
    assert packed(prompts, responses).input_ids.shape[1] == size + 3 * sum(map(len, prompts))
    ends = tokens.input_ids[0, tokens.last].tolist()
    assert ends == [r[-1] for rs in responses for r in rs]
    places = tokens.position_ids[0, tokens.last].tolist()
    assert places == [len(p) + len(r) - 1 for p, rs in zip(prompts, responses, strict=True) for r in rs]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("read", [False, True])
def test_blocks_equal_a_dense_mask_in_value_and_gradient(causal, read):
    tokens = shared(*groups(3))
    plan = AttentionPlan(tokens, tokens.last if read else None)
    width = tokens.segment.shape[0]
    generator = torch.Generator().manual_seed(0)
    places = tokens.last if read else torch.arange(width)
    shapes = [(1, 4, len(places), 8), (1, 2, width, 8), (1, 2, width, 8)]
    q, k, v = (torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes)
    own, context = plan.blocks(causal)
    found = blocks_cpu(q, k, v, own, context, causal, 0.3)[0]
    inside = tokens.segment[places][:, None] == tokens.segment[None]
    if causal:
        inside = inside & (places[:, None] >= torch.arange(width)[None])
    mask = inside | (tokens.context[places][:, None] == tokens.segment[None])
    wide = [x.repeat_interleave(2, 1) for x in (k, v)]
    score = (q @ wide[0].transpose(-1, -2) * 0.3).masked_fill(~mask, -torch.inf)
    expected = score.softmax(-1) @ wide[1]
    torch.testing.assert_close(found, expected)
    weight = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), (q, k, v)),
        torch.autograd.grad((expected * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("read", [False, True])
def test_the_block_mask_for_gpus_allows_the_same_attention(read):
    tokens = shared(*groups(3))
    plan = AttentionPlan(tokens, tokens.last if read else None)
    generator = torch.Generator().manual_seed(0)
    width = tokens.segment.shape[0]
    queries = len(tokens.last) if read else width
    q, k, v = (torch.randn(1, 2, n, 16, generator=generator) for n in (queries, width, width))
    for causal, mask in ((True, plan.block_mask(True)), (False, plan.block_mask(False))):
        own, context = plan.blocks(causal)
        expected = blocks_cpu(q, k, v, own, context, causal, 0.25)[0]
        found = flex_attention(q, k, v, block_mask=mask, scale=0.25)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_gradcheck_of_the_block_operator():
    tokens = shared([[5, 6, 7], [8]], [[[1, 2], [3]], [[4, 5, 6]]])
    own, context = AttentionPlan(tokens).blocks(True)
    width = tokens.segment.shape[0]
    inputs = [torch.randn(1, 2, width, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *x: blocks_cpu(*x, own, context, True, 0.5)[0], inputs)
    torch.library.opcheck(blocks_cpu, (*inputs, own, context, True, 0.5), test_utils=("test_schema", "test_faketensor"))


def test_bf16_autocast_stays_near_float32():
    model = reward_model("llama_gqa").eval()
    prompts, responses = groups(4)
    exact = model(shared(prompts, responses))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(shared(prompts, responses))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)


# ------------------------------------------------------------------------------------- choosing a layout


@pytest.mark.parametrize(("name", "expected"), [("llama", shared), ("gpt2", shared), ("bert", packed)])
def test_auto_takes_the_fastest_layout_that_is_exact(name, expected):
    backbone = reward_model(name).backbone
    assert layouts.auto(backbone, pad_id=0, max_length=128) is expected


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("gemma2", {}, "soft cap"),
        ("mistral", {"sliding_window": 64}, "sliding window of 64"),
        ("deberta", {}, "attention interface"),
        ("bloom", {}, "attention interface"),
    ],
)
def test_what_blocks_cannot_do_falls_back_to_padded_and_says_why(name, options, reason, caplog):
    backbone = reward_model(name, **options).backbone
    layout = layouts.auto(backbone, pad_id=0, max_length=128)
    assert layout.func is padded
    assert reason in caplog.text
    with pytest.raises(ValueError, match="layout=padded"):
        layouts.always_packed(backbone, pad_id=0, max_length=128)


def test_a_window_longer_than_the_sequences_does_no_harm():
    backbone = reward_model("mistral", sliding_window=128).backbone
    assert layouts.auto(backbone, pad_id=0, max_length=128) is shared


def test_dropout_on_attention_weights_falls_back_other_dropout_does_not(caplog):
    assert layouts.auto(reward_model("llama", attention_dropout=0.1).backbone, pad_id=0, max_length=128).func is padded
    assert "attention dropout" in caplog.text
    assert layouts.auto(reward_model("gpt2", resid_pdrop=0.1).backbone, pad_id=0, max_length=128) is shared


@pytest.mark.parametrize("still", [frozen, Backbone.eval])
def test_a_trunk_that_is_not_trained_has_no_dropout_and_packs(still):
    backbone = still(reward_model("llama", attention_dropout=0.5).backbone)
    assert layouts.always_packed(backbone, pad_id=0, max_length=128) is packed
    assert layouts.auto(backbone, pad_id=0, max_length=128) is shared


def test_a_model_that_answers_differently_is_found_out(monkeypatch, caplog):
    backbone = reward_model("llama").backbone
    own = AttentionPlan.blocks
    monkeypatch.setattr(
        AttentionPlan, "blocks", lambda plan, causal: (own(plan, causal)[0], torch.empty(0, 4, dtype=int))
    )
    assert layouts.auto(backbone, pad_id=0, max_length=128).func is padded
    assert "differ by" in caplog.text


def test_an_encoder_cannot_share_prompts():
    with pytest.raises(ValueError, match="prompt sees its completion"):
        layouts.always_shared(reward_model("bert").backbone, pad_id=0, max_length=128)
