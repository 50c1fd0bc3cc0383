"""QLoRA: 4-bit weights give the gradients of their float values, and export as a plain float model."""

import copy

import pytest
import torch
from model_zoo import small

from rlhf.data.token_layout import pad, shared
from rlhf.models.backbone import Backbone, replace
from rlhf.models.heads import LinearHead
from rlhf.models.lora import Lora
from rlhf.models.pretrained import Pretrained, Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.reward.export import _plain

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    plain = small("llama", hidden_size=128, intermediate_size=256)
    plain.save_pretrained(folder)
    Tiny().tokenizer().save_pretrained(folder)
    model_source = Pretrained(str(folder), load_in_4bit=True)
    backbone = Lora(rank=4)(Backbone(model_source.classifier(model_source.tokenizer())))
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return RewardModel(backbone, LinearHead(backbone.hidden_size))


def floating(model):
    """The same model with every 4-bit layer as the float layer it stands for."""
    from bitsandbytes.functional import dequantize_4bit

    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if state is not None and not hasattr(layer, "base_layer"):
            weight = dequantize_4bit(layer.weight.data, state).float()
            linear = torch.nn.Linear(*weight.shape[::-1], bias=False)
            linear.weight.data.copy_(weight)
            replace(model, name, linear.requires_grad_(False))
    return model


ROWS = [[5, 6, 7, 8, 9], [5, 6, 7, 10]]
LAYOUTS = {"padded": pad(ROWS, 0), "shared": shared([[5, 6, 7]], [[[8, 9], [10]]]), "one token": pad([[7]], 0)}


def gradient(model, tokens):
    model.train().zero_grad()
    model(tokens).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_those_of_the_float_values_of_the_weights(model, layout):
    found, expected = gradient(model, LAYOUTS[layout]), gradient(floating(model), LAYOUTS[layout])
    assert found.shape == expected.shape
    assert (found - expected).norm() < 0.03 * expected.norm()


def test_only_adapter_and_head_are_trained_and_the_head_is_float32(model):
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert all("lora" in n or n == "head.weight" for n in trained)
    assert "head.weight" in trained
    assert model.head.weight.dtype == torch.float32


def test_the_exported_copy_is_plain_and_scores_like_the_float_values(model):
    tokens = LAYOUTS["padded"]
    plain = _plain(model.eval())
    assert all(p.dtype == torch.float32 for p in plain.parameters())
    torch.testing.assert_close(plain.eval()(tokens), floating(model).eval()(tokens), atol=1e-5, rtol=1e-5)
