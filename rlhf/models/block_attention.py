"""Exact attention over a packed row, without a T x T mask.

A token of segment s sees its own segment and, where s has a context, all of that segment. So the row is a list
of small dense blocks: queries of s on keys of s (causal or not) and queries of s on keys of its context. Each
block gives an output and a log-sum-exp; two blocks over the same queries are one softmax over the union of
their keys, merged by

    lse = log(exp(lse_a) + exp(lse_b)),   out = exp(lse_a - lse) out_a + exp(lse_b - lse) out_b

(Milakov & Gimelshein 2018; Dao et al. 2022, sec. 3.1). The backward pass of each block takes the merged output
and log-sum-exp, from which it recomputes its share of the softmax.

`ATTENTION` is registered with transformers, so that stock models call it; the `plan` keyword reaches it through
their `**kwargs`. CPU: flash kernels block by block. Elsewhere: FlexAttention with a block mask.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface

from rlhf.data.batch import Packed

ATTENTION = "rlhf_blocks"  # name of this attention in transformers' `attn_implementation`

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class AttentionPlan:
    """Which queries see which keys of a packed row.

    tokens  the row of T keys
    read    places in the row that are queries; None = every token is
    """

    tokens: Packed
    read: Int[Tensor, " Q"] | None = None
    _known_blocks: dict[bool, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _known_masks: dict[bool, Any] = field(default_factory=dict, repr=False)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence (context and own segment)."""
        return int(self.tokens.position_ids.max()) + 1

    def blocks(self, causal: bool) -> tuple[Tensor, Tensor]:
        """Dense blocks as rows (first query, last + 1, first key, last + 1): own segments, contexts."""
        if causal not in self._known_blocks:
            self._known_blocks[causal] = self._blocks(causal)
        return self._known_blocks[causal]

    def block_mask(self, causal: bool) -> Any:
        """FlexAttention's mask of the same attention."""
        if causal not in self._known_masks:
            self._known_masks[causal] = _block_mask(self, causal)
        return self._known_masks[causal]

    def _blocks(self, causal: bool) -> tuple[Tensor, Tensor]:
        queries = list(self._queries(causal))
        spans = self.tokens.spans
        own = [(start, stop, first, last) for start, stop, first, last, _ in queries]
        context = []
        for seen, run in groupby(queries, key=lambda query: query[4]):
            rows = list(run)
            if seen >= 0:
                context.append((rows[0][0], rows[-1][1], *spans[seen][:2]))
        return torch.tensor(own), torch.tensor(context, dtype=torch.int64).reshape(-1, 4)

    def _queries(self, causal: bool) -> Iterator[tuple[int, int, int, int, int]]:
        """(first query, last + 1, first key, last + 1, context) of every run of queries in one segment."""
        spans = self.tokens.spans
        if self.read is None:
            yield from ((start, stop, start, stop, context) for start, stop, context in spans)
            return
        segments = self.tokens.segment[self.read].tolist()
        for row, (place, segment) in enumerate(zip(self.read.tolist(), segments, strict=True)):
            start, stop, context = spans[segment]
            yield row, row + 1, start, place + 1 if causal else stop, context


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a plan differs from batch to batch
def block_attention(
    module: nn.Module,
    query: Float[Tensor, "1 H Q D"],
    key: Float[Tensor, "1 G T D"],
    value: Float[Tensor, "1 G T D"],
    attention_mask: Tensor | None,
    *,
    scaling: float,
    plan: AttentionPlan,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "1 Q H D"], None]:
    """Attention as transformers calls it; H query heads share G key heads.

    Raises:
        ValueError: the layer asks for what blocks cannot do exactly (dropout on attention weights, soft caps,
            attention sinks, a sliding window shorter than the longest sequence).
    """
    if dropout or softcap is not None or s_aux is not None:
        raise ValueError("block attention has no dropout on weights, soft cap or sink: layout=padded")
    if sliding_window is not None and sliding_window < plan.longest:
        raise ValueError(f"a sliding window of {sliding_window} tokens is shorter than the sequences: layout=padded")
    causal = bool(getattr(module, "is_causal", True))
    if query.is_cpu:
        own, context = plan.blocks(causal)
        out: Tensor = blocks_cpu(query, key, value, own, context, causal, scaling)[0]
    else:
        grouped = query.shape[1] != key.shape[1]
        out = _flex()(query, key, value, block_mask=plan.block_mask(causal), scale=scaling, enable_gqa=grouped)
    return out.transpose(1, 2), None


