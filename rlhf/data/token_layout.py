"""Token layouts: how the prompts and completions of a batch lie in memory.

padded   one row per completion, its prompt before it, padded to the longest: always right, mostly waste
packed   the same rows one after the other without padding: for encoders, where a prompt sees its completion
shared   every prompt once, then its completions, each of which sees its prompt and itself: for causal models,
         where a prompt cannot see what follows and so has the same hidden states in every row
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf.data.batch import Packed, Padded, Tokens

Item = TypeVar("Item")
Ids = Sequence[int] | NDArray[np.int32]
Layout = Callable[[Sequence[Ids], Sequence[Sequence[Ids]]], Tokens]
"""`(prompts [B], responses [B][K_b]) -> tokens`, completions in order of group and place."""


def row_lengths(layout: Layout, prompt: Ids, responses: Sequence[Ids]) -> list[int]:
    """Tokens of the rows that a group makes: one row with the prompt once in `shared`, else one per completion."""
    if bare(layout) is shared:
        return [len(prompt) + sum(map(len, responses))] if responses else []
    return [len(prompt) + len(response) for response in responses]


def pads_rows(layout: Layout) -> bool:
    """Are the rows of a batch padded to the longest?"""
    return bare(layout) is padded


def bare(layout: Layout) -> Any:
    """`padded`, `packed` or `shared`, without options and what else a layout puts beside the tokens."""
    inner = getattr(layout, "inner", layout)
    return getattr(inner, "func", inner)


def occupied(rows: Sequence[int], pads: bool) -> int:
    """Tokens that rows take up in memory; `pads` = padded to the longest."""
    return len(rows) * max(rows, default=0) if pads else sum(rows)


def filled(
    items: Iterable[Item], rows: Callable[[Item], Sequence[int]], budget: int, *, pads: bool = False
) -> Iterator[list[Item]]:
    """Items in order as batches that take up at most `budget` tokens; a larger item is a batch of its own.

    Args:
        items: read as a stream.
        rows: an item to the lengths of its rows.
        budget: tokens of a batch.
        pads: as in `occupied`.
    """
    batch: list[Item] = []
    lengths: list[int] = []
    for item in items:
        more = rows(item)
        if batch and occupied([*lengths, *more], pads) > budget:
            yield batch
            batch, lengths = [], []
        batch.append(item)
        lengths += more
    if batch:
        yield batch


def pad(sequences: Sequence[Ids], pad_id: int, *, left: bool = False, width: int = 0) -> Padded:
    """Token sequences as one block, padded to the longest of them or to `width` tokens, whichever is more.

    Positions count from the first real token on either side.
    """
    width = max(width, *(len(s) for s in sequences))
    ids = torch.full((len(sequences), width), pad_id)
    mask = torch.zeros_like(ids)
    for n, sequence in enumerate(sequences):
        start = width - len(sequence) if left else 0
        ids[n, start : start + len(sequence)] = torch.tensor(sequence)
        mask[n, start : start + len(sequence)] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    last = (mask * torch.arange(1, width + 1)).amax(1) - 1
    return Padded(ids, mask, positions, last)


def padded(prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]], *, pad_id: int) -> Padded:
    """One padded row per completion; `pad_id` fills the rest and is masked, so any id will do."""
    return pad(_rows(prompts, responses), pad_id)


def packed(prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]]) -> Packed:
    """Every prompt with each of its completions as one segment."""
    rows = _rows(prompts, responses)
    return _pack([(row, 0, -1) for row in rows], list(range(len(rows))))


def shared(prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]]) -> Packed:
    """Every prompt once, its completions after it. Raises ValueError for an empty completion (nothing to read)."""
    segments: list[tuple[Ids, int, int]] = []
    completions: list[int] = []
    for prompt, answers in zip(prompts, responses, strict=True):
        context = len(segments) if len(prompt) else -1
        if len(prompt):
            segments.append((prompt, 0, -1))
        for answer in answers:
            completions.append(len(segments))
            segments.append((answer, len(prompt), context))
    return _pack(segments, completions)


def _rows(prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]]) -> list[Ids]:
    return [[*p, *r] for p, answers in zip(prompts, responses, strict=True) for r in answers]


def _pack(segments: Sequence[tuple[Ids, int, int]], completions: Sequence[int]) -> Packed:
    """Segments as (tokens, position of the first, context); `completions` are the segments that are read."""
    lengths = np.array([len(tokens) for tokens, _, _ in segments])
    if not lengths.all():
        raise ValueError("a completion without tokens cannot be read; the renderer ends every answer with one")
    stops = np.cumsum(lengths)
    starts = stops - lengths
    offsets = np.array([offset for _, offset, _ in segments]) - starts
    contexts = np.array([context for _, _, context in segments])
    return Packed(
        input_ids=torch.from_numpy(np.concatenate([np.asarray(t, dtype=np.int64) for t, _, _ in segments]))[None],
        position_ids=torch.from_numpy(np.arange(stops[-1]) + np.repeat(offsets, lengths))[None],
        segment=torch.from_numpy(np.repeat(np.arange(len(segments)), lengths)),
        context=torch.from_numpy(np.repeat(contexts, lengths)),
        first=torch.from_numpy(starts[list(completions)]),
        last=torch.from_numpy(stops[list(completions)] - 1),
        spans=tuple(zip(starts.tolist(), stops.tolist(), contexts.tolist(), strict=True)),
    )
