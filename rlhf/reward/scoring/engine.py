"""The one way to score: groups of tokens in, rewards and pooled hidden states out, in batches that keep to a budget.

Everything that scores with a reward model calls it: `rlhf.load(...).score`, evaluation, best of n, the service, the
reward of a policy, reward functions for other trainers, and pools of any size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby, islice
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.data.batch import Tokens
from rlhf.data.render import Encoded
from rlhf.data.token_layout import Ids, Layout, bare, filled, occupied, pads_rows, row_lengths
from rlhf.models.layouts import auto
from rlhf.models.reward_model import RewardModel

ChooseLayout = Callable[..., Layout]
"""`(backbone, pad_id=..., max_length=...) -> layout`: `auto` of `rlhf.models.layouts`, or a fixed one."""
SORTED_TOGETHER = 256
"""Pieces that are sorted by length before they are padded: enough for rows of one batch to be about equally long."""


class GroupScores(NamedTuple):
    """Scores of K completions, on the CPU and without gradient.

    reward   [K]            the one reward that is reported and optimised
    members  [M, K] or [K]  rewards of every member, where there are several; float32 or wider, as `reward`
    states   [K, D]         pooled hidden states that the head reads, float32
    """

    reward: Float[Tensor, " K"]
    members: Float[Tensor, "*M K"]
    states: Float[Tensor, "K D"]

    @property
    def rows(self) -> Float[Tensor, "M K"]:
        """The members, one row where there is one."""
        return self.members if self.members.ndim == 2 else self.members[None]


@dataclass(frozen=True)
class Piece:
    """Completions of one group that lie in one batch; `group` is the number of the group."""

    group: int
    prompt: Ids
    responses: Sequence[Ids]


@torch.inference_mode()
def forward(model: RewardModel, tokens: Tokens, precision: torch.dtype | None = None) -> GroupScores:
    """One pass on the model's own device.

    Args:
        model: in evaluation mode.
        tokens: N completions on any device.
        precision: of products, by autocast; None = that of the weights, whatever autocast is around the call.

    Returns:
        Scores of the N completions in their order.
    """
    device = next(model.parameters()).device
    with torch.autocast(device.type, precision, enabled=precision is not None):
        states: Tensor = model.backbone(tokens.to(device))
    return _read(model, states)


class ScoringEngine:
    """Scores groups of tokens with a reward model, in the layout that training would choose.

    Args:
        model: put into evaluation mode.
        pad_id: of the padded layout; it is masked.
        max_length: the most tokens of a prompt and a completion; a sliding window must reach over them.
        batch_tokens: tokens that a batch takes up in memory, padding included, at most; a single completion may be
            longer.
        layout: chooses the token layout, on the first use.
        precision: of products, see `forward`.
    """

    def __init__(
        self,
        model: RewardModel,
        *,
        pad_id: int,
        max_length: int,
        batch_tokens: int = 8192,
        layout: ChooseLayout = auto,
        precision: torch.dtype | None = None,
    ) -> None:
        self.model, self.batch_tokens, self.precision = model.eval(), batch_tokens, precision
        self._choose, self._limits = layout, {"pad_id": pad_id, "max_length": max_length}

    @cached_property
    def layout(self) -> Layout:
        """Where tokens lie; see `rlhf.data.token_layout`."""
        backbone = self.model.backbone
        return backbone.with_surface(self._choose(backbone, **self._limits))

    @property
    def layout_name(self) -> str:
        """`shared`, `packed` or `padded`."""
        return str(bare(self.layout).__name__)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> None:
        """Score on another device from now on."""
        self.model.to(device)

    def tokens(self, group: Encoded) -> int:
        """Tokens that a group takes up by itself."""
        return occupied(row_lengths(self.layout, group.prompt, group.responses), pads_rows(self.layout))

    def score(self, groups: Iterable[Encoded]) -> Iterator[GroupScores]:
        """Scores of every group's completions that are kept, in the order of the groups.

        Groups are read as a stream, no further ahead than a batch needs. A group larger than a batch is cut between
        completions; one without completions gets scores of none.
        """
        for _, parts in groupby(self._scored(groups), key=lambda found: found[0]):
            scores = [found for _, found in parts]
            yield scores[0] if len(scores) == 1 else joined(scores)

    def _scored(self, groups: Iterable[Encoded]) -> Iterator[tuple[int, GroupScores]]:
        """Scores of the pieces in order, with the number of their group."""
        pieces = self._pieces(groups)
        if not pads_rows(self.layout):
            yield from self._batches(pieces)
            return
        while block := list(islice(pieces, SORTED_TOGETHER)):
            order = sorted(range(len(block)), key=lambda i: max(self._rows(block[i]), default=0))
            found = dict(zip(order, self._batches(block[i] for i in order), strict=True))
            yield from (found[i] for i in range(len(block)))

    def _batches(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, GroupScores]]:
        batches = filled(pieces, self._rows, self.batch_tokens, pads=pads_rows(self.layout))
        return chain.from_iterable(map(self._forward, batches))

    def _forward(self, batch: Sequence[Piece]) -> Iterator[tuple[int, GroupScores]]:
        read = [piece for piece in batch if piece.responses]
        if read:
            tokens = self.layout([p.prompt for p in read], [p.responses for p in read])
            scores = forward(self.model, tokens, self.precision)
        else:
            scores = _nothing(self.model)
        sizes = [len(piece.responses) for piece in batch]
        parts = (torch.split(column, sizes, dim) for column, dim in zip(scores, (-1, -1, 0), strict=True))
        return ((p.group, GroupScores(*s)) for p, *s in zip(batch, *parts, strict=True))

    def _pieces(self, groups: Iterable[Encoded]) -> Iterator[Piece]:
        """Groups, the ones larger than a batch cut between completions."""
        for number, group in enumerate(groups):
            taken: list[Ids] = []
            for response in group.responses:
                more = Piece(number, group.prompt, [*taken, response])
                if taken and occupied(self._rows(more), pads_rows(self.layout)) > self.batch_tokens:
                    yield Piece(number, group.prompt, taken)
                    taken = []
                taken.append(response)
            yield Piece(number, group.prompt, taken)

    def _rows(self, piece: Piece) -> list[int]:
        return row_lengths(self.layout, piece.prompt, piece.responses)


def _read(model: RewardModel, states: Float[Tensor, "N D"]) -> GroupScores:
    """What the head says of states: in float32 or wider, autocast or not."""
    with torch.autocast(states.device.type, enabled=False):
        members = model.head(states)
        reward = model.head.combine(members)
    return GroupScores(reward.cpu(), members.cpu(), states.float().cpu())


@torch.inference_mode()
def _nothing(model: RewardModel) -> GroupScores:
    """Scores of no completion."""
    return _read(model, model.head.weight.new_zeros(0, model.backbone.hidden_size))


def joined(parts: Sequence[GroupScores]) -> GroupScores:
    """Scores of several groups as those of one."""
    return GroupScores(*(torch.cat(c, d) for c, d in zip(zip(*parts, strict=True), (-1, -1, 0), strict=True)))