AttentionInterface.register(ATTENTION, block_attention)


@torch.library.custom_op("rlhf::blocks_cpu", mutates_args=())
def blocks_cpu(
    query: Tensor, key: Tensor, value: Tensor, own: Tensor, context: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention block by block on the CPU: output `[1, H, Q, D]` and log-sum-exp `[1, H, Q]`."""
    wide = _widened(query)
    q, k, v = query.to(wide), key.to(wide), value.to(wide)
    heads, queries, size = q.shape[1:]
    out = q.new_empty(1, queries, heads, size).transpose(1, 2)
    total = q.new_empty(1, heads, queries)
    for q0, q1, k0, k1 in own.tolist():
        part = _flash(q[:, :, q0:q1], k[:, :, k0:k1], v[:, :, k0:k1], 0.0, causal and q1 - q0 > 1, scale=scale)
        out[:, :, q0:q1], total[:, :, q0:q1] = part
    for q0, q1, k0, k1 in context.tolist():
        more, lse = _flash(q[:, :, q0:q1], k[:, :, k0:k1], v[:, :, k0:k1], 0.0, False, scale=scale)
        before = total[:, :, q0:q1]
        merged = torch.logaddexp(before, lse)
        out[:, :, q0:q1].mul_((before - merged).exp_()[..., None]).add_(more.mul_((lse - merged).exp_()[..., None]))
        total[:, :, q0:q1] = merged
    return out.to(query.dtype), total


@blocks_cpu.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, own: Tensor, context: Tensor, causal: bool, scale: float) -> Any:
    _, heads, queries, size = query.shape
    out = query.new_empty(1, queries, heads, size).transpose(1, 2)
    return out, query.new_empty(1, heads, queries, dtype=_widened(query))


@torch.library.custom_op("rlhf::blocks_cpu_backward", mutates_args=())
def blocks_cpu_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, total: Tensor,
    own: Tensor, context: Tensor, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of query, key and value."""
    wide = total.dtype
    g, q, k, v, o = (x.to(wide) for x in (grad, query, key, value, out))
    dq, dk, dv = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    for blocks, triangular in ((own, causal), (context, False)):
        for q0, q1, k0, k1 in blocks.tolist():
            rows, keys = slice(q0, q1), slice(k0, k1)
            parts = _flash_backward(
                g[:, :, rows], q[:, :, rows], k[:, :, keys], v[:, :, keys], o[:, :, rows], total[:, :, rows],
                0.0, triangular and q1 - q0 > 1, scale=scale,
            )  # fmt: skip
            dq[:, :, rows] += parts[0]
            dk[:, :, keys] += parts[1]
            dv[:, :, keys] += parts[2]
    return dq.to(query.dtype), dk.to(key.dtype), dv.to(value.dtype)


@blocks_cpu_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Any:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value))


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
    query, key, value, own, context, out, total = ctx.saved_tensors
    grads = blocks_cpu_backward(grad, query, key, value, out, total, own, context, ctx.causal, ctx.scale)
    return *grads, None, None, None, None


blocks_cpu.register_autograd(_backward, setup_context=_save)


def _widened(query: Tensor) -> torch.dtype:
    """The CPU's flash backward is slower in half precision than in float32."""
    return torch.promote_types(query.dtype, torch.float32)


def _block_mask(plan: AttentionPlan, causal: bool) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    tokens = plan.tokens
    segment = tokens.segment
    places = torch.arange(len(segment), device=segment.device) if plan.read is None else plan.read
    own, context = segment[places], tokens.context[places]

    def sees(_: Tensor, __: Tensor, q: Tensor, k: Tensor) -> Tensor:
        inside = own[q] == segment[k]
        if causal:
            inside = inside & (places[q] >= k)
        return inside | (context[q] == segment[k])

    return create_block_mask(sees, None, None, len(places), len(segment), device=segment.device)


@cache
def _flex() -> Any:
    """FlexAttention, compiled once: uncompiled it builds the whole score matrix."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)
