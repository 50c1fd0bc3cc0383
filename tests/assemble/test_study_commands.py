"""The commands: `python train.py experiment=...` for every study, sweeps, and settings that are refused."""

import csv
import json

import pytest

SMALL = ["task.study.worlds=2", "task.study.steps=5", "task.study.votes=60", "bootstrap=50"]
PICKING = [*SMALL, "task.study.answers=64", "task.study.members=2"]


@pytest.mark.slow
def test_a_study_leaves_its_files_and_its_log(train):
    folder = train("experiment=temperature", "task.study.fresh=200", *SMALL)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["single/accuracy/before"] == metrics["single/accuracy/after"]
    assert metrics["single/nll/after/ci_low"] <= metrics["single/nll/after"] <= metrics["single/nll/after/ci_high"]
    for name in ("temperature.md", "temperature.png", "worlds.csv"):
        assert (folder / name).is_file()
    log = list(csv.DictReader((folder / "csv" / "metrics.csv").open()))
    assert [row["step"] for row in log] == ["0", "1", "2"]
    assert float(log[2]["lead/nll/after"]) == pytest.approx(metrics["lead/nll/after"])
    assert log[1]["world/single/temperature"] != ""


@pytest.mark.slow
def test_wandb_has_the_table_and_the_figure(train):
    folder = train("experiment=label_noise", "task.study.at=[8,64]", "task.study.fresh=50", "logger=wandb", *PICKING)
    (run,) = (folder / "wandb").glob("offline-run-*")
    kinds = {path.suffix for path in (run / "files" / "media").rglob("*.*")}
    assert kinds == {".png", ".json"}
    assert "noise=0.4/mean/added/accuracy" in json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_noise_is_swept_in_one_run_and_compared_in_one_table(sweep):
    sweep = sweep("experiment=best_of_n", "task.study.noise=0,0.25", *PICKING, "logger=csv")
    rows = list(csv.DictReader((sweep / "comparison.csv").open()))
    assert [(row["task.study.noise"], row["status"]) for row in rows] == [("0", "done"), ("0.25", "done")]
    for row in rows:
        metrics = json.loads((sweep / row["job"] / "metrics.json").read_text())
        assert float(row["mean/lead/64"]) == pytest.approx(metrics["mean/lead/64"])
        assert float(row["mean/lead/64/ci_low"]) == pytest.approx(metrics["mean/lead/64/ci_low"])
    assert "val/pair_accuracy" not in (sweep / "comparison.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["experiment=best_of_n", "task.study.noise=0.7"], "key 'task.study.noise': 0.7 is no number from 0 to 0.5"),
        (
            ["task=study"],
            "key 'task.study': nothing to measure (experiment= one of best_of_n, label_noise, temperature)",
        ),
    ],
)
def test_bad_settings_are_told_without_hydras_words(train, capsys, overrides, said):
    with pytest.raises(SystemExit):
        train(*overrides)
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert "Error in call" not in told
