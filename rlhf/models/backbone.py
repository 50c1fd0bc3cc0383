"""The trunk: a token layout in, one hidden state per completion out.

A causal model is read at the position of the completion's last token, counted from the left of its row and
never searched for by token id. An encoder is read the way its stock classifier reads it (BERT: [CLS] through
the pooler), so that the exported folder gives the same scores in plain transformers. With pooling=mean both are read
as the mean of the last states over all tokens of prompt and completion: no stock classifier does that.
"""

from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.data.batch import Packed, Padded, States, Surface, Tokens
from rlhf.data.surface import NAMES, SurfaceLayout
from rlhf.data.token_layout import Layout
from rlhf.models.block_attention import ATTENTION, AttentionPlan
from rlhf.models.last_layer import read_only

Pooling = Literal["stock", "mean"]


class Backbone(nn.Module):
    """A stock classifier without its last layer.

    Args:
        classifier: `AutoModelForSequenceClassification` with one label; its last linear layer is cut out.
        pooling: `stock` or `mean`.
        surface: a tokenizer, to put surface features of the completion beside its state (`rlhf.data.surface`).

    Raises:
        ValueError: the classifier has no linear layer with one output.
    """

    def __init__(
        self, classifier: PreTrainedModel, *, pooling: Pooling = "stock", surface: PreTrainedTokenizerBase | None = None
    ) -> None:
        super().__init__()
        self.pooling, self.surface, self.frozen = pooling, surface, False
        self.head_name, last = last_layer(classifier)
        stock, width = pooling == "stock", classifier.config.get_text_config().hidden_size
        self.state_size: int = last.in_features if stock else width
        self.scale: Tensor | None
        self.register_buffer("scale", None)
        self.head_has_bias = last.bias is not None
        self.initial_weight: Tensor = last.weight.detach().clone()
        self.initial_bias: Tensor | None = None if last.bias is None else last.bias.detach().clone()
        self.causal = self.head_name == "score"
        replace(classifier, self.head_name, nn.Identity())
        self.classifier = classifier.train()  # loaders hand it over in evaluation mode
        self.attention: str = classifier.config._attn_implementation
        layers = _layers(classifier)
        self.can_pack = layers is not None and classifier._can_set_attn_implementation()
        if self.can_pack and layers is not None and pooling == "stock":
            read_only(layers[-1])

    @property
    def hidden_size(self) -> int:
        """Width D of what the head reads."""
        return self.state_size + (0 if self.surface is None else len(NAMES))

    @property
    def plain(self) -> bool:
        """Can the stock classifier read states as this does?"""
        return self.pooling == "stock" and self.surface is None

    def with_surface(self, layout: Layout) -> Layout:
        """The layout, with surface features beside the tokens where the head reads them."""
        return layout if self.surface is None else SurfaceLayout(layout, self.surface)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Take the `scale` of a checkpoint too: the head's weights there are for scaled states."""
        stored = state_dict.get(f"{prefix}scale")
        if stored is not None and self.scale is None:
            self.scale = stored.clone()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def train(self, mode: bool = True) -> Self:
        """A frozen trunk stays in evaluation mode."""
        return super().train(mode and not self.frozen)

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
        """Hidden state of every completion, over `scale` [D] where there is one."""
        states = self._read(tokens)
        return states if self.scale is None else states / self.scale.to(states)

    def _read(self, tokens: Tokens) -> Float[Tensor, "N D"]:
        if isinstance(tokens, States):
            return tokens.states
        if isinstance(tokens, Surface):
            states = self._read(tokens.tokens)
            return torch.cat([states, tokens.surface.to(states.dtype)], 1)
        return self._packed(tokens) if isinstance(tokens, Packed) else self._padded(tokens)

    def _padded(self, tokens: Padded) -> Float[Tensor, "N D"]:
        self._attend(self.attention)
        given: dict[str, Any] = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        if self.causal:
            given |= {"position_ids": tokens.position_ids, "use_cache": False}
        elif self.pooling == "stock":
            pooled: Tensor = self.classifier(**given).logits
            return pooled
        states = self.trunk(**given).last_hidden_state
        if self.pooling == "mean":
            mask = tokens.attention_mask.unsqueeze(-1)
            mean: Tensor = (states.to(_wide(states)) * mask).sum(1) / mask.sum(1)
            return mean.to(states.dtype)
        rows = torch.arange(states.shape[0], device=states.device)
        read: Tensor = states[rows, tokens.last]
        return read

    def _packed(self, tokens: Packed) -> Float[Tensor, "N D"]:
        self._attend(ATTENTION)
        positions = tokens.position_ids if self.causal else tokens.position_ids + _first_position(self.classifier)
        given: dict[str, Any] = {
            "input_ids": tokens.input_ids,
            "plan": AttentionPlan(tokens),
            "position_ids": positions,
        }
        if self.causal:
            given["use_cache"] = False
        elif self.pooling == "stock":
            pooled: Tensor = self.classifier(**given).logits
            return pooled
        states = self.trunk(**given).last_hidden_state[0]
        read: Tensor = _means(states, tokens) if self.pooling == "mean" else states.index_select(0, tokens.last)
        return read

    def _attend(self, implementation: str) -> None:
        if self.classifier.config._attn_implementation != implementation:
            self.classifier.set_attn_implementation(implementation)


def _means(states: Float[Tensor, "T D"], tokens: Packed) -> Float[Tensor, "N D"]:
    """Mean over a completion's segment and the prompt it sees, where that is a segment of its own."""
    count = len(tokens.spans)
    wide = states.to(_wide(states))
    total = wide.new_zeros(count, states.shape[1]).index_add(0, tokens.segment, wide)
    length = torch.bincount(tokens.segment, minlength=count).unsqueeze(1)
    own, context = tokens.segment[tokens.first], tokens.context[tokens.first]
    seen = (context >= 0).unsqueeze(1)
    prompt = context.clamp(min=0)
    mean = (total[own] + seen * total[prompt]) / (length[own] + seen * length[prompt])
    return mean.to(states.dtype)


def _wide(states: Tensor) -> torch.dtype:
    """What sums over tokens are taken in."""
    return torch.promote_types(states.dtype, torch.float32)


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
