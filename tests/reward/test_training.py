"""The task `reward` in this process: what is fitted on which split."""

import json

import numpy as np
import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from reward_modules import build_data, build_module

from rlhf.evaluation.metrics.calibration import fit_temperature_with_prior
from rlhf.reward import training
from rlhf.reward.scoring.splits import score_split, scored
from rlhf.reward.training import RewardRun, train_reward


@pytest.fixture
def run(tmp_path, monkeypatch):
    """One epoch on 200 toy records; the export, which has tests of its own, is left out."""
    monkeypatch.setattr(training, "export", lambda *parts: 0.0)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False, logger=False,
        enable_model_summary=False, callbacks=[ModelCheckpoint(tmp_path / "checkpoints", save_last=True)],
    )  # fmt: skip
    return RewardRun(
        folder=tmp_path, data=build_data(tmp_path / "cache", 200), module=build_module(), trainer=trainer,
        monitor="val/nll", checkpoint=None, bootstrap=5, seed=0,
    )  # fmt: skip


def rescored(run, split):
    """Rewards beside labels of one split, from the weights that the run ended with."""
    loader = run.data.loader(split, 7, None)
    return scored(run.data.rows[split], score_split(run.module.model, loader))


def expected(table):
    difference = table.reward[table.first] - table.reward[table.second]
    return {
        "temperature": fit_temperature_with_prior(difference, table.win_prob, table.pair_prompt),
        "reward_mean": np.mean(table.reward), "reward_std": np.std(table.reward),
        "n_pairs": len(difference), "n_completions": len(table.reward),
    }  # fmt: skip


@pytest.mark.slow
def test_temperature_mean_and_std_come_from_validation_and_differ_from_those_of_the_test(run):
    metrics = train_reward(run)
    fitted = json.loads((run.folder / "calibration.json").read_text())
    val, test = expected(rescored(run, "val")), expected(rescored(run, "test"))
    for name, value in val.items():
        assert fitted[name] == pytest.approx(value, rel=1e-4), name
        both_one = name == "temperature" and test[name] == value == 1
        assert both_one or fitted[name] != pytest.approx(test[name], rel=1e-3), name
    assert fitted["fitted_on"] == "val"
    assert metrics["test/temperature"] == metrics["val/temperature"] == fitted["temperature"]
