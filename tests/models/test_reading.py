"""What the head reads: the mean over tokens, fewer layers, surface features; the same in every layout."""

from functools import partial

import numpy as np
import pytest
import torch
from model_zoo import save_causal, small
from transformers import ResNetConfig

from rlhf.data.surface import NAMES, SurfaceLayout, features
from rlhf.data.token_layout import packed, padded, shared
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead, MlpHead
from rlhf.models.pretrained import Pretrained, Tiny, _keep_layers, backbone_of
from rlhf.models.reward_model import RewardModel
from rlhf.records import RecordError

CAUSAL, ENCODERS = ["llama", "gpt2", "qwen2", "gemma3"], ["bert", "roberta", "distilbert"]


def groups(k, size=3, seed=0):
    rng = np.random.default_rng(seed + k)

    def ids(high):
        return rng.integers(5, 250, rng.integers(1, high)).tolist()

    return [ids(30) for _ in range(size)], [[ids(20) for _ in range(k)] for _ in range(size)]


def model_of(name, **options):
    backbone = Backbone(small(name), pooling="mean", **options)
    return RewardModel(backbone, LinearHead(backbone.hidden_size)).double()


def value_and_gradient(model, batches):
    model.zero_grad()
    rewards = torch.cat([model(tokens) for tokens in batches])
    (rewards * torch.linspace(-1, 2, len(rewards), dtype=torch.float64)).tanh().sum().backward()
    return rewards.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("name", CAUSAL + ENCODERS)
def test_the_mean_over_tokens_is_the_same_in_every_layout_and_alone(name, k):
    model = model_of(name)
    prompts, responses = groups(k)
    layout = partial(padded, pad_id=1)
    alone = [layout([p], [[r]]) for p, rs in zip(prompts, responses, strict=True) for r in rs]
    expected, gradient = value_and_gradient(model, alone)
    for other in (layout, packed, *([shared] if name in CAUSAL else [])):
        found, moved = value_and_gradient(model, [other(prompts, responses)])
        assert (found - expected).norm() <= 1e-7 * expected.norm()
        assert (moved - gradient).norm() <= 1e-7 * gradient.norm()


def test_the_mean_is_that_of_the_trunks_states_over_prompt_and_answer():
    model = model_of("llama").eval()
    prompt, answer = [7, 8, 9], [20, 21]
    states = model.backbone.trunk(input_ids=torch.tensor([prompt + answer])).last_hidden_state[0]
    found = model.backbone(packed([prompt], [[answer]]))[0]
    torch.testing.assert_close(found, states.mean(0))


@pytest.mark.parametrize("layers", [1, 2])
def test_fewer_layers_are_the_trunk_cut_by_hand(tmp_path, layers):
    folder = save_causal("llama", tmp_path / "m")
    whole = Pretrained(str(folder))
    tokenizer = whole.tokenizer()
    tokens = packed([[7, 8, 9]], [[[20, 21]]])
    by_hand = backbone_of(whole, tokenizer).eval()
    by_hand.trunk.layers = by_hand.trunk.layers[:layers]
    cut = backbone_of(Pretrained(str(folder), layers=layers), tokenizer).eval()
    padded_tokens = padded([[7, 8, 9]], [[[20, 21]]], pad_id=0)
    torch.testing.assert_close(cut(padded_tokens), by_hand(padded_tokens))
    torch.testing.assert_close(cut(tokens), by_hand(padded_tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [0, -1, 99])
def test_layers_that_are_not_there_are_refused(tmp_path, layers):
    folder = save_causal("llama", tmp_path / "m")
    source = Pretrained(str(folder), layers=layers)
    with pytest.raises(RecordError, match=r"model\.layers.*1 to \d+, or null"):
        source.classifier(source.tokenizer())


def test_an_architecture_without_a_list_of_layers_is_refused():
    config = ResNetConfig()
    assert not hasattr(config, "num_hidden_layers")
    with pytest.raises(RecordError, match=r"model\.layers.*is 1, but a resnet has no list of layers.*null"):
        _keep_layers(config, 1)


def test_surface_features_stand_beside_the_state_of_their_answer_in_every_layout():
    source = Tiny(width=16, depth=1, heads=2, surface=True)
    tokenizer = source.tokenizer()
    backbone = backbone_of(source, tokenizer).eval()
    assert backbone.hidden_size == 16 + len(NAMES)
    texts = ["Yes, of course: 3 things!", "no", "A paragraph.\n\nAnother one? See http://x.org."]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    for layout in (partial(padded, pad_id=0), packed, shared):
        found = backbone(SurfaceLayout(layout, tokenizer)([[5, 6], [7]], [ids[:2], ids[2:]]))
        expected = np.stack([features(text) for text in texts])
        np.testing.assert_allclose(found[:, 16:].detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_features_of_nothing_are_finite():
    for text in ("", " ", "\n\n", "!!!", "👍"):
        assert np.isfinite(features(text)).all()


def test_an_mlp_head_begins_finite_and_every_weight_learns():
    head = MlpHead(8, units=5)
    states = torch.randn(64, 8)
    target = (states[:, 0] * states[:, 1]).sign()  # no linear head can
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = torch.nn.functional.soft_margin_loss(head(states).flatten(), target)
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    assert ((head(states).flatten() > 0) == (target > 0)).float().mean() > 0.9
