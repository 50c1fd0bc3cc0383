"""Many prompts with their completions at once: packed into batches, every prompt encoded once where the model can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.data.render import Encoded
from rlhf.data.token_layout import Ids, filled, shared
from rlhf.models import layouts
from rlhf.reward.scoring.scorer import Scorer


@dataclass(frozen=True)
class GroupScores:
    """What is known of one group's K completions.

    members [M, K] or [K]   rewards, of every member where there are several
    ood_score [K]             share of ordinary answers that are less out of distribution, see `Scorer.ood_score`;
                              None = no statistics
    """

    members: Float[Tensor, "*M K"]
    ood_score: list[float] | None = None


@dataclass(frozen=True)
class Piece:
    """Completions of one group that go into one batch; `group` is its place among the groups."""

    group: int
    prompt: Ids
    responses: Sequence[Ids]


class GroupScorer:
    """The scores of a `Scorer`, to float32 rounding, in the layout that training would choose.

    Args:
        scorer: what `rlhf.load` gives.
        batch_tokens: tokens per forward pass, at most; a single completion may be longer.
        detector: of the out-of-distribution score, where the model's folder holds the statistics.
    """

    def __init__(self, scorer: Scorer, *, batch_tokens: int = 8192, detector: str = "mahalanobis") -> None:
        self.scorer, self.batch_tokens, self.detector = scorer, batch_tokens, detector
        renderer = scorer.renderer
        self.layout = layouts.auto(
            scorer.model.backbone, pad_id=int(renderer.tokenizer.pad_token_id), max_length=renderer.max_length
        )

    @property
    def layout_name(self) -> str:
        """`shared`, `packed` or `padded`."""
        return str(getattr(self.layout, "func", self.layout).__name__)

    @property
    def has_ood_statistics(self) -> bool:
        """Does the model's folder hold the statistics of this detector?"""
        reference = self.scorer.reference
        return reference is not None and self.detector in reference.typical

    def score(self, groups: Sequence[Encoded]) -> list[GroupScores]:
        """Rewards of every group's completions, and their out-of-distribution scores."""
        parts: list[list[Tensor]] = [[] for _ in groups]
        for batch in self._batches(groups):
            for piece, states in zip(batch, self._states(batch), strict=True):
                parts[piece.group].append(states)
        return [self._scores(torch.cat(part)) for part in parts]

    def combine(self, members: Float[Tensor, "*M K"]) -> list[float]:
        """The one reward per completion, as `Scorer.score` gives it."""
        rewards: list[float] = self.scorer.model.head.combine(members).tolist()
        return rewards

    def tokens(self, encoded: Encoded) -> int:
        """Tokens that scoring a group costs."""
        return self._cost(encoded.prompt, encoded.responses)

    @torch.inference_mode()
    def _states(self, batch: Sequence[Piece]) -> tuple[Float[Tensor, "K D"], ...]:
        model = self.scorer.model
        tokens = self.layout([p.prompt for p in batch], [p.responses for p in batch])
        states: Tensor = model.backbone(tokens.to(next(model.parameters()).device))
        return torch.split(states, [len(p.responses) for p in batch])

    @torch.inference_mode()
    def _scores(self, states: Float[Tensor, "K D"]) -> GroupScores:
        members = self.scorer.model.head(states).cpu()
        reference = self.scorer.reference
        if reference is None or self.detector not in reference.typical:
            return GroupScores(members)
        found = reference.detect(states.float().cpu().numpy())[self.detector]
        return GroupScores(members, reference.ood_score(self.detector, found).tolist())

    def _batches(self, groups: Sequence[Encoded]) -> Iterator[list[Piece]]:
        return filled(self._pieces(groups), lambda p: self._cost(p.prompt, p.responses), self.batch_tokens)

    def _pieces(self, groups: Sequence[Encoded]) -> Iterator[Piece]:
        """Groups, the ones larger than a batch cut between completions."""
        for number, group in enumerate(groups):
            taken: list[Ids] = []
            for response in group.responses:
                if taken and self._cost(group.prompt, [*taken, response]) > self.batch_tokens:
                    yield Piece(number, group.prompt, taken)
                    taken = []
                taken.append(response)
            yield Piece(number, group.prompt, taken)

    def _cost(self, prompt: Ids, responses: Sequence[Ids]) -> int:
        times = 1 if self.layout is shared else len(responses)
        return len(prompt) * times + sum(map(len, responses))
