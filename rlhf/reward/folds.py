"""The task `crossvalidate`: every fold is an ordinary training run, whose model then scores the fold's records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlhf.evaluation.crossvalidation import CrossValidation, FoldModel, crossvalidate
from rlhf.evaluation.metrics.baselines import baseline_table
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.sweep_table import SWEEP_METRICS_FILE
from rlhf.reward.files import log_end, write_json
from rlhf.reward.scoring.score_source import RunSource
from rlhf.reward.scoring.scorer import Scorer
from rlhf.reward.training import RewardRun, train_reward

HEADLINE = (
    "val/pair_accuracy", "pair_accuracy", "pair_accuracy/ci_low", "pair_accuracy/ci_high", "lead/length",
    "lead/length/ci_low", "lead/length/ci_high", "lead/bag_of_words", "nll", "ece", "prompt/spearman",
)  # fmt: skip
"""What the jobs of a sweep are compared by; val/... is the mean over the folds' own validation parts."""


@dataclass
class FoldsRun:
    """A cross-validation, and a trainer whose loggers get its numbers; `result` is what the last line names."""

    validation: CrossValidation
    trainer: Any
    result: ClassVar[str] = "report"

    @property
    def folder(self) -> Path:
        """Of the report."""
        return self.validation.folder


def run_folds(run: FoldsRun) -> dict[str, float]:
    """Cross-validate; leaves metrics.json and headline.json, which sweeps read, beside the report."""
    metrics = crossvalidate(run.validation).metrics
    write_json(run.folder / SWEEP_METRICS_FILE, [key for key in HEADLINE if key in metrics])
    write_json(run.folder / "metrics.json", metrics)
    log_end(run.trainer.loggers, metrics, run.folder)
    print("\n" + baseline_table(metrics))
    for name in ("length", "bag_of_words"):
        ends = [f"{metrics.get(f'lead/{name}{end}', float('nan')):+.3f}" for end in ("", "/ci_low", "/ci_high")]
        print(f"mean lead over {name.replace('_', ' ')}: {ends[0]} [{ends[1]}, {ends[2]}], t over what was left out")
    return metrics


def train_fold(run: RewardRun) -> FoldModel:
    """Train the run, and say which prompts (hashes) its training and validation rows are of."""
    metrics = train_reward(run)
    model = run.module.model.to(run.trainer.strategy.root_device)
    calibration = Calibration.from_json(run.folder / "calibration.json")
    seen = {key for split in ("train", "val") for key in run.data.rows[split].table["prompt_key"]}
    return FoldModel(RunSource(run.folder.name, Scorer(model, run.data.renderer, calibration)), seen, metrics)
