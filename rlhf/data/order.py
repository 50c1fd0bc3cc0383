"""In which order groups are visited: shuffled by (seed, epoch), the same for any number of processes.

GroupOrder  so many groups per batch
TokenOrder  about so many tokens per batch
BlockOrder  either of them over groups that are cut into blocks, anew each epoch
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from rlhf.data.blocks import chance, drawn
from rlhf.stats.arrays import Ints


class GroupOrder(Sampler[list[int]]):
    """Batches of row numbers.

    One global order per epoch is cut into steps of `batch_size * world` rows, of which rank r takes every
    world-th: two processes see the rows that one process with twice the batch size would.

    Args:
        rows: number of rows in the data.
        batch_size: groups per batch and process.
        seed: of the order; None keeps the stored order (validation, test).
        rank, world: this process among all. The last step is padded by repeating rows, so that every process
            takes part in it; results are matched by row number, and repeats dropped.
    """

    def __init__(self, rows: int, *, batch_size: int, seed: int | None, rank: int = 0, world: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} and eval_batch_size must be at least 1")
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.world = rank, world
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        """Batches of one epoch, skipped ones included: the same number in every epoch."""
        step = self.batch_size * self.world
        return (self.rows + step - 1) // step

    @property
    def denominator(self) -> float:
        """Nominal number of groups of a batch."""
        return float(self.batch_size)

    @property
    def described(self) -> dict[str, int]:
        """What must be the same for a run to go on in the middle of an epoch."""
        return {"rows": self.rows, "batch_size": self.batch_size, "world": self.world}

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        stops = self._stops(order)
        skip, self.skip = self.skip, 0  # holds for one epoch; a trainer may leave it before its end
        for start, stop in list(zip([0, *stops], stops, strict=False))[skip:]:
            block = order[start:stop]
            block += order[: -len(block) % self.world]
            yield block[self.rank :: self.world]

    def _order(self) -> list[int]:
        if self.seed is None:
            return list(range(self.rows))
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        order: list[int] = torch.randperm(self.rows, generator=generator).tolist()
        return order

    def _stops(self, order: list[int]) -> list[int]:
        """Where each step ends in the order."""
        step = self.batch_size * self.world
        return [min(step * (i + 1), self.rows) for i in range(len(self))]


class TokenOrder(GroupOrder):
    """Batches of about `budget` tokens: the shuffled order, cut where an equal share of all tokens is reached.

    The number of steps is fixed by the data, so schedules and resuming work as with a fixed batch size, and the
    shuffle is as honest: rows are never sorted or moved. A batch holds at most one group more than its share.

    Args:
        tokens: tokens of every row, its prompt counted once.
        budget: tokens per batch and process.
        seed, rank, world: as in `GroupOrder`.

    Raises:
        ValueError: a row is longer than the budget.
    """

    def __init__(self, tokens: Ints, *, budget: int, seed: int | None, rank: int = 0, world: int = 1) -> None:
        longest = int(tokens.max())
        if longest > budget:
            raise ValueError(
                f"batches.batch_tokens={budget}, but the longest prompt with its completions has {longest} tokens: "
                f"batches.batch_tokens={longest} or more, or a smaller max_length"
            )
        self.tokens, self.budget = tokens, budget
        self.steps = max(1, int(tokens.sum()) // (budget * world))
        groups = -(-len(tokens) // (self.steps * world))
        super().__init__(len(tokens), batch_size=groups, seed=seed, rank=rank, world=world)

    def __len__(self) -> int:
        """Batches of one epoch."""
        return self.steps

    @property
    def denominator(self) -> float:
        """Mean number of groups of a batch."""
        return self.rows / (self.steps * self.world)

    @property
    def described(self) -> dict[str, int]:
        """As in `GroupOrder`, with the budget."""
        return {**super().described, "batch_tokens": self.budget}

    def _stops(self, order: list[int]) -> list[int]:
        before = np.cumsum(self.tokens[order]) - self.tokens[order]
        shares = np.arange(1, self.steps + 1) * (self.tokens.sum() / self.steps)
        stops: list[int] = np.searchsorted(before, shares).tolist()
        return stops


@dataclass(frozen=True, slots=True)
class Block:
    """Some completions of a row.

    row     of the data
    places  of the completions; None = all
    scale   1/P that a pair of the row lies in one block
    """

    row: int
    places: list[int] | None = None
    scale: float = 1.0


class BlockOrder(Sampler[list[Block]]):
    """The batches of an order over blocks, with the completions that fall into each block in this epoch.

    Args:
        order: over all blocks, row after row.
        blocks: number of blocks of every row.
        sizes: number of completions of every row.
    """

    def __init__(self, order: GroupOrder, blocks: Ints, sizes: Ints) -> None:
        self.order, self.blocks, self.sizes = order, blocks, sizes
        self.row = np.repeat(np.arange(len(blocks)), blocks)
        self.first = np.cumsum(blocks) - blocks

    def __len__(self) -> int:
        """Batches of one epoch."""
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Block]]:
        for batch in self.order:
            yield [self._block(number) for number in batch]

    def _block(self, number: int) -> Block:
        row = int(self.row[number])
        blocks, k = int(self.blocks[row]), int(self.sizes[row])
        if blocks == 1:
            return Block(row)
        seed = (self.order.seed or 0, self.order.epoch, row)
        return Block(row, drawn(k, blocks, number - int(self.first[row]), seed), 1 / chance(k, blocks))


class ResumableLoader(DataLoader[Any]):
    """A DataLoader that knows how many batches the trainer took, so that a run stopped mid-epoch goes on exactly.

    Lightning stores `state_dict()` in the checkpoint; the data module hands it back before the first batch.
    """

    taken = 0

    def __iter__(self) -> Any:
        self.taken = self._group_order.skip
        for batch in super().__iter__():
            self.taken += 1
            yield batch

    def __len__(self) -> int:
        return len(self._group_order)

    @property
    def _group_order(self) -> GroupOrder:
        order = self.sampler.order if isinstance(self.sampler, BlockOrder) else self.sampler
        assert isinstance(order, GroupOrder)
        return order

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch were taken, and under which order."""
        return {"taken": self.taken, **self._group_order.described}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip what was taken. Raises ValueError when the data or the batch size are not the same any more."""
        order = self._group_order
        now = order.described
        changed = [
            f"{k}: {state.get(k)} -> {now.get(k)}"
            for k in sorted({*now, *state} - {"taken"})
            if state.get(k) != now.get(k)
        ]
        if changed:
            raise ValueError(f"cannot resume mid-epoch, the data order changed ({', '.join(changed)})")
        order.skip = state["taken"] % max(1, len(order))
