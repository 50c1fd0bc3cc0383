"""The line that says how many optimiser steps a training takes."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from reward_modules import build_data, build_module

from rlhf.reward.pace import FEW, Pace


class Steps(pl.Callback):
    """Counts what the line promises."""

    def __init__(self):
        self.count = 0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.count += 1


def fit(tmp_path, *, epochs=2, accumulate=1, **options):
    data, steps = build_data(tmp_path / "rows", **options), Steps()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False, logger=False,
        enable_model_summary=False, enable_checkpointing=False, accumulate_grad_batches=accumulate,
        callbacks=[Pace(), steps],
    )  # fmt: skip
    module = build_module()
    module.optimizer = partial(torch.optim.SGD, lr=0.0)
    trainer.fit(module, datamodule=data)
    return data, steps.count


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "batch_size="),
        ({"accumulate": 3}, "trainer.accumulate_grad_batches=1"),
        ({"batch_tokens": 4000}, "batches.batch_tokens"),
        ({"batch_size": 1, "size": 30, "epochs": 1}, "epochs="),
    ],
    ids=["groups", "accumulated", "tokens", "single"],
)
def test_few_steps_are_counted_rightly_and_have_a_remedy(tmp_path, capsys, options, remedy):
    data, taken = fit(tmp_path, **options)
    first, second = capsys.readouterr().out.splitlines()
    assert f", {taken} at most" in first
    assert f"{taken // options.get('epochs', 2)} an epoch" in first
    assert f"{data.report['merge/records_before']} records" in first
    assert taken < FEW
    assert remedy in second


def test_the_remedy_holds_and_many_steps_need_none(tmp_path, capsys):
    fit(tmp_path)
    remedy = int(capsys.readouterr().out.partition("batch_size=")[2].split()[0])
    _, taken = fit(tmp_path, batch_size=remedy)
    assert taken >= FEW
    assert len(capsys.readouterr().out.splitlines()) == 1
