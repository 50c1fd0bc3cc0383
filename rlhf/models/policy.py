"""A language model as a policy: log-probabilities of completions, and the reference it is held against."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn

from rlhf.data.batch import Moves
from rlhf.data.token_layout import Ids, pad


@dataclass(frozen=True)
class Spans(Moves):
    """Rows of prompt and completion, padded to the longest.

    response_mask   True on the completion's own tokens, its end token included
    """

    input_ids: Int[Tensor, "N T"]
    attention_mask: Int[Tensor, "N T"]
    position_ids: Int[Tensor, "N T"]
    response_mask: Bool[Tensor, "N T"]

    def take(self, rows: Int[Tensor, " M"]) -> Spans:
        """Some of the rows."""
        return Spans(*(getattr(self, f.name)[rows] for f in fields(self)))


def spans(prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]], *, pad_id: int, left: bool = False) -> Spans:
    """A layout (see `rlhf.data.token_layout`): one row per completion that knows where the completion begins."""
    rows = [(list(p), list(r)) for p, group in zip(prompts, responses, strict=True) for r in group]
    block = pad([p + r for p, r in rows], pad_id, left=left)
    begins = torch.tensor([len(p) for p, _ in rows])
    response_mask = (block.position_ids >= begins[:, None]) & block.attention_mask.bool()
    return Spans(block.input_ids, block.attention_mask, block.position_ids, response_mask)


class CausalPolicy(nn.Module):
    """A policy and its reference: the model with its adapter off, or a frozen copy of the model as it came.

    Args:
        model: a causal language model of transformers, or one with a LoRA on it.
        temperature: divides the logits of both: the temperature that completions are sampled at.
    """

    def __init__(self, model: Any, *, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"policy.temperature={temperature:g} must be positive: a greedy policy has no gradient")
        self.model, self.temperature = model, temperature
        self.frozen: Any = None
        if not isinstance(model, PeftModel):
            self.frozen = copy.deepcopy(model).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """The reference stays in evaluation mode."""
        super().train(mode)
        if self.frozen is not None:
            self.frozen.eval()
        return self

    def logp(self, rows: Spans) -> Float[Tensor, "N T"]:
        """Log-probability of the token at every place given those before it, float32; 0 outside the completion."""
        return token_logp(self.model, rows, self.temperature)

    @torch.no_grad()
    def ref_logp(self, rows: Spans) -> Float[Tensor, "N T"]:
        """The same under the reference, without gradient."""
        with self.reference() as model:
            was_training = model.training
            model.eval()
            logp = token_logp(model, rows, self.temperature)
            model.train(was_training)
            return logp

    @property
    def width(self) -> int:
        """Of `states`."""
        return int(self.model.config.hidden_size)

    @torch.no_grad()
    def states(self, rows: Spans) -> Float[Tensor, "N T H"]:
        """The last hidden state that every token is predicted from: of the place before it; 0 at the first place."""
        out = self.model(
            input_ids=rows.input_ids, attention_mask=rows.attention_mask, position_ids=rows.position_ids,
            output_hidden_states=True, logits_to_keep=1, use_cache=False,
        )  # fmt: skip
        before = out.hidden_states[-1][:, :-1].float()
        return torch.cat([before.new_zeros(len(before), 1, before.shape[2]), before], 1)

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """The reference model, for as long as the context lasts."""
        if self.frozen is not None:
            yield self.frozen
            return
        with self.model.disable_adapter():
            yield self.model

    def plain(self) -> Any:
        """A copy on the CPU without adapter, as transformers saves it."""
        model = copy.deepcopy(self.model).cpu()
        return model.merge_and_unload() if isinstance(model, PeftModel) else model


def token_logp(model: Any, rows: Spans, temperature: float = 1.0) -> Float[Tensor, "N T"]:
    """Log-probability of the token given those before it, at every place of a completion, 0 elsewhere.

    Places that no completion of the batch reaches are never turned into logits of the vocabulary.
    """
    used = rows.response_mask.any(0).nonzero()
    first = max(int(used[0]), 1) if len(used) else 1
    out = model(
        input_ids=rows.input_ids, attention_mask=rows.attention_mask, position_ids=rows.position_ids,
        logits_to_keep=rows.input_ids.shape[1] - first + 1, use_cache=False,
    )  # fmt: skip
    logits = out.logits[:, :-1].float() / temperature
    taken = logits.gather(2, rows.input_ids[:, first:, None])[..., 0] - logits.logsumexp(-1)
    taken = torch.where(rows.response_mask[:, first:], taken, 0.0)
    return torch.cat([taken.new_zeros(len(taken), first), taken], 1)
