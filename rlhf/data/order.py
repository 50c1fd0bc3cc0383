"""In which order groups are visited: shuffled by (seed, epoch), the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler


class GroupOrder(Sampler[list[int]]):
    """Batches of row numbers.

    One global order per epoch is cut into steps of `batch_size * world` rows, of which rank r takes every
    world-th: two processes see the rows that one process with twice the batch size would (T23).

    Args:
        rows: number of rows in the data.
        batch_size: groups per batch and process.
        seed: of the order; None keeps the stored order (validation, test).
        rank, world: this process among all. Evaluation pads the last step by repeating rows, so that every
            process takes part in it; results are matched by row number, and repeats dropped (T48).
    """

    def __init__(
        self, rows: int, *, batch_size: int, seed: int | None, rank: int = 0, world: int = 1
    ) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.world = rank, world
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        """Batches of one epoch, skipped ones included."""
        step = self.batch_size * self.world
        return (self.rows + step - 1) // step

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        step = self.batch_size * self.world
        order = self._order()
        skip, self.skip = self.skip, 0  # holds for one epoch; a trainer may leave it before its end
        for start in range(skip * step, self.rows, step):
            block = order[start : start + step]
            block += order[: -len(block) % self.world]
            yield block[self.rank :: self.world]

    def _order(self) -> list[int]:
        if self.seed is None:
            return list(range(self.rows))
        generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
        order: list[int] = torch.randperm(self.rows, generator=generator).tolist()
        return order


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
        assert isinstance(self.sampler, GroupOrder)
        return self.sampler

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch were taken, and under which order."""
        order = self._group_order
        return {"taken": self.taken, "rows": order.rows, "batch_size": order.batch_size, "world": order.world}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip what was taken. Raises ValueError when the data or the batch size are not the same any more."""
        order = self._group_order
        now = {"rows": order.rows, "batch_size": order.batch_size, "world": order.world}
        changed = [f"{k}: {state[k]} -> {v}" for k, v in now.items() if state[k] != v]
        if changed:
            raise ValueError(f"cannot resume mid-epoch, the data order changed ({', '.join(changed)})")
        order.skip = state["taken"] % max(1, len(order))
