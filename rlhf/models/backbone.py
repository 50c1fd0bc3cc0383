"""The trunk: a token layout in, one hidden state per completion out.

A causal model is read at the position of the completion's last token, counted from the left of its row and
never searched for by token id. An encoder is read the way its stock classifier reads it (BERT: [CLS] through
the pooler), so that the exported folder gives the same scores in plain transformers.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.data.batch import Packed, Padded, Tokens
from rlhf.models.block_attention import ATTENTION, AttentionPlan
from rlhf.models.last_layer import read_only


class Backbone(nn.Module):
    """A stock classifier without its last layer.

    Args:
        classifier: `AutoModelForSequenceClassification` with one label; its last linear layer is cut out.

    Raises:
        ValueError: the classifier has no linear layer with one output.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.head_name, last = last_layer(classifier)
        self.hidden_size: int = last.in_features
        self.head_has_bias = last.bias is not None
        self.initial_weight: Tensor = last.weight.detach().clone()
        self.initial_bias: Tensor | None = None if last.bias is None else last.bias.detach().clone()
        self.causal = self.head_name == "score"
        replace(classifier, self.head_name, nn.Identity())
        self.classifier = classifier.train()  # loaders hand it over in evaluation mode
        self.attention: str = classifier.config._attn_implementation
        layers = _layers(classifier)
        self.can_pack = layers is not None and classifier._can_set_attn_implementation()
        if self.can_pack and layers is not None:
            read_only(layers[-1])

    @property
    def trunk(self) -> nn.Module:
        """The bare transformer inside the classifier; adapters wrap this."""
        trunk: nn.Module = getattr(self.classifier, self.classifier.base_model_prefix)
        return trunk

    def compile_layers(self) -> None:
        """torch.compile every layer but the last: one graph for all, whatever the batch; attention stays outside."""
        for layer in (_layers(self.classifier) or [])[:-1]:
            layer.compile(dynamic=True)

    def put_trunk(self, module: nn.Module) -> None:
        """Put another module (adapted, merged) in the trunk's place."""
        setattr(self.classifier, self.classifier.base_model_prefix, module)

    def forward(self, tokens: Tokens) -> Float[Tensor, "N D"]:
        """Hidden state of every completion."""
        return self._packed(tokens) if isinstance(tokens, Packed) else self._padded(tokens)

    def _padded(self, tokens: Padded) -> Float[Tensor, "N D"]:
        self._attend(self.attention)
        if not self.causal:
            out = self.classifier(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
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

    def _packed(self, tokens: Packed) -> Float[Tensor, "N D"]:
        self._attend(ATTENTION)
        given: dict[str, Any] = {"input_ids": tokens.input_ids, "plan": AttentionPlan(tokens)}
        if self.causal:
            states = self.trunk(**given, position_ids=tokens.position_ids, use_cache=False)
            read: Tensor = states.last_hidden_state[0].index_select(0, tokens.last)
            return read
        offset = _first_position(self.classifier)
        pooled: Tensor = self.classifier(**given, position_ids=tokens.position_ids + offset).logits
        return pooled

    def _attend(self, implementation: str) -> None:
        if self.classifier.config._attn_implementation != implementation:
            self.classifier.set_attn_implementation(implementation)


def last_layer(classifier: PreTrainedModel) -> tuple[str, nn.Linear]:
    """Name and module of the classifier's last linear layer, the one with a single output, outside the trunk."""
    prefix = classifier.base_model_prefix + "."
    found = [
        (name, module)
        for name, module in classifier.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1 and not name.startswith(prefix)
    ]
    if not found:
        raise ValueError(f"{type(classifier).__name__} has no linear layer with one output to put a reward head on")
    return found[-1]


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place of the submodule with the dotted `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _layers(classifier: PreTrainedModel) -> nn.ModuleList | None:
    """The stack of transformer layers, or None where it is not one list of as many as the configuration says."""
    depth = getattr(classifier.config.get_text_config(), "num_hidden_layers", None)
    stacks = [m for m in classifier.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    return stacks[0] if len(stacks) == 1 else None


def _first_position(classifier: PreTrainedModel) -> int:
    """RoBERTa counts positions from behind its padding id; everything else from 0."""
    found = (m for n, m in classifier.named_modules() if n.endswith("position_embeddings"))
    padding = getattr(next(found, None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1
