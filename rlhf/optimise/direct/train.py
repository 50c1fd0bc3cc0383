"""The tasks `sft` and `dpo`: supervised fine-tuning on demonstrations, and direct preference optimisation."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from jaxtyping import Float
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from rlhf.data.batch import Batch, TextBatch
from rlhf.data.datamodule import PreferenceData
from rlhf.data.weighing import Weighing, pairs
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.models.policy import CausalPolicy
from rlhf.optimise.policy.export import export_policy
from rlhf.reward.checkpoint import load_weights
from rlhf.reward.files import log_end, note_wandb, write_json
from rlhf.reward.module import Loss, log_loss, mean_loss, units_of, weighing_of
from rlhf.reward.resumable import PreferenceModule, ResumableModule
from rlhf.reward.scoring.splits import gather, scored


class SftModule(ResumableModule):
    """Trains a policy on the completions whose label is a demonstration (`rlhf.labels.demonstrations`).

    Loss: -log π per token, averaged over a completion's tokens, then over the demonstrations of a prompt, so that every
    prompt counts the same. Metrics count every token the same.

    Args:
        policy: the model; its reference is not used.
        options: of `ResumableModule`.
    """

    def __init__(self, policy: CausalPolicy, **options: Any) -> None:
        super().__init__(**options)
        self.policy = policy
        policy.frozen = None
        self.totals = torch.zeros(2, dtype=torch.float64)

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch."""
        self.restore_random_state()
        nll, tokens = self._nll(batch)
        per_row = batch.unflatten(nll / tokens.clamp(min=1))
        shown = batch.unflatten((tokens > 0).float())
        per_group = per_row.sum(-1) / shown.sum(-1).clamp(min=1)
        loss = (per_group * batch.target.weight).sum() / batch.denominator
        self.log("train/loss", loss * batch.denominator / len(batch), batch_size=len(batch), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count nats and tokens."""
        self.count(batch)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch."""
        self.totals.zero_()

    def on_validation_epoch_end(self) -> None:
        """Nats per token over the whole split."""
        if not self.trainer.sanity_checking:
            self.log("val/nll", self.mean_nll(), prog_bar=True)

    def count(self, batch: Batch) -> None:
        """Add a batch's nats and tokens to the totals."""
        nll, tokens = self._nll(batch)
        self.totals += torch.stack([nll.sum(), tokens.sum()]).double().cpu()

    def mean_nll(self) -> float:
        """Nats per token of what was counted, over all processes."""
        totals = self.totals.clone()
        if dist.is_available() and dist.is_initialized():
            shares: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(shares, totals)
            totals = torch.stack(shares).sum(0)
        return float(totals[0] / totals[1])

    def _nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Nats and tokens of every completion, 0 where it is no demonstration."""
        rows: Any = batch.tokens
        shown = torch.isfinite(batch.target.score[batch.group, batch.place, 0])
        nll = -self.policy.logp(rows).sum(1)
        return torch.where(shown, nll, 0.0), rows.response_mask.sum(1) * shown


class DpoModule(PreferenceModule):
    """Trains a policy with a loss on log-ratios, `rlhf.reward.losses.dpo`: ties, vote shares and K > 2 included.

    The implicit reward β · log π/π_ref is what validation measures. It is known up to a constant per prompt: compare it
    within a prompt only.

    Args:
        policy: the policy; its reference is the model it starts from.
        loss: `(log_ratio[B, K], target) -> loss[B]`.
        beta: of the loss, for the implicit reward.
        weighing: what counts once; see `rlhf.data.weighing`.
        options: of `ResumableModule`.
    """

    def __init__(
        self, policy: CausalPolicy, *, loss: Loss, beta: float, weighing: Weighing = pairs, **options: Any
    ) -> None:
        super().__init__(**options)
        self.policy, self.loss, self.beta = policy, loss, beta
        self.weighing = weighing_of(loss, weighing)

    def log_ratio(self, batch: Batch | TextBatch) -> Float[Tensor, " N"]:
        """Log-ratio, log π - log π_ref, of every completion, summed over its tokens."""
        rows: Any = batch.tokens
        difference: Tensor = self.policy.logp(rows) - self.policy.ref_logp(rows)
        return difference.sum(1)

    def preference(self, batch: Batch | TextBatch) -> Float[Tensor, " N"]:
        """The implicit reward."""
        return self.beta * self.log_ratio(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch."""
        self.restore_random_state()
        ratio = self.log_ratio(batch)
        per_group = mean_loss(self.loss, batch.unflatten(ratio), batch.target)
        units = units_of(batch.target, self.weighing) * batch.target.weight
        loss: Tensor = (per_group * units).sum() / batch.denominator
        log_loss(self, loss, batch, self.weighing)
        self.log("train/log_ratio", ratio.mean(), batch_size=len(batch))
        return loss


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
        each_batch(run, run.data.loader(split, run.data.eval_batch_size, None), module.count)
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
        each_batch(run, run.data.scoring_loader(split), partial(module.validation_step, batch_idx=0))
        table = scored(run.data.rows[split], run.data.distinct(split).of_rows(gather(module.rewards)))
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
        load_weights(run.module, keeper.best_model_path)


@torch.inference_mode()
def each_batch(run: TuningRun, loader: Any, do: Any) -> None:
    """Show every batch of a loader, with the module in evaluation mode."""
    device = run.trainer.strategy.root_device
    run.module.to(device).eval()
    for batch in loader:
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
    log_end(run.trainer.loggers, metrics, run.folder, step=run.trainer.global_step)
    shown = [k for k in metrics if k in ("test/nll", "test/perplexity", "test/pair_accuracy")]
    print("\n" + ", ".join(f"{k} {round(metrics[k], 4)}" for k in shown))
    return metrics
