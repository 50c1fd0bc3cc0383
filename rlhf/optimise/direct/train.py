"""The tasks `sft` and `dpo`: fit, evaluate on test, export."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from rlhf.data.datamodule import PreferenceData
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.optimise.direct.dpo import DpoModule
from rlhf.optimise.direct.sft import SftModule
from rlhf.optimise.policy.export import export_policy
from rlhf.reward.files import note_wandb, write_json
from rlhf.reward.scoring.splits import gather, scored


@dataclass
class TuningRun:
    """Everything one run needs; `rlhf.assemble` builds it from the configuration."""

    folder: Path
    data: PreferenceData
    module: Any
    trainer: pl.Trainer
    checkpoint: Path | None
    bootstrap: int
    seed: int


def train_sft(run: TuningRun) -> dict[str, float]:
    """Leave in the run's folder: checkpoints, metrics.json (nats per token), data_report.json, model/."""
    fit(run)
    module: SftModule = run.module
    metrics: dict[str, float] = {}
    for split in ("val", "test"):
        module.totals.zero_()
        each_batch(run, split, module.count)
        metrics[f"{split}/nll"] = module.mean_nll()
        metrics[f"{split}/perplexity"] = math.exp(metrics[f"{split}/nll"])
    return finish(run, metrics)


def train_dpo(run: TuningRun) -> dict[str, float]:
    """Leave in the run's folder: checkpoints, metrics.json (of the implicit reward), data_report.json, model/."""
    fit(run)
    module: DpoModule = run.module
    metrics: dict[str, float] = {}
    for split in ("val", "test"):
        module.rewards = {}
        each_batch(run, split, module.keep)
        table = scored(run.data.rows[split], gather(module.rewards))
        found = evaluate(table, bootstrap=run.bootstrap, seed=run.seed)
        metrics |= {f"{split}/{name}": value for name, value in found.items()}
    return finish(run, metrics)


def fit(run: TuningRun) -> None:
    """Train, resumed where there is a checkpoint, and put the best weights back."""
    run.data.setup()
    write_json(run.folder / "data_report.json", run.data.report)
    note_wandb(run.module, run.trainer)
    checkpoint = str(run.checkpoint) if run.checkpoint else None
    run.trainer.fit(run.module, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    if run.trainer.interrupted:
        raise KeyboardInterrupt(f"stopped; go on with ckpt={run.folder}")
    keeper = next(c for c in run.trainer.callbacks if isinstance(c, ModelCheckpoint))  # type: ignore[attr-defined]
    if keeper.best_model_path:
        state = torch.load(keeper.best_model_path, map_location="cpu", weights_only=True)
        run.module.load_state_dict(state["state_dict"], strict=False)


@torch.inference_mode()
def each_batch(run: TuningRun, split: str, do: Any) -> None:
    """Show every batch of a split, with the module in evaluation mode."""
    device = run.trainer.strategy.root_device
    run.module.to(device).eval()
    for batch in run.data.loader(split, run.data.eval_batch_size, None):
        do(batch.to(device))


def finish(run: TuningRun, metrics: dict[str, float]) -> dict[str, float]:
    """Export, write metrics.json, tell the loggers."""
    if not run.trainer.is_global_zero:
        return {}
    run.module.cpu()
    metrics |= {f"n_{split}": len(rows) for split, rows in run.data.rows.items()}
    metrics["steps"] = run.trainer.global_step
    metrics["export/difference"] = export_policy(run.module.policy, run.data.renderer, run.folder / "model")
    write_json(run.folder / "metrics.json", metrics)
    for logger in run.trainer.loggers:
        logger.log_metrics({f"final/{k}": v for k, v in metrics.items()}, step=run.trainer.global_step)
    shown = {
        k: round(v, 4)
        for k, v in metrics.items()
        if k in ("test/nll", "test/perplexity", "test/pair_accuracy")
    }
    print("\n" + ", ".join(f"{k} {v}" for k, v in shown.items()))
    return metrics
