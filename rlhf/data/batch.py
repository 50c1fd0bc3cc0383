"""THE legend of dimensions: what is in a batch, field by field.

    B   prompts (groups) in the batch
    K   completions of the largest group; smaller groups are padded, `candidate` says which places are real
    N   completions in the batch, all groups together (N = candidate.sum())
    T   tokens of the longest row
    A   attributes (Likert criteria); 0 where there are none
    R   rankings of the group that has most
    M   members of an ensemble; a leading dimension of rewards wherever there is one
    S   segments of a packed row: runs of tokens that attend to each other (a prompt, a completion, or both)

Losses and metrics see rewards as `reward[..., B, K]` beside a `Target`; the trunk sees a token layout and
gives one hidden state per completion, in the order of `group` and `place`.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor


class Moves:
    """`.to()` and `.pin_memory()` for a dataclass of tensors: what Lightning asks of a batch."""

    def _map(self, method: str, *args: object, **kwargs: object) -> Self:
        parts = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # a dataclass
        moved = {k: getattr(v, method)(*args, **kwargs) if hasattr(v, method) else v for k, v in parts.items()}
        return type(self)(**moved)

    def to(self, device: torch.device | str, **kwargs: object) -> Self:
        """Every tensor on `device`."""
        return self._map("to", device, **kwargs)

    def pin_memory(self) -> Self:
        """Every tensor in page-locked memory, for asynchronous copies to a GPU."""
        return self._map("pin_memory")


@dataclass(frozen=True)
class Target(Moves):
    """What the votes say about each group: made by `rlhf.labels.aggregation`, read by losses.

    win_prob   P(i beats j), a tie counting one half for each: win_prob[i,j] + win_prob[j,i] = 1 where
               observed, 0 where not
    tie_prob   share of ties among the votes on (i, j), symmetric; P(i strictly beats j) = win_prob - tie_prob/2
    observed   was (i, j) compared at all; symmetric, False on the diagonal and on padding
    margin     stated strength of the preference between i and j, >= 0, symmetric, 0 where none was stated
    rank       0 = best, equal = tied, -1 = no place in an order (padding too); among the completions
               that votes connect
    score      mean Likert rating per attribute, NaN where nobody rated (padding too)
    candidate  True for a real completion, False for padding
    weight     how much the group counts in the loss; 1 unless the aggregation says otherwise
    pair_weight   how much each observed pair counts: the number of records that compared it, over the probability
               that a block holds it; symmetric, 0 where not observed; None = 1 each
    rankings   place of each completion in each ranking that was voted: 0 = best, equal = tied, -1 = not in it (padding
               too). A vote on three or more is a ranking, and so is one on two of these; None = `rank` is the only one
    ranking_weight   how much each counts: those of the same completions together 1, or the number of records that
               ranked them, over the probability of a block; 0 for padding
    prompt_pairs  weight of all pairs of the group's prompt, of which a block holds some; None = the group holds all
    """

    win_prob: Float[Tensor, "B K K"]
    tie_prob: Float[Tensor, "B K K"]
    observed: Bool[Tensor, "B K K"]
    margin: Float[Tensor, "B K K"]
    rank: Int[Tensor, "B K"]
    score: Float[Tensor, "B K A"]
    candidate: Bool[Tensor, "B K"]
    weight: Float[Tensor, " B"]
    pair_weight: Float[Tensor, "B K K"] | None = None
    prompt_pairs: Float[Tensor, " B"] | None = None
    rankings: Int[Tensor, "B R K"] | None = None
    ranking_weight: Float[Tensor, "B R"] | None = None

    def __len__(self) -> int:
        """Number of groups B."""
        return self.weight.shape[0]

    @property
    def weights(self) -> Float[Tensor, "B K K"]:
        """How much each pair i < j counts; 0 elsewhere and where it was not observed."""
        known = self.observed.to(self.win_prob.dtype) if self.pair_weight is None else self.pair_weight
        return torch.where(self.observed, known, 0).triu(1)

    @property
    def pairs(self) -> Float[Tensor, " B"]:
        """Summed weight of the pairs of every group."""
        return self.weights.sum((-2, -1))


@dataclass(frozen=True)
class Padded(Moves):
    """One row per completion: prompt and completion together, padded to the longest row.

    `last` is the position of the completion's last token: where a causal model is read. It is counted from
    the left of the row whatever side the padding is on, and never found by looking for a token id.
    """

    input_ids: Int[Tensor, "N T"]
    attention_mask: Int[Tensor, "N T"]
    position_ids: Int[Tensor, "N T"]
    last: Int[Tensor, " N"]


@dataclass(frozen=True)
class Packed(Moves):
    """All tokens of the batch in one row without padding, cut into segments; made by `rlhf.data.token_layout`.

    input_ids     the row
    position_ids  of each token in its own sequence: a completion goes on where its prompt ended
    segment       number of the segment each token lies in
    context       the segment that a token sees in full besides its own (its prompt); -1 for none
    first, last   place in the row of the first and the last token of every completion's segment
    spans         (start, stop, context) of every segment in order: the same facts as plain numbers
    """

    input_ids: Int[Tensor, "1 T"]
    position_ids: Int[Tensor, "1 T"]
    segment: Int[Tensor, " T"]
    context: Int[Tensor, " T"]
    first: Int[Tensor, " N"]
    last: Int[Tensor, " N"]
    spans: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Surface(Moves):
    """Tokens, and surface features of every completion; see `rlhf.data.surface`."""

    tokens: Padded | Packed
    surface: Float[Tensor, "N F"]

    @classmethod
    def of(cls, tokens: "Tokens", surface: NDArray[np.float32]) -> Self:
        """Features [N, F] beside tokens."""
        assert isinstance(tokens, Padded | Packed)
        return cls(tokens, torch.from_numpy(surface))


@dataclass(frozen=True)
class States(Moves):
    """Hidden states of the completions, known already: a frozen trunk is not asked twice."""

    states: Float[Tensor, "N D"]


Tokens = Padded | Packed | Surface | States


@dataclass(frozen=True)
class Batch(Moves):
    """What one training step sees.

    tokens       the token layout: `Padded` or `Packed`, or one of them with more beside it
    target       what the votes say
    group        group[n] in 0..B-1 and
    place        place[n] in 0..K-1: where completion n stands in `reward[B, K]`
    row          row of the dataset each group came from: results are matched by it, never by order
    length       characters of every completion
    denominator  what the summed loss is divided by: the nominal number of units (see `rlhf.data.weighing`) of a
                 batch, so that a short batch, a masked group or accumulated micro-batches weigh each unit the same
    """

    tokens: Tokens
    target: Target
    group: Int[Tensor, " N"]
    place: Int[Tensor, " N"]
    row: Int[Tensor, " B"]
    length: Int[Tensor, " N"]
    denominator: float

    def __len__(self) -> int:
        """Number of groups B."""
        return len(self.target)

    @property
    def number(self) -> Int[Tensor, " B"]:
        """What rewards are stored under."""
        return self.row

    @property
    def size(self) -> list[int]:
        """Completions of every group."""
        found: list[int] = self.target.candidate.sum(1).tolist()
        return found

    def unflatten(self, reward: Float[Tensor, "*M N"]) -> Float[Tensor, "*M B K"]:
        """Rewards of completions `[..., N]` as groups `[..., B, K]`; padding becomes 0 without gradient."""
        if reward.shape[-1] != self.group.shape[0]:
            raise ValueError(f"{reward.shape[-1]} rewards for {self.group.shape[0]} completions")
        grouped = reward.new_zeros((*reward.shape[:-1], *self.target.candidate.shape))
        grouped[..., self.group, self.place] = reward
        return grouped


@dataclass(frozen=True)
class TextBatch(Moves):
    """Texts to be scored, without labels.

    tokens  the token layout
    number  of the piece that each group is (`rlhf.data.distinct`): rewards are stored under it
    size    completions of every group
    """

    tokens: Tokens
    number: Int[Tensor, " B"]
    size: list[int]

    def __len__(self) -> int:
        """Number of groups B."""
        return len(self.size)
