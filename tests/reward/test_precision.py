"""`trainer.precision=auto`: bf16 only where the machine computes it fast, decided once, kept on resume."""

import os

import pytest
import torch
from omegaconf import OmegaConf

from rlhf.assemble.tasks.reward import _precision, lightning_trainer
from rlhf.reward import precision
from rlhf.reward.checkpoint import random_state
from rlhf.reward.precision import auto_precision, bf16_gain


@pytest.fixture(autouse=True)
def undecided(monkeypatch):
    monkeypatch.delenv(precision.DECIDED, raising=False)


@pytest.mark.parametrize(("gain", "wanted"), [(14.0, "bf16-mixed"), (1.1, "32-true"), (1 / 14, "32-true")])
def test_the_faster_one_is_taken_and_said(monkeypatch, capsys, gain, wanted):
    monkeypatch.setattr(precision, "bf16_gain", lambda device: gain)
    assert auto_precision("cpu") == wanted
    said = capsys.readouterr().out
    assert wanted in said
    assert ("slower" in said) == (gain < 1)


def test_what_the_first_process_decided_holds_for_those_it_starts(monkeypatch, capsys):
    monkeypatch.setattr(precision, "bf16_gain", lambda device: 9.0)
    auto_precision("cpu")
    monkeypatch.setattr(precision, "bf16_gain", lambda device: 0.1)
    capsys.readouterr()
    assert auto_precision("cpu") == os.environ[precision.DECIDED] == "bf16-mixed"
    assert capsys.readouterr().out == ""


def test_the_trial_draws_no_random_number(monkeypatch):
    bf16_gain.cache_clear()
    before = random_state()
    assert bf16_gain("cpu") > 0
    after = random_state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["numpy"] == after["numpy"]
    assert before["python"] == after["python"]


def test_a_resumed_run_keeps_its_precision_and_what_is_asked_for_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "bf16_gain", lambda device: 9.0)
    asked = OmegaConf.create({"trainer": {"precision": "auto", "accelerator": "cpu"}})
    torch.save({"precision": "32-true"}, tmp_path / "new.ckpt")
    torch.save({"epoch": 3}, tmp_path / "old.ckpt")
    assert _precision(asked, tmp_path / "new.ckpt") == "32-true"
    assert _precision(asked, tmp_path / "old.ckpt") == "32-true", "what runs had before there was a choice"
    assert _precision(asked, None) == "auto"
    assert lightning_trainer(precision="auto", accelerator="cpu", logger=False).precision == "bf16-mixed"
    asked.trainer.precision = "bf16-mixed"
    assert _precision(asked, tmp_path / "new.ckpt") == "bf16-mixed"
