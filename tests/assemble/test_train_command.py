"""`train.py` from the command line to the files in the run's folder."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rlhf

pytestmark = pytest.mark.slow


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def _cache():
    return {}


@pytest.mark.fresh_process
def test_a_run_leaves_everything_the_contract_names(train, capsys):
    folder = train()
    assert capsys.readouterr().out.splitlines()[-1] == f"run: {folder}"
    for name in (
        ".hydra/config.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "metrics.json", "calibration.json",
        "data_report.json", "model/config.json", "model/model.safetensors", "model/tokenizer.json", "csv/metrics.csv",
    ):  # fmt: skip
        assert (folder / name).is_file(), name
    found = metrics(folder)
    for key in ("val/pair_accuracy", "test/pair_accuracy", "test/nll", "test/ece", "n_train", "n_test"):
        assert math.isfinite(found[key]), key
    assert found["export/difference"] < 1e-5
    fitted = json.loads((folder / "calibration.json").read_text())
    report = json.loads((folder / "data_report.json").read_text())
    assert fitted["fitted_on"] == "val"  # and never on the test split
    assert fitted["data_hash"] == report["data_hash"]
    assert fitted["n_pairs"] > 0
    report = json.loads((folder / "data_report.json").read_text())
    counts = report["rows"]["train"]
    dropped = sum(n for name, n in counts.items() if name.startswith("dropped/"))
    assert counts["records"] == counts["kept"] + dropped  # nothing is lost uncounted
    assert sum(split["records"] for split in report["splits"]["splits"].values()) == 200
    assert counts["records"] <= report["merge/records_before"] + dropped
    assert report["splits"]["prompts_in_several_splits"] == 0  # no leak between splits


def test_the_loaded_run_scores_like_training_did_and_compares_by_temperature(train):
    folder = train()
    scorer = rlhf.load(folder)
    probes = json.loads((folder / "model" / "probes.json").read_text())
    first = scorer.score("Name a colour.", ["Blue."])[0]
    assert abs(first - probes[0]["score"]) < 1e-5
    assert rlhf.load(folder / "model").score("Name a colour.", ["Blue."])[0] == first
    a, b = scorer.score("p", ["one", "another"])
    temperature = scorer.calibration.temperature
    assert math.isclose(scorer.compare("p", "one", "another"), 1 / (1 + math.exp((b - a) / temperature)), rel_tol=1e-9)
    with pytest.raises(ValueError, match="max_length"):
        scorer.score("p", ["x" * 5000])
    with pytest.raises(ValueError, match="non-empty list"):
        scorer.score("p", [])


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss=ranking", "head=ensemble"],
        ["loss=ranking", "layout=padded", "batches.batch_tokens=8000", "trainer.compile=true", "model.depth=2"],
        ["loss=soft_label", "trainer.compile=true", "model.depth=2", "model.gradient_checkpointing=true"],
        ["loss=plackett_luce", "adapter=lora"],
        ["loss=rao_kupper", "aggregation=majority", "head=ensemble", "adapter=lora"],
        ["loss=pairwise", "scheduler=cosine", "optimizer=sgd", "trainer.precision=bf16-mixed"],
        [
            "loss=davidson",
            "trainer.accumulate_grad_batches=2",
            "model.gradient_checkpointing=true",
            "batches.workers=1",
        ],
    ],
    ids=" ".join,
)
def test_options_train_and_export(train, overrides):
    folder = train(*overrides)
    found = metrics(folder)
    assert found["export/difference"] < 1e-5
    scorer = rlhf.load(folder)
    probes = json.loads((folder / "model" / "probes.json").read_text())
    assert abs(scorer.score("Name a colour.", ["Blue."])[0] - probes[0]["score"]) < 1e-4
    if "head=ensemble" in overrides:
        members = scorer.members("Name a colour.", ["Blue.", "Red."])
        assert members.shape == (5, 2)
        assert members.var(0).min() > 0
    if any("rao_kupper" in o or "davidson" in o for o in overrides):
        assert json.loads((folder / "calibration.json").read_text())["tie_width"] > 0


def test_attributes_and_criterion_reach_the_aggregation_from_the_root(train, tmp_path):
    from rlhf.records import Vote, write
    from rlhf.toy.world import ToyWorld

    def rated(record, number):
        likert = {c.id: 1 + (i + number) % 5 for i, c in enumerate(record.completions)}
        votes = [Vote("w", criterion=c, likert=likert) for c in ("honesty", "helpfulness")]
        return replace(record, votes=tuple(votes))

    path = tmp_path / "rated.jsonl"
    write(path, (rated(r, n) for n, r in enumerate(ToyWorld(size=120).records())))
    folder = train(
        "data=jsonl", f"data.path={path}", "head=attributes", "loss=regression", "split=balanced",
        "batches.attributes=[honesty,helpfulness]", "criterion=honesty",
    )  # fmt: skip
    scorer = rlhf.load(folder)
    found = scorer.attributes("p", ["a", "b", "c"])
    assert list(found) == ["honesty", "helpfulness"]
    head = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    states = scorer.states("p", ["a", "b", "c"])
    expected = head["model.head.weight"] @ states.T + head["model.head.bias"][:, None]
    torch.testing.assert_close(torch.tensor(list(found.values())), expected, atol=1e-5, rtol=1e-5)
    assert head["model.head.bias"].abs().min() > 1e-3  # the ratings are around 3: a lost bias would show
    assert metrics(folder)["export/difference"] < 1e-5


def test_other_labels_for_training_than_for_evaluation_are_refused(train, capsys):
    with pytest.raises(SystemExit):
        train("aggregation.criterion=quality")
    assert "give criterion=quality once" in capsys.readouterr().err


@pytest.mark.parametrize(("monitor", "mode"), [("val/nll", min), ("val/pair_accuracy", max)])
def test_the_best_checkpoint_is_the_best_by_the_monitored_metric(train, monitor, mode):
    few = ["model=tiny", "model.width=32", "model.depth=1", "data.items=24", "data.off_topic=3"]  # overfits
    folder = train(f"trainer.monitor={monitor}", "epochs=5", "trainer.patience=9", "optimizer.build.lr=1e-2", *few)
    with (folder / "csv" / "metrics.csv").open() as file:
        seen = [float(row[monitor]) for row in csv.DictReader(file) if row[monitor]]
    assert len(seen) == 5
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert seen[best["epoch"]] == mode(seen) != seen[-1]


def test_a_metric_that_is_not_measured_is_refused_before_training(train, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train("trainer.monitor=val/accuracy", folder=tmp_path / "out")
    assert "trainer.monitor=val/accuracy must be one of val/nll, val/pair_accuracy" in capsys.readouterr().err
    assert not (tmp_path / "out" / "data_report.json").exists()


def test_lora_checkpoints_hold_the_head_and_the_adapter_only_and_resume_twice(train, tmp_path):
    folder = train("adapter=lora", "epochs=1")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert "model.head.weight" in state
    assert not any("lora" in name and "head" in name for name in state)
    assert all("lora" in n or "head" in n or "score" in n for n in state)
    second = train("adapter=lora", "epochs=2", f"ckpt={folder}")
    third = train("adapter=lora", "epochs=3", f"ckpt={second}")
    again = torch.load(third / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert set(again) == set(state)
    assert metrics(third)["epochs"] == 3


def test_a_checkpoint_of_another_model_is_refused(train):
    folder = train()
    with pytest.raises((ValueError, SystemExit)):
        train("head=ensemble", "epochs=2", f"ckpt={folder}")


def test_doctor_passes_on_the_default_and_exits_with_one_when_a_check_fails(train, capsys):
    folder = train("debug=doctor")
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert {c["verdict"] for c in json.loads((folder / "doctor.json").read_text())} <= {"ok", "warn"}
    with pytest.raises(SystemExit) as end:
        train("debug=doctor", "max_length=32")
    assert end.value.code == 1
    assert "answers too long" in capsys.readouterr().out
