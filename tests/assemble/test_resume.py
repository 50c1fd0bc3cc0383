"""A run that is stopped anywhere and goes on is the run it would have been, bit for bit."""

import json
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

NOISY = ["head=ensemble", "head.dropout=0.3", "model.dropout=0.2", "data.size=150", "batch_size=8", "epochs=2"]


class Killed(RuntimeError):
    pass


def state(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


PACKED = ["layout=shared", "model.dropout=0", "batches.batch_tokens=1500"]
STATES = [*NOISY, "adapter=frozen"]


@pytest.mark.parametrize(
    ("kill_at", "options"),
    [(5, NOISY), (19, NOISY), (14, NOISY), (7, NOISY + PACKED), (40, [*NOISY, "max_group=2"]), (19, STATES)],
    ids=["mid first epoch", "mid second epoch", "between epochs", "packed to a token budget", "groups cut into blocks",
         "a head on cached states"],
)  # fmt: skip
def test_steps_before_and_after_a_kill_equal_an_uninterrupted_run(train, monkeypatch, kill_at, options):
    from rlhf.reward.module import RewardModule

    whole = train(*options, "trainer.save_every=1")
    step = RewardModule.training_step

    def dying(self, batch, batch_idx):
        if self.trainer.global_step == kill_at and self.resume is None and not self.trainer.ckpt_path:
            raise Killed
        return step(self, batch, batch_idx)

    monkeypatch.setattr(RewardModule, "training_step", dying)
    with pytest.raises(SystemExit):
        train(*options, "trainer.save_every=1", folder=whole.parent / "stopped")
    monkeypatch.setattr(RewardModule, "training_step", step)
    stopped = whole.parent / "stopped"
    assert state(stopped)["global_step"] == kill_at
    resumed = train(*options, "trainer.save_every=1", "ckpt=last", folder=stopped)
    one, two = state(whole), state(resumed)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "random_state", "global_step", "epoch"):
        assert equal(one[part], two[part]), part
    ours, theirs = (json.loads((f / "metrics.json").read_text()) for f in (whole, resumed))
    assert ours == theirs


def test_last_finds_the_newest_run_of_the_same_configuration(train, tmp_path):
    first = train("seed=1", folder=tmp_path / "runs" / "a")
    train("seed=2", folder=tmp_path / "runs" / "b")
    again = train("seed=1", "ckpt=last", folder=tmp_path / "elsewhere")
    assert equal(state(first)["state_dict"], state(again)["state_dict"])
    with pytest.raises(SystemExit):
        train("seed=3", "ckpt=last", folder=tmp_path / "nowhere")


def test_the_learning_rate_ends_where_the_schedule_says(train):
    folder = train("scheduler.end=0.25", "epochs=2", "trainer.accumulate_grad_batches=2")
    schedule = state(folder)["lr_schedulers"][0]
    assert schedule["_last_lr"][0] == pytest.approx(0.25e-3)


def test_a_resumed_run_goes_on_in_its_own_wandb_run(train):
    first = train("logger=wandb")
    second = train("logger=wandb", "epochs=2", f"ckpt={first}")
    ids = {path.name.split("-")[-1] for run in (first, second) for path in (run / "wandb").glob("offline-run-*")}
    assert ids == {state(first)["wandb_id"]} == {state(second)["wandb_id"]}
    assert all(list((run / "wandb").glob("offline-run-*/*.wandb")) for run in (first, second))
