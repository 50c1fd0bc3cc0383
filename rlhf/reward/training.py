"""The task `reward`: fit, calibrate on validation, evaluate on test, export, prove the export."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from rlhf.data.datamodule import PreferenceData
from rlhf.data.render import Encoded
from rlhf.evaluation.metrics.baselines import baseline_table
from rlhf.evaluation.metrics.calibration import Calibration, fit_temperature_with_prior
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.metrics.ood import MOST, Reference, fit_reference, with_typical
from rlhf.evaluation.metrics.scored import Scored
from rlhf.models.reward_model import RewardModel
from rlhf.reward.checkpoint import load_weights
from rlhf.reward.export import export
from rlhf.reward.files import log_end, note_wandb, write_json
from rlhf.reward.frozen import cached_states, spread
from rlhf.reward.module import RewardModule, learned_tie_width
from rlhf.reward.overview import draw_overview
from rlhf.reward.scoring.engine import ScoringEngine
from rlhf.reward.scoring.once import ScoreMemo
from rlhf.reward.scoring.splits import gather, score_split, scored
from rlhf.reward.words_baseline import words_baseline

NEXT = """open: {folder}/overview.png
next: {evaluate} run={folder}
        a report: intervals, calibration, biases, mistakes
      python -m rlhf.serve run={folder}
        scores over HTTP"""
"""What to do with a trained model."""


@dataclass
class RewardRun:
    """Everything one run needs; `rlhf.assemble` builds it from the configuration.

    `export=False` leaves out `model/` with its proof in a fresh process: for models that are read from their
    checkpoint and thrown away, such as those of a round of active learning. `states` is the folder of a frozen trunk's
    states; None = the trunk runs in every step.
    """

    folder: Path
    data: PreferenceData
    module: RewardModule
    trainer: pl.Trainer
    monitor: str
    checkpoint: Path | None
    bootstrap: int
    seed: int
    export: bool = True
    states: Path | None = None


def train_reward(run: RewardRun) -> dict[str, float]:
    """Train and leave in the run's folder: checkpoints, metrics.json, calibration.json, data_report.json, model/.

    Returns:
        The metrics of metrics.json.
    """
    run.data.setup()
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / "data_report.json", run.data.report)
    note_wandb(run.module, run.trainer)
    if run.module.model.backbone.frozen:
        _freeze(run)
    checkpoint = str(run.checkpoint) if run.checkpoint else None
    run.trainer.fit(run.module, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    if run.trainer.interrupted:
        raise KeyboardInterrupt(f"stopped; go on with ckpt={run.folder}")
    last = run.folder / "checkpoints" / "last.ckpt"
    if run.checkpoint and not last.exists():  # there was nothing left to train
        shutil.copyfile(run.checkpoint, last)
    _load_best(run)
    _put_scale_into_head(run.module.model)
    val, test = _score(run, "val"), _score(run, "test")
    reference = learn_reference(run) if run.export else None
    if not run.trainer.is_global_zero:
        return {}
    calibration = calibrate(val, run.data.data_hash, learned_tie_width(run.module.loss))
    metrics = _metrics(run, {"val": val, "test": test}, calibration)
    calibration.to_json(run.folder / "calibration.json")
    run.module.model.cpu()
    if run.export:
        metrics["export/difference"] = export(
            run.module.model, run.data.renderer, run.folder / "model", calibration, reference
        )
        words = words_baseline(run.data, test, samples=run.bootstrap, seed=run.seed)
        metrics |= {f"test/{key}": value for key, value in words.items()}
    write_json(run.folder / "metrics.json", metrics)
    if run.export:
        _overview(run, test, calibration.temperature)
    log_end(run.trainer.loggers, metrics, run.folder, step=run.trainer.global_step)
    test_metrics = {k.removeprefix("test/"): v for k, v in metrics.items() if k.startswith("test/")}
    print("\n" + baseline_table(test_metrics))
    if run.export:
        installed = Path(sys.argv[0]).name.startswith("rlhf-")
        print(NEXT.format(folder=run.folder, evaluate="rlhf-evaluate" if installed else "python evaluate.py"))
    return metrics


def _overview(run: RewardRun, test: Scored, temperature: float) -> None:
    """overview.png, from what has been logged so far."""
    for logger in run.trainer.loggers:
        logger.save()
    history = run.folder / "csv" / "metrics.csv"
    draw_overview(history, test, temperature, run.folder / "overview.png", run.folder.name)


def _freeze(run: RewardRun) -> None:
    """Train the head from rewards of 0 on scaled states, out of the cache where there is one."""
    model = run.module.model.to(run.trainer.strategy.root_device)
    model.backbone.eval()
    scale, model.backbone.scale = model.backbone.scale, None  # the cache has states as the trunk gives them
    if scale is None:  # else the head is that of an earlier round
        model.head.zero()
    if run.states is not None:
        run.data.layout = cached_states(run.data, model, run.states)
    scale = spread(model, run.data) if scale is None else scale
    model.backbone.scale = scale.to(run.trainer.strategy.root_device)


def _put_scale_into_head(model: RewardModel) -> None:
    """The same rewards from states as the trunk gives them."""
    if model.backbone.scale is not None:
        model.head.rescale(model.backbone.scale)
        model.backbone.scale = None


def calibrate(val: Scored, data_hash: str, tie_width: float | None) -> Calibration:
    """Temperature, mean and std of the reward from the validation split, and from nothing else."""
    difference = val.reward[val.first] - val.reward[val.second]
    return Calibration(
        temperature=fit_temperature_with_prior(difference, val.win_prob, val.pair_prompt),
        reward_mean=float(val.reward.mean()),
        reward_std=float(val.reward.std()),
        n_pairs=len(difference),
        n_completions=len(val.reward),
        data_hash=data_hash,
        tie_width=tie_width,
        fitted_on="val",
    )


def learn_reference(run: RewardRun) -> Reference:
    """What the states of training completions look like, and how far validation completions lie from them."""
    head = run.module.model.head
    weight = (head.mixture() @ head.weight).detach().double().cpu().numpy()
    train, features = _states(run, "train")
    found = fit_reference(features, train.reward, train.first, train.second, weight)
    return with_typical(found, _states(run, "val")[1])


def _states(run: RewardRun, split: str) -> tuple[Scored, Any]:
    """Some `MOST` completions of a split, those of its first rows, and their states [N, D]."""
    rows = run.data.rows[split]
    some = int(np.searchsorted(np.cumsum(rows.lengths()[1]), MOST)) + 1
    columns = rows[list(range(min(some, len(rows))))]
    texts = zip(columns["prompt"], columns["responses"], strict=True)
    engine = ScoringEngine(run.module.model, pad_id=0, max_length=run.data.renderer.max_length)
    engine.layout = run.data.layout  # that of training
    found = ScoreMemo(engine).score([Encoded(p, r, list(range(len(r))), 0, 0) for p, r in texts])
    rewards = {row: scores.reward.double().numpy() for row, scores in enumerate(found)}
    return scored(rows, rewards), np.concatenate([scores.states.numpy() for scores in found])


def _score(run: RewardRun, split: str) -> Scored:
    run.module.to(run.trainer.strategy.root_device)
    found = gather(score_split(run.module.model, run.data.scoring_loader(split)))
    return scored(run.data.rows[split], run.data.distinct(split).of_rows(found))


def _load_best(run: RewardRun) -> None:
    """Put the weights of the best checkpoint back."""
    best = next(c for c in run.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
    if best.best_model_path:
        load_weights(run.module, best.best_model_path)


def _metrics(run: RewardRun, splits: dict[str, Scored], calibration: Calibration) -> dict[str, float]:
    metrics: dict[str, float] = {f"n_{name}": len(rows) for name, rows in run.data.rows.items()}
    for name, table in splits.items():
        found = evaluate(table, temperature=calibration.temperature, bootstrap=run.bootstrap, seed=run.seed)
        metrics |= {f"{name}/{key}": value for key, value in found.items()}
    trained = sum(p.numel() for p in run.module.parameters() if p.requires_grad)
    return metrics | {
        "parameters/trained": trained,
        "parameters/all": sum(p.numel() for p in run.module.parameters()),
        "steps": run.trainer.global_step,
        "epochs": run.trainer.current_epoch,
    }
