"""What Lightning adds to a step: the module's own loop against a plain loop over the same batches.

    python benchmarks/overhead.py [--steps 300] [--rounds 5] [--threads 1]

The model is so small (one layer, width 16, two short prompts a batch) that the loop is what is measured. Also: the
cost of logging, and of collating in the training process. Writes results/overhead.json.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from train_step import quiet
from workload import Workload, llama

from rlhf.data.collate import collate
from rlhf.data.order import GroupOrder, ResumableLoader
from rlhf.data.store import Rows
from rlhf.data.token_layout import shared
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead
from rlhf.models.reward_model import RewardModel
from rlhf.reward.losses import pairwise
from rlhf.reward.module import RewardModule
from rlhf.reward.schedule import linear

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        rows = Workload(2 * options.steps, 2, prompt_median=8).store(Path(folder) / "store")
        loops = {
            "collation alone": lambda: collation(rows),
            "plain loop": lambda: plain(rows),
            "Lightning": lambda: lightning(rows, log_every=10**9, folder=None),
            "Lightning, a scalar logged every 10 steps": lambda: lightning(rows, log_every=10, folder=folder),
        }
        found: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(options.rounds):
            for name, loop in loops.items():
                found[name].append(1000 * loop() / options.steps)
    medians = {name: float(np.median(ms)) for name, ms in found.items()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "overhead.json").write_text(json.dumps({"ms_per_step": found, "median": medians}, indent=2))
    for name, ms in medians.items():
        print(f"{name:45} {ms:6.2f} ms per step, {ms - medians['plain loop']:+6.2f} against the plain loop")


def build() -> RewardModule:
    """A module whose arithmetic costs next to nothing."""
    backbone = Backbone(llama(width=16, depth=1))
    return RewardModule(
        RewardModel(backbone, LinearHead(16)),
        loss=pairwise,
        optimizer=partial(torch.optim.AdamW, lr=1e-4, fused=True),
        schedule=partial(linear, warmup=0.0, end=0.0),
    )


def batches(rows: Rows) -> ResumableLoader:
    """Two prompts a batch."""
    order = GroupOrder(len(rows), batch_size=2, seed=0)
    return ResumableLoader(
        rows,  # type: ignore[arg-type]
        batch_size=None,
        sampler=order,
        collate_fn=partial(collate, layout=shared, denominator=2.0),
    )


def collation(rows: Rows) -> float:
    """Seconds to read and collate all batches."""
    start = time.perf_counter()
    for _ in batches(rows):
        pass
    return time.perf_counter() - start


def plain(rows: Rows) -> float:
    """Seconds of a loop without Lightning that does the same: clip, step, schedule."""
    module = build()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    schedule = linear(optimizer, len(batches(rows)), warmup=0.0, end=0.0)
    start = time.perf_counter()
    for batch in batches(rows):
        optimizer.zero_grad()
        module.step_loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return time.perf_counter() - start


def lightning(rows: Rows, *, log_every: int, folder: str | None) -> float:
    """Seconds of Lightning's loop."""
    from contestants import Clock
    from pytorch_lightning.loggers import CSVLogger

    clock = Clock()
    logger: Any = CSVLogger(folder) if folder else False
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, gradient_clip_val=1.0, enable_progress_bar=False,
        enable_model_summary=False, logger=logger, log_every_n_steps=log_every, enable_checkpointing=False,
        callbacks=[clock], use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(build(), batches(rows))
    return clock.seconds


if __name__ == "__main__":
    main()
