"""A pool to score: records as a stream of batches filled to a token budget, every process its own share.

Nothing is stored or counted in advance, so a pool of any size takes the memory of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch.distributed as dist
from torch.utils.data import IterableDataset

from rlhf.data.batch import Moves, Tokens
from rlhf.data.render import Encoded, Renderer
from rlhf.data.token_layout import Layout
from rlhf.records import Comparison


class Records(Protocol):
    """Anything that gives records from the start: `rlhf.data.source.Source`, `rlhf.toy.world.ToyWorld`."""

    def records(self) -> Iterator[Comparison]:
        """The records from the start."""


@dataclass(frozen=True)
class Key:
    """One completion of the pool: number of its record, ids, and whether it was short enough to be read."""

    record: int
    prompt_id: str
    completion_id: str
    read: bool


@dataclass(frozen=True)
class PoolBatch(Moves):
    """Tokens of N completions, and the keys of these and of completions too long to be read."""

    tokens: Tokens
    keys: tuple[Key, ...]


class Pool(IterableDataset[PoolBatch]):
    """Batches of a stream of records; labels are not looked at.

    Args:
        source: the records.
        renderer: texts to tokens.
        layout: where the tokens lie; see `rlhf.data.token_layout`.
        batch_tokens: tokens per batch, every prompt counted once; a longer record is a batch of its own.
    """

    def __init__(
        self, source: Records, renderer: Renderer, layout: Layout, *, batch_tokens: int = 8192
    ) -> None:
        self.source, self.renderer, self.layout = source, renderer, layout
        self.batch_tokens = batch_tokens

    def __iter__(self) -> Iterator[PoolBatch]:
        groups: list[Encoded] = []
        keys: list[Key] = []
        size = 0
        for number, record in self._share():
            encoded = self.renderer.encode(record.prompt, [c.text for c in record.completions])
            more = len(encoded.prompt) + sum(map(len, encoded.responses))
            if groups and size + more > self.batch_tokens:
                yield self._batch(groups, keys)
                groups, keys, size = [], [], 0
            keys += [
                Key(number, record.prompt_id, c.id, i in encoded.kept)
                for i, c in enumerate(record.completions)
            ]
            if encoded.kept:
                groups.append(encoded)
                size += more
        if groups:
            yield self._batch(groups, keys)

    def _share(self) -> Iterator[tuple[int, Comparison]]:
        parallel = dist.is_available() and dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
        return ((i, r) for i, r in enumerate(self.source.records()) if i % world == rank)

    def _batch(self, groups: list[Encoded], keys: list[Key]) -> PoolBatch:
        tokens: Any = self.layout([g.prompt for g in groups], [g.responses for g in groups])
        return PoolBatch(tokens, tuple(keys))
