"""`task=crossvalidate` as it is typed: the report, a kill in the middle of a fold, a sweep, and what is refused."""

import csv
import json

import pytest
from hydra import compose, initialize_config_dir

from rlhf.assemble import CONF
from rlhf.assemble.schema.bounds import check_ranges
from rlhf.assemble.schema.commands import Train
from rlhf.assemble.tasks.crossvalidate import check_folds
from rlhf.records import RecordError

FOLDS = ["task=crossvalidate", "split=folds", "split.k=2", "split.key=domain", "data.size=120", "batch_size=8",
         "model.width=16"]  # fmt: skip


class Killed(RuntimeError):
    pass


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=["task=crossvalidate", *overrides])


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_fold_changes_no_number(train, monkeypatch, capsys, tmp_path):
    from rlhf.reward.module import RewardModule

    whole = train(*FOLDS, folder=tmp_path / "whole")
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {whole}"
    for name in ("report.html", "examples.parquet", "folds/0/metrics.json", "folds/1/checkpoints/best.ckpt"):
        assert (whole / name).is_file(), name
    folds = list(csv.DictReader((whole / "folds.csv").open()))
    assert [row["fold"] for row in folds] == ["0", "1"]
    assert len("; ".join(row["groups"] for row in folds).split("; ")) == 6
    tests = [json.loads((whole / "folds" / str(i) / "metrics.json").read_text()) for i in range(2)]
    for row, alone in zip(folds, tests, strict=True):
        for key, name in (("n_pairs", "n_pairs"), ("pair_accuracy", "pair_accuracy"), ("nll", "nll"), ("ece", "ece")):
            assert float(row[key]) == pytest.approx(alone[f"test/{name}"], rel=1e-5), key

    step, started = RewardModule.training_step, []

    def dying(self, batch, batch_idx):
        started.append(self.trainer.global_step)
        if started.count(0) == 2 and self.trainer.global_step == 3:  # in the second fold
            raise Killed
        return step(self, batch, batch_idx)

    monkeypatch.setattr(RewardModule, "training_step", dying)
    stopped = tmp_path / "stopped"
    with pytest.raises(SystemExit):
        train(*FOLDS, "trainer.save_every=1", folder=stopped)
    assert (stopped / "folds" / "0" / "scores.parquet").is_file()
    assert (stopped / "folds" / "1" / "checkpoints" / "last.ckpt").is_file()
    started.clear()
    train(*FOLDS, "trainer.save_every=1", "ckpt=last", folder=stopped)
    assert started[0] == 3  # the first fold was not trained again, the second not from its start
    assert json.loads((stopped / "report.json").read_text()) == json.loads((whole / "report.json").read_text())


@pytest.mark.slow
def test_a_sweep_compares_settings_on_the_same_folds(sweep):
    small = ["epochs=1", "bootstrap=20", "model.depth=1", "max_length=256", "trainer.enable_progress_bar=false"]
    root = sweep(*FOLDS, *small, "logger=csv", "loss=soft_label,pairwise")
    first, second = csv.DictReader((root / "comparison.csv").open())
    assert (first["status"], second["status"]) == ("done", "done")
    accuracies = [
        {row["group"]: float(row["pair_accuracy"]) for row in csv.DictReader((root / job / "groups.csv").open())}
        for job in "01"
    ]
    mean = sum(accuracies[1][g] - accuracies[0][g] for g in accuracies[0]) / 6
    assert float(second["pair_accuracy/minus_0"]) == pytest.approx(mean)
    assert "paired by the group that was left out" in (root / "comparison.md").read_text()


def test_a_fold_alone_is_an_ordinary_split(train):
    folder = train(*FOLDS[1:], "split.fold=1")
    report = json.loads((folder / "data_report.json").read_text())
    assert report["splits"]["prompts_in_several_splits"] == 0
    assert json.loads((folder / "metrics.json").read_text())["test/n_pairs"] > 0


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["split=hash"], r"key 'split'.*split=folds split\.k=5 split\.key=prompt"),
        (["split=folds", "bootstrap=0"], r"key 'bootstrap'.*bootstrap=1000"),
        (["split=folds", "trainer=ddp"], r"trainer\.devices.*one device"),
    ],
)
def test_what_cannot_be_cross_validated_is_refused_before_anything_is_loaded(overrides, match):
    with pytest.raises(RecordError, match=match):
        check_folds(composed(*overrides))


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("split.k=1", r"split\.k=1 must be a whole number, 2 or more, or null"),
        ("split.k=2.5", r"split\.k=2\.5 must be a whole number"),
        ("split.fold=5", r"split\.fold.*5: there are split\.k=5 folds.*0 to 4"),
        ("split.fold=-1", r"split\.fold=-1 must be a whole number, 0 or more"),
    ],
)
def test_bounds_of_folds(override, match):
    with pytest.raises(RecordError, match=match):
        check_ranges(composed("split=folds", override), Train)
