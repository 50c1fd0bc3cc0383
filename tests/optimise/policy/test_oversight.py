"""Oversight: whom it asks about, what comes back, and what does not pass for votes."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from rlhf.annotate.simulated import SimulatedAnnotators
from rlhf.collect.prompts import Task
from rlhf.data.splits import HashSplit
from rlhf.optimise.iterate.generation import IteratePlan, Loop
from rlhf.optimise.iterate.pair_selection import PairSelection
from rlhf.optimise.iterate.run import _answers, iterate
from rlhf.optimise.policy.oversight import read_votes, shares, with_gold, write_tasks
from rlhf.optimise.shaping.ensemble import mean
from rlhf.optimise.shaping.kl_controllers import Fixed
from rlhf.optimise.shaping.shaper import Shaper
from rlhf.records import RecordError, prompt_hash, read, write
from rlhf.reward.schedule import constant
from rlhf.select.features import HashedWords, Reduced
from rlhf.select.strategies.selector import at_random
from rlhf.toy.gold import ToyGold
from rlhf.toy.linear_reward import LinearReward
from rlhf.toy.tabular_policy import TabularPolicy
from rlhf.toy.world import ToyWorld

WORLD = ToyWorld(size=160)
GOLD = ToyGold(WORLD)
TASKS = [Task(prompt_hash(r.prompt), r.prompt_id, r.prompt, r.domain, None) for r in WORLD.records()]


def test_every_split_is_asked_about():
    tasks = {"train": TASKS[:120], "val": TASKS[120:140], "test": TASKS[140:]}
    asked = shares(tasks, 40)
    assert [sum(t in part for t in asked) for part in tasks.values()] == [30, 5, 5]
    asked = shares(tasks, 10)
    assert [sum(t in part for t in asked) for part in tasks.values()] == [6, 2, 2]
    assert shares(tasks, 1) == TASKS[:1]
    assert len(shares(tasks, 1000)) == 160
    assert shares({"train": [], "val": TASKS[:3], "test": []}, 4) == TASKS[:3]


def test_where_all_answer_alike_nothing_is_asked(tmp_path):
    said = {"policy": ["A."] * 3, "reference": ["A."] * 3}
    assert write_tasks(tmp_path, 5, TASKS[:3], said, seed=0) is None
    assert not list(tmp_path.iterdir())


@pytest.fixture
def voted(tmp_path):
    """The folder of a step whose votes have come back, and the records with votes."""
    said = {"policy": ["Good."] * 4, "reference": ["Bad."] * 4}
    tasks = write_tasks(tmp_path, 50, TASKS[:4], said, seed=0, gold=lambda p, t: [len(x) for x in t])
    records = list(SimulatedAnnotators().vote(with_gold(read(tasks), tmp_path / "step-000050.gold.json")))
    write(tmp_path / "step-000050.votes.jsonl", records)
    assert [step for step, _ in read_votes(tmp_path)] == [50]
    return tmp_path, records


def test_votes_without_their_key_or_tasks_are_refused(voted):
    folder, _ = voted
    votes = folder / "step-000050.votes.jsonl"
    for wrong in ("step-000070", "step-fifty"):
        other = shutil.copy(votes, folder / f"{wrong}.votes.jsonl")
        with pytest.raises(RecordError, match=rf"{wrong}\.votes\.jsonl: no {wrong}\.key\.json beside it \(step-<n>"):
            list(read_votes(folder))
        other.unlink()
    (folder / "step-000050.tasks.jsonl").rename(folder / "kept")
    with pytest.raises(RecordError, match=r"no step-000050\.tasks\.jsonl beside it"):
        list(read_votes(folder))
    (folder / "kept").rename(folder / "step-000050.tasks.jsonl")
    (folder / "step-000050.key.json").write_text("{")
    with pytest.raises(RecordError, match=r"step-000050\.key\.json: is not JSON.*put back"):
        list(read_votes(folder))
    (folder / "step-000050.key.json").unlink()
    with pytest.raises(RecordError, match=r"no step-000050\.key\.json beside it"):
        list(read_votes(folder))


def test_votes_on_something_else_are_refused(voted):
    folder, records = voted
    path, first = folder / "step-000050.votes.jsonl", records[0]

    def refused(changed, said):
        write(path, changed)
        with pytest.raises(RecordError, match=rf"step-000050\.votes\.jsonl: {said}"):
            list(read_votes(folder))

    renamed = tuple(replace(c, id=f"x{c.id}") for c in first.completions)
    refused([replace(first, completions=renamed, votes=())], r"key 'completions\.id': .*c0.* not both .*same step")
    altered = (replace(first.completions[0], text="Better."), first.completions[1])
    refused([replace(first, completions=altered)], r"key 'completions\.text': .*another text.*same step")
    refused([replace(first, prompt="Else?")], "key 'prompt': .*the prompt has another text")
    refused([replace(first, prompt_id="other")], "key 'prompt_id': record other is not in the key")
    refused([], "key 'votes': 0 records, and no vote.*annotate")
    shutil.copy(folder / "step-000050.tasks.jsonl", path)
    with pytest.raises(RecordError, match="key 'votes': 4 records, and no vote"):
        list(read_votes(folder))
    write(path, records)
    assert len(next(read_votes(folder))[1]) == 4


def trainer(steps):
    import pytorch_lightning as pl

    return pl.Trainer(accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip


def loop(folder, lr=0.1, **plan):
    small = {"generations": 2, "steps": 2, "prompts": 6, "completions": 2, "samples": 20, "k": 2, "labelled": 12,
             "reference_samples": 40, "eval_prompts": 100, "oversight": 6}  # fmt: skip
    return Loop(
        folder,
        TabularPolicy(GOLD),
        list(WORLD.records())[:100],
        TASKS[:100],
        TASKS[100:],
        lambda r, s: LinearReward(r, members=2, seed=s),
        Shaper(Fixed(0.1), mean),
        {"optimizer": lambda groups: torch.optim.Adam(groups, lr=lr), "schedule": constant},
        IteratePlan(**small | plan),
        trainer,
        PairSelection(at_random, lambda: Reduced(HashedWords(dims=16), dims=8)),
        gold=GOLD,
    )


def test_who_is_overseen_with_is_not_evaluated_with(tmp_path):
    made = loop(tmp_path)
    assert made.overseen == TASKS[-6:]
    assert made.eval_tasks == TASKS[100:-6]
    assert loop(tmp_path, eval_prompts=10).eval_tasks == TASKS[100:110]
    assert loop(tmp_path, oversight=0).overseen == []
    with pytest.raises(RecordError, match=r"'task\.plan\.oversight': 59 of 60 held-out.*task\.held_out"):
        loop(tmp_path, oversight=59)


def test_a_policy_that_is_its_reference_draws_other_answers(tmp_path):
    made = loop(tmp_path)
    assert _answers(made, "policy") != _answers(made, "reference")
    assert _answers(made, "policy") == _answers(made, "policy")


@pytest.mark.slow
@pytest.mark.parametrize("oversight", [0, 6])
def test_people_are_not_asked_where_nothing_differs_and_the_loop_goes_on(tmp_path, capsys, monkeypatch, oversight):
    monkeypatch.setattr("rlhf.optimise.iterate.run._answers", lambda made, who: ["A."] * len(made.overseen))
    iterate(loop(tmp_path, oversight=oversight))
    said, folder = capsys.readouterr().out, tmp_path / "generation-0"
    assert ("all answers are alike" in said) == bool(oversight)
    assert said.count("annotate.py") == 1
    assert "tasks.jsonl" not in said
    waiting = with_gold(read(folder / "unlabelled.jsonl"), folder / "unlabelled.gold.json")
    write(folder / "records.jsonl", SimulatedAnnotators().vote(waiting))
    iterate(loop(tmp_path, oversight=oversight))
    assert (tmp_path / "generation-1" / "policy.pt").is_file()
    simulated = replace(loop(tmp_path / "simulated", oversight=oversight), label_source=SimulatedAnnotators().vote)
    iterate(simulated)
    assert not list((tmp_path / "simulated").glob("*/step-*"))


@pytest.mark.slow
def test_votes_on_a_policy_train_the_next_reward_model(train, exported, policy, capsys):
    asks = "{_target_:rlhf.optimise.policy.oversight.Oversight,every:2,prompts:30}"
    run = train(
        "task=policy", f"reward={exported()}", "model=local", f"model.path={policy}", f"task.oversight={asks}",
        "task.steps=2", "task.prompts=2", "task.completions=2", "task.max_new_tokens=6", "task.reference_samples=32",
        "task.eval_prompts=8",
    )  # fmt: skip
    (tasks,) = (run / "oversight").glob("*.tasks.jsonl")
    records = list(read(tasks))
    splits = [HashSplit().split_of(r) for r in records]
    assert {s: splits.count(s) >= 2 for s in ("train", "val", "test")} == dict.fromkeys(("train", "val", "test"), True)
    key = json.loads((run / "oversight" / "step-000002.key.json").read_text())
    assert {w for who in key.values() for w in who.values()} == {"policy", "reference"}
    votes = run / "oversight" / "step-000002.votes.jsonl"
    # these texts are noise, so their true rewards tie; length tells them apart
    length = SimulatedAnnotators(gold=lambda r: [float(len(c.text)) for c in r.completions], tie_width=0.0)
    write(votes, length.vote(records))
    again = train("data=jsonl", f"data.path={run}/oversight/*.votes.jsonl", "model=toy", "model.width=16",
                  "model.depth=1", "batch_size=8")  # fmt: skip
    rows = json.loads((again / "data_report.json").read_text())["rows"]
    assert rows["train"]["records"] == splits.count("train")
