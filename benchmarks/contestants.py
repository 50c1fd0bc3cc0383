"""The two trainers as anyone would start them; each gives the seconds of one epoch of its own loop.

The clock runs from the start of training to its end: collation, forward, backward, optimizer, logging.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from workload import Workload

from rlhf.data.collate import collate
from rlhf.data.order import GroupOrder, ResumableLoader
from rlhf.models import layouts
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead
from rlhf.models.pretrained import Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.reward.losses import ranking
from rlhf.reward.module import RewardModule
from rlhf.reward.schedule import linear

BATCH = 8
"""Prompts per batch for us, pairs per batch for TRL (its default)."""
RATE = 1e-4


@dataclass(frozen=True)
class Contestant:
    """A name, and how to run one epoch: `(classifier, workload) -> seconds`."""

    name: str
    epoch: Callable[[PreTrainedModel, Workload], float]


class _TrlClock(TrainerCallback):
    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self.start


class Clock(pl.Callback):
    """Seconds from the start of training to its end."""

    seconds = 0.0

    def on_train_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def trl_epoch(
    classifier: PreTrainedModel, work: Workload, *, bf16: bool, checkpointing: bool, by_length: bool,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> float:  # fmt: skip
    """TRL's RewardTrainer on the pairs of the workload."""
    from trl import RewardConfig, RewardTrainer

    grouped: dict[str, Any] = (
        {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False} if by_length else {}
    )
    clock = _TrlClock()
    with tempfile.TemporaryDirectory() as folder:
        config = RewardConfig(
            output_dir=folder, per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE,
            bf16=bf16, gradient_checkpointing=checkpointing, max_length=None, save_strategy="no",
            report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(), **grouped,
        )  # fmt: skip
        trainer = RewardTrainer(
            model=classifier, args=config, train_dataset=Dataset.from_dict(work.pairs()),
            processing_class=tokenizer or Tiny().tokenizer(), callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    return clock.seconds


def our_epoch(classifier: PreTrainedModel, work: Workload, *, bf16: bool, layout: str = "auto") -> float:
    """This project's module in Lightning, on the same comparisons: every prompt with all its completions."""
    clock = Clock()
    backbone = Backbone(classifier)
    choose = {"auto": layouts.auto, "padded": layouts.always_padded, "packed": layouts.always_packed}[layout]
    chosen = choose(backbone, pad_id=0, max_length=1400)
    module = RewardModule(
        RewardModel(backbone, LinearHead(backbone.hidden_size)),
        loss=partial(ranking, label_smoothing=0.0),
        optimizer=partial(torch.optim.AdamW, lr=RATE, fused=True),
        schedule=partial(linear, warmup=0.0, end=0.0),
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = work.store(Path(folder) / "store")
        loader = ResumableLoader(
            rows,
            batch_size=None,
            sampler=GroupOrder(len(rows), batch_size=BATCH, seed=0),
            collate_fn=partial(collate, layout=chosen, denominator=float(BATCH)),
        )
        trainer = pl.Trainer(
            accelerator="auto", devices=1, max_epochs=1, precision="bf16-mixed" if bf16 else "32-true",
            gradient_clip_val=1.0, enable_progress_bar=False, enable_model_summary=False, logger=False,
            enable_checkpointing=False, callbacks=[clock], barebones=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, loader)
    return clock.seconds


CONTESTANTS = (
    Contestant("TRL defaults, fp32", partial(trl_epoch, bf16=False, checkpointing=True, by_length=False)),
    Contestant("TRL fp32, no checkpointing", partial(trl_epoch, bf16=False, checkpointing=False, by_length=False)),
    Contestant("TRL as shipped (bf16)", partial(trl_epoch, bf16=True, checkpointing=True, by_length=False)),
    Contestant("TRL best (bf16, by length)", partial(trl_epoch, bf16=True, checkpointing=False, by_length=True)),
    Contestant("ours, fp32", partial(our_epoch, bf16=False)),
    Contestant("ours, bf16", partial(our_epoch, bf16=True)),
)
