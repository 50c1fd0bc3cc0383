"""`task=active` from the command line: what it writes, going on, and whole models trained every round."""

import csv
import json
import re
from pathlib import Path

import pytest
from blind_tasks import with_gold

from rlhf.annotate.simulated import SimulatedAnnotators
from rlhf.records import write
from rlhf.toy.world import ToyWorld


@pytest.mark.slow
def test_the_command_writes_what_the_contract_names_and_goes_on(train, tmp_path, capsys):
    small = ["task=active", "features=qualities", "task.seeds=2", "split.test=0.3", "task.plan.rounds=2"]
    folder = train(*small, "selector=mixed")
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"run: {folder}"
    assert "labels saved" in out
    with (folder / "curve.csv").open() as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == ["selector", "seed", "round", "labels", "pair_accuracy", "nll"]
    assert {(r["selector"], r["seed"]) for r in rows} == {(s, k) for s in ("mixed", "random") for k in "01"}
    assert len(rows) == 12
    for name in ("curve.png", "curve.md", "shift.json", "metrics.json"):
        assert (folder / name).is_file(), name
    chosen = [json.loads(line) for line in (folder / "selected.jsonl").open()]
    assert len(chosen) == 4 * 60
    assert len({(c["selector"], c["seed"], c["pair_id"]) for c in chosen}) == len(chosen)
    assert json.loads((folder / "metrics.json").read_text())["compare/mixed/paired_seeds"] == 2
    shift = json.loads((folder / "shift.json").read_text())
    assert {"classifier/auc", "coverage", "reward/drift", "length/drift", "embedding/drift"} <= set(shift[-1])
    again = train(*small[:-1], "task.plan.rounds=3", "task.ceiling=false", "selector=mixed", f"ckpt={folder}")
    assert not (again / "curve.csv").exists()
    more = list(csv.DictReader((folder / "curve.csv").open()))
    assert len(more) == 16
    assert [r for r in more if int(r["round"]) < 3] == rows
    with pytest.raises(SystemExit):
        train(*small, "selector=margin", f"ckpt={folder}")
    assert "selector differ from that run" in capsys.readouterr().err
    assert Path(f"{folder}/arms/random-1/journal.jsonl").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("warm", "adapter"), [("false", "none"), ("true", "none"), ("true", "frozen")])
def test_models_are_trained_every_round_and_a_second_visit_trains_nothing(train, warm, adapter, monkeypatch, tmp_path):
    write(tmp_path / "policy.jsonl", ToyWorld(size=6, seed=5).records())
    small = ["task=active", "learner=fine_tune", f"learner.warm={warm}", f"adapter={adapter}", "task.seeds=1",
             "split.test=0.3", "data.size=60", "task.plan.start=20", "task.plan.rounds=1", "selector=disagreement",
             "task.compare_with=[]", "head=ensemble", "head.members=2", "label_source=held_back", "task.ceiling=false",
             f"task.policy={tmp_path / 'policy.jsonl'}"]  # fmt: skip
    folder = train(*small)
    rows = list(csv.DictReader((folder / "curve.csv").open()))
    assert [int(r["labels"]) for r in rows] == [20, 40]
    fits = sorted((folder / "arms" / "disagreement-0" / "fits").glob("*/metrics.json"))
    assert len(fits) == 2
    found = json.loads(fits[0].read_text())
    assert found["n_train"] <= 20
    assert not list(folder.rglob("model")), "a model that is thrown away is not exported"
    assert not (folder / "ceiling").exists()
    assert "ceiling/nll" not in json.loads((folder / "metrics.json").read_text())
    for line in json.loads((folder / "shift.json").read_text()):
        assert 0 <= line["coverage/policy"] <= 1
    assert found["test/nll"] == pytest.approx(float(rows[0]["nll"]), abs=2e-3)
    monkeypatch.setattr("rlhf.select.loop.fine_tuning.train_reward", None)
    (folder / "curve.csv").unlink()
    journal = folder / "arms" / "disagreement-0" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))  # killed between training and its result
    train(*small, f"ckpt={folder}")
    again = list(csv.DictReader((folder / "curve.csv").open()))
    assert [r["nll"] for r in again] == pytest.approx([r["nll"] for r in rows]) or again == rows


@pytest.mark.slow
def test_people_are_waited_for_and_the_command_shown_goes_on(train, capsys):
    small = [
        "task=active",
        "features=qualities",
        "data.size=60",
        "split.test=0.3",
        "label_source=people",
        "selector=margin",
        "task.only_voted=false",
        "task.plan.start=6",
        "task.plan.rounds=0",
    ]
    folder = train(*small)
    said = capsys.readouterr().out
    tasks = folder / "arms" / "margin-0" / "tasks-0.jsonl"
    assert f"6 pairs wait for votes in {tasks}" in said
    write(tasks.with_name("votes-0.jsonl"), SimulatedAnnotators(votes_per_item=1).vote(with_gold(tasks)))
    train(*small, re.search(r"ckpt=\S+", said)[0])
    rows = list(csv.DictReader((folder / "curve.csv").open()))
    assert [int(r["labels"]) for r in rows] == [6]
