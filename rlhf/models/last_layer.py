"""The last transformer layer, computed only where it is read.

A reward needs one hidden state per completion. In the last layer every token still gives a key and a value, but
only the tokens that are read need a query, an output projection and a feed-forward block: about a layer's work
is saved, forward and backward. It is done on stock layers with two hooks: before the layer, its keys and values
are taken from the full row, and its inputs are cut down to the places that are read; the layer then finds the
keys and values where it would find a cache.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.models.block_attention import AttentionPlan

CACHES = ("past_key_values", "layer_past")  # names under which transformers' layers take a cache of keys and values


def read_only(layer: nn.Module) -> None:
    """From now on, a call with `plan=` computes only the states that are read; other calls stay as they are.

    A causal layer gives `[1, T, D]` with zeros where nothing is read (the model around it may insist on T); an
    encoder's layer gives `[N, 1, D]`, so that poolers, which read the first token of every row, find theirs.
    """
    layer.register_forward_pre_hook(_cut_inputs, with_kwargs=True)
    layer.register_forward_hook(_place_output, with_kwargs=True)


class _Taken(Exception):
    """Carries keys and values out of a layer before it goes on."""


class _Take:
    def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> None:
        raise _Taken(key, value)


class _Give:
    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.key, self.value = key, value

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self.key, self.value


def _cut_inputs(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    plan: AttentionPlan | None = kwargs.get("plan")
    if plan is None:
        return None
    read = _read(layer, plan)
    signature = inspect.signature(layer.forward)
    cache = next((name for name in CACHES if name in signature.parameters), None)
    if cache is None:
        return None  # the layer has no cache: it is computed in full, and read after
    given = signature.bind(*args, **kwargs).arguments
    rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), "")
    given |= given.pop(rest, {})
    layer.gradient_checkpointing = False  # it would drop the cache, and there is little left to recompute
    try:
        layer.forward(**given | {cache: _Take()})
        raise RuntimeError(f"{type(layer).__name__} did not ask its cache for keys and values")
    except _Taken as taken:
        keys = _Give(*taken.args)
    width = plan.tokens.segment.shape[0]
    cut = {name: _select(value, read, width) for name, value in given.items()}
    return (), cut | {cache: keys, "plan": AttentionPlan(plan.tokens, read)}


def _place_output(layer: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor) -> Tensor:
    plan: AttentionPlan | None = kwargs.get("plan")
    if plan is None:
        return output
    if not _is_causal(layer):
        return (output if plan.read is not None else output[:, _read(layer, plan)]).transpose(0, 1)
    if plan.read is None:
        return output
    row = output.new_zeros(1, plan.tokens.segment.shape[0], output.shape[-1])
    return row.index_copy(1, plan.read, output)


def _read(layer: nn.Module, plan: AttentionPlan) -> Tensor:
    """Where completions are read: at their last token in a causal model, at their first in an encoder."""
    return plan.tokens.last if _is_causal(layer) else plan.tokens.first


def _is_causal(layer: nn.Module) -> bool:
    return any(getattr(module, "is_causal", False) for module in layer.modules())


def _select(value: Any, read: Tensor, width: int) -> Any:
    """The rows `read` of whatever has one row per token."""
    if isinstance(value, tuple):
        return tuple(_select(v, read, width) for v in value)
    if isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == width:
        return torch.index_select(value, 1, read)
    return value
