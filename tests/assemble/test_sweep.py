"""Sweeps: one folder, one W&B run and one table row per job; mistyped overrides answer at once."""

import csv
import json
import subprocess
import sys

import pytest

SMALL = ["data.size=150", "epochs=1", "bootstrap=20", "model.width=16", "model.depth=1", "max_length=256",
         "trainer.enable_progress_bar=false"]  # fmt: skip


def command(root, *arguments):
    return subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=root, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_sweep_gives_each_job_its_own_run_and_ends_in_a_comparison(sweep):
    sweep = sweep("loss=pairwise,ranking", *SMALL)
    rows = list(csv.DictReader((sweep / "comparison.csv").open()))
    assert [(r["job"], r["loss"], r["status"]) for r in rows] == [("0", "pairwise", "done"), ("1", "ranking", "done")]
    assert (sweep / "comparison.md").is_file()
    ids, groups = set(), set()
    for job in ("0", "1"):
        (run,) = (sweep / job / "wandb").glob("offline-run-*")
        ids.add(run.name.split("-")[-1])
        logged = next(run.glob("run-*.wandb")).read_bytes()
        groups.add(b"sweep" in logged)
        assert json.loads((sweep / job / "metrics.json").read_text())["test/pair_accuracy"] >= 0
        assert (sweep / job / "checkpoints" / "best.ckpt").is_file()
    assert len(ids) == 2
    assert groups == {True}


@pytest.mark.parametrize(
    ("override", "meant"),
    [("batch_sise=3", "batch_size=3"), ("loss=rankin", "loss=ranking"), ("los=ranking", "loss=ranking")],
)
def test_a_mistyped_override_answers_at_once_with_a_suggestion(root, override, meant):
    done = command(root, override)
    assert done.returncode != 0
    assert f"did you mean {meant} ?" in done.stderr


def test_nothing_heavy_is_imported_before_the_configuration_is_sound(root):
    code = "import sys, train; print(sorted(m for m in ('torch', 'transformers', 'wandb') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
