"""Two processes train what one process with twice the batch trains."""

import json
import subprocess
import sys

import pytest
import torch

COMMON = [
    "model=tiny", "data.items=24", "data.off_topic=3", "data.size=200", "epochs=2", "bootstrap=20", "model.width=32",
    "model.depth=1", "max_length=256", "logger=csv", "optimizer=sgd", "trainer.enable_progress_bar=false",
    "trainer.gradient_clip_val=null",
]  # fmt: skip


def run(root, folder, *arguments):
    command = [sys.executable, "train.py", f"runs={folder.parent}", f"hydra.run.dir={folder}", *COMMON, *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("run: ") == 1
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return weights, json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_two_processes_train_and_evaluate_like_one_with_twice_the_batch(root, tmp_path):
    one, alone = run(root, tmp_path / "one", "batch_size=16")
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "batch_size=8"]
    two, together = run(root, tmp_path / "two", *ddp)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=1e-4)
    assert together["export/difference"] < 1e-5
    for key in ("test/pair_accuracy", "test/nll", "val/nll", "n_test", "steps"):
        assert together[key] == pytest.approx(alone[key], abs=1e-4), key
