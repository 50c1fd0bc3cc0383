"""Rollouts: what a policy answered, and how to ask again how likely it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rlhf.collect.decoding import Decoding
from rlhf.collect.prompts import Task
from rlhf.collect.sampling import Draft
from rlhf.collect.transformers_policy import generation
from rlhf.data.render import Renderer
from rlhf.data.token_layout import pad
from rlhf.models.policy import CausalPolicy, Spans, spans
from rlhf.optimise.shaping.rules import Completions
from rlhf.records import Prompt, RecordError


@dataclass(frozen=True)
class Rollout:
    """G completions for each of P prompts, B = P · G in all, a prompt's completions side by side.

    completions  as rules see them
    group [B]   prompt of every completion
    mask [B, T] where `RolloutPolicy.logp` is a choice of the policy
    state       whatever the policy needs to give `logp` again
    """

    completions: Completions
    group: Int[Tensor, " B"]
    mask: Bool[Tensor, "B T"]
    state: Any


class RolloutPolicy(Protocol):
    """A policy in training, with its reference."""

    def rollout(
        self, tasks: Sequence[Task], g: int, *, reference: bool = False, decoding: Decoding | None = None
    ) -> Rollout:
        """G completions per prompt, drawn with torch's global generator, from the policy or its reference.

        They are decoded as in training; otherwise `logp` is not the log-probability they were drawn with.
        """

    def trimmed(self, tasks: Sequence[Task]) -> int:
        """How many of these prompts lose their beginning before they are read."""

    width: int
    """Of `states`."""

    def logp(self, rollout: Rollout, rows: Int[Tensor, " M"] | None = None) -> Float[Tensor, "B T"]:
        """Log-probabilities under the policy, with gradient; with `rows`, of these completions only."""

    def states(self, rollout: Rollout) -> Float[Tensor, "B T H"]:
        """What is known before every token, as features of a value head; without gradient."""

    def ref_logp(self, rollout: Rollout) -> Float[Tensor, "B T"]:
        """Log-probabilities under the reference."""


class CausalRolloutPolicy(nn.Module):
    """A language model as a policy in training.

    Args:
        policy: model and reference.
        renderer: texts to tokens.
        decoding: must leave the distribution whole (top_p 1, top_k 0, min_p 0): log-probabilities are those of the
            whole distribution at this temperature, and anything cut off would bias the KL.
        max_new_tokens: length limit of a completion. Of prompts that do not fit beside it into the renderer's
            `max_length` the end is read; `trimmed` counts them.

    Raises:
        RecordError: the decoding cuts something off, or is greedy.
    """

    def __init__(self, policy: CausalPolicy, renderer: Renderer, *, decoding: Decoding, max_new_tokens: int) -> None:
        super().__init__()
        check_whole_distribution(decoding)
        policy.temperature = decoding.temperature
        self.policy, self.renderer = policy, renderer
        self.decoding, self.max_new_tokens = decoding, max_new_tokens

    @property
    def room(self) -> int:
        """Tokens of a prompt that fit beside the longest completion."""
        return max(1, self.renderer.max_length - self.max_new_tokens)

    def trimmed(self, tasks: Sequence[Task]) -> int:
        """How many of these prompts have more tokens than there is room for."""
        return sum(len(self.renderer.opening_ids(task.prompt)) > self.room for task in tasks)

    @torch.no_grad()
    def rollout(
        self, tasks: Sequence[Task], g: int, *, reference: bool = False, decoding: Decoding | None = None
    ) -> Rollout:
        """G completions per prompt."""
        tokenizer: Any = self.renderer.tokenizer
        prompts = [self.renderer.opening_ids(t.prompt)[-self.room :] for t in tasks]
        device = next(self.policy.model.parameters()).device
        block = pad([p for p in prompts for _ in range(g)], tokenizer.pad_token_id, left=True).to(device)
        with self.policy.reference() if reference else nullcontext(self.policy.model) as model:
            was_training = model.training
            out = model.eval().generate(
                block.input_ids,
                attention_mask=block.attention_mask,
                generation_config=generation(tokenizer, decoding or self.decoding, self.max_new_tokens, ()),
                use_cache=True,
            )
            model.train(was_training)
        said = [until(row, tokenizer.eos_token_id) for row in out[:, block.input_ids.shape[1] :].tolist()]
        per_prompt = [said[i * g : (i + 1) * g] for i in range(len(tasks))]
        rows = spans(prompts, per_prompt, pad_id=tokenizer.pad_token_id).to(device)
        ended = torch.tensor([bool(s) and s[-1] == tokenizer.eos_token_id for s in said], device=device)
        texts = [tokenizer.decode(s, skip_special_tokens=True).strip() for s in said]
        group = torch.arange(len(tasks), device=device).repeat_interleave(g)
        answers = Completions(rows.input_ids, rows.response_mask, ended, texts)
        return Rollout(answers, group, rows.response_mask, rows)

    @property
    def width(self) -> int:
        """Of `states`: the model's hidden size."""
        return self.policy.width

    def logp(self, rollout: Rollout, rows: Int[Tensor, " M"] | None = None) -> Float[Tensor, "B T"]:
        """Log-probabilities of the tokens."""
        state: Spans = rollout.state
        return self.policy.logp(state if rows is None else state.take(rows))

    def states(self, rollout: Rollout) -> Float[Tensor, "B T H"]:
        """The policy's hidden states."""
        return self.policy.states(rollout.state)

    def ref_logp(self, rollout: Rollout) -> Float[Tensor, "B T"]:
        """The same under the reference."""
        return self.policy.ref_logp(rollout.state)


def check_whole_distribution(decoding: Decoding, key: str = "decoding") -> None:
    """Raise RecordError, of that key, where the decoding is not the whole distribution, or greedy."""
    if decoding.temperature == 0 or (decoding.top_p, decoding.top_k, decoding.min_p) != (1, 0, 0):
        raise RecordError(
            f"{decoding.as_dict()}: a policy is trained on samples of its whole distribution", key=key,
            remedy="temperature > 0, top_p=1, top_k=0, min_p=0",
        )  # fmt: skip


def until(ids: list[int], end: int) -> list[int]:
    """The ids up to the first end token, that one included."""
    return ids[: ids.index(end) + 1] if end in ids else ids


@contextmanager
def isolated_seed(seed: int) -> Iterator[None]:
    """Draw with another seed without moving the random state of the training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@dataclass
class CollectPolicy:
    """A policy in training as one that `rlhf.collect` samples from: every completion under a seed of its own.

    It is asked for one completion at a time; `name` and `checkpoint` are for the provenance.
    """

    policy: RolloutPolicy
    name: str
    checkpoint: str

    @property
    def provenance(self) -> dict[str, Any]:
        """Name and checkpoint."""
        return {"model": self.name, "checkpoint": self.checkpoint}

    def answer(self, prompt: Prompt, decoding: Decoding, seeds: Sequence[int]) -> list[Draft]:
        """One answer per seed."""
        task = Task("", "", prompt, None, None)
        drafts = []
        for seed in seeds:
            with isolated_seed(seed % 2**63):
                completions = self.policy.rollout([task], 1, decoding=decoding).completions
            drafts.append(Draft(completions.texts[0], bool(completions.ended[0]), int(completions.mask.sum())))
        return drafts
