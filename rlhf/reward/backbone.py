"""The trunk: a token layout in, one hidden state per completion out.

A causal model is read at the position of the completion's last token, counted from the left of its row and
never searched for by token id. An encoder is read the way its stock classifier reads it (BERT: [CLS] through
the pooler), so that the exported folder gives the same scores in plain transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.data.batch import Padded


class Backbone(nn.Module):
    """A stock classifier without its last layer.

    Args:
        carrier: `AutoModelForSequenceClassification` with one label; its last linear layer is cut out.

    Raises:
        ValueError: the carrier has no linear layer with one output.
    """

    def __init__(self, carrier: PreTrainedModel) -> None:
        super().__init__()
        self.head_name, last = last_layer(carrier)
        self.hidden_size: int = last.in_features
        self.head_has_bias = last.bias is not None
        self.initial_weight: Tensor = last.weight.detach().clone()
        self.initial_bias: Tensor | None = None if last.bias is None else last.bias.detach().clone()
        self.causal = self.head_name == "score"
        replace(carrier, self.head_name, nn.Identity())
        self.carrier = carrier.train()  # loaders hand it over in evaluation mode

    @property
    def trunk(self) -> nn.Module:
        """The bare transformer inside the carrier; adapters wrap this."""
        trunk: nn.Module = getattr(self.carrier, self.carrier.base_model_prefix)
        return trunk

    def put_trunk(self, module: nn.Module) -> None:
        """Put another module (adapted, merged) in the trunk's place."""
        setattr(self.carrier, self.carrier.base_model_prefix, module)

    def forward(self, tokens: Padded) -> Float[Tensor, "N D"]:
        """Hidden state of every completion."""
        if not self.causal:
            out = self.carrier(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
            pooled: Tensor = out.logits
            return pooled
        states = self.trunk(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            position_ids=tokens.position_ids,
            use_cache=False,
        ).last_hidden_state
        rows = torch.arange(states.shape[0], device=states.device)
        read: Tensor = states[rows, tokens.last]
        return read


def last_layer(carrier: PreTrainedModel) -> tuple[str, nn.Linear]:
    """Name and module of the carrier's last linear layer, the one with a single output, outside the trunk."""
    prefix = carrier.base_model_prefix + "."
    found = [
        (name, module)
        for name, module in carrier.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1 and not name.startswith(prefix)
    ]
    if not found:
        raise ValueError(
            f"{type(carrier).__name__} has no linear layer with one output to put a reward head on"
        )
    return found[-1]


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place of the submodule with the dotted `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def encoder_only(backbone: Backbone) -> dict[str, Any]:
    """Parameters of an encoder's carrier that lie outside its trunk (pooling layers of the classifier)."""
    prefix = backbone.carrier.base_model_prefix + "."
    return {n: p for n, p in backbone.carrier.named_parameters() if not n.startswith(prefix)}
