"""Scores of a pool, streamed to disk: one Parquet file per process, memory of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor
from torch.utils.data import DataLoader

from rlhf.data.pool import Pool, PoolBatch
from rlhf.reward.module import RewardModule

SCHEMA = pa.schema(
    {
        "record": pa.int64(),
        "prompt_id": pa.string(),
        "completion_id": pa.string(),
        "reward": pa.float32(),
        "members": pa.list_(pa.float32()),
    }
)
"""`reward` is null for a completion too long to be read; `members` is empty where there is one head."""


def score_pool(module: RewardModule, pool: Pool, folder: str | Path, **trainer: Any) -> pa.Table:
    """Reward of every completion of a pool.

    Args:
        module: the reward model in its Lightning module.
        pool: the completions.
        folder: is filled with `scores-<rank>.parquet`; must not hold any yet.
        trainer: options of `pytorch_lightning.Trainer` (devices, strategy, precision).

    Returns:
        All processes' scores in the order of the pool, memory-mapped.

    Raises:
        FileExistsError: there are scores in the folder.
    """
    writer = ScoreWriter(Path(folder))
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    runner = pl.Trainer(**quiet | {"use_distributed_sampler": False, "callbacks": [writer]} | trainer)
    runner.predict(module, DataLoader(pool, batch_size=None), return_predictions=False)
    runner.strategy.barrier()
    return read_scores(folder)


def read_scores(folder: str | Path) -> pa.Table:
    """What `score_pool` wrote, in the order of the pool. Raises FileNotFoundError where there is nothing."""
    files = sorted(Path(folder).glob("scores-*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no scores-*.parquet")
    table = pa.concat_tables([pq.read_table(f, memory_map=True) for f in files])
    return table.sort_by("record") if len(files) > 1 else table


class ScoreWriter(BasePredictionWriter):
    """Appends every batch's scores to this process's file."""

    def __init__(self, folder: Path) -> None:
        super().__init__("batch")
        self.folder = folder

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the file. Raises FileExistsError rather than overwrite one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"scores-{trainer.global_rank}.parquet"
        if path.exists():
            raise FileExistsError(f"{path} exists: scores are not overwritten, choose another folder")
        self.file = pq.ParquetWriter(path, SCHEMA)

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: PoolBatch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """One row per completion."""
        reward, members = prediction
        places = iter(range(len(reward)))
        rows = [(key, next(places) if key.read else None) for key in batch.keys]
        self.file.write_table(
            pa.table(
                {
                    "record": [key.record for key, _ in rows],
                    "prompt_id": [key.prompt_id for key, _ in rows],
                    "completion_id": [key.completion_id for key, _ in rows],
                    "reward": [None if i is None else float(reward[i]) for _, i in rows],
                    "members": [[] if i is None else _column(members, i) for _, i in rows],
                },
                SCHEMA,
            )
        )

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the file."""
        self.file.close()


def _column(members: Tensor, place: int) -> list[float]:
    column: list[float] = members[:, place].tolist() if members.ndim == 2 else []
    return column
