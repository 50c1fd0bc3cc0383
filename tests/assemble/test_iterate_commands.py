"""`task=iterate` with a language model, and `task=early_stopping`, from the command line."""

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from rlhf.optimise.policy.early_stopping import StoppingRule, above
from rlhf.records import read
from rlhf.studies.early_stopping import Unstopped, best_level, outcome, study

pytestmark = pytest.mark.slow
SMALL = [
    "task=iterate", "model=toy", "model.width=16", "model.depth=1", "data.size=80", "policy=language",
    "policy.max_new_tokens=6", "task.plan.steps=2", "task.plan.prompts=3", "task.plan.completions=2",
    "task.plan.samples=8", "task.plan.k=2", "task.plan.labelled=5", "task.plan.reference_samples=32",
    "task.plan.eval_prompts=6", "task.plan.oversight=4", "scheduler=constant", "optimizer.build.lr=1e-2",
    "shaping.rules.missing_eos=null",
]  # fmt: skip


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def test_a_language_model_goes_through_the_generations_and_on_after_a_stop(train):
    given = [*SMALL, "adapter=lora", "selector=logdet", "sampler=diverse"]
    whole = train(*given, "task.plan.generations=2")
    first = train(*given, "task.plan.generations=1")
    train(*given, "task.plan.generations=2", f"ckpt={first}")
    assert metrics(first) == metrics(whole)
    rows = list(csv.DictReader((whole / "traces.csv").open()))
    assert len(rows) == 4
    assert {"kl", "reward", "watch", "gold", "disagreement", "distance", "length"} <= set(rows[0])
    assert float(rows[0]["kl"]) == pytest.approx(0, abs=1e-4)
    assert abs(float(rows[3]["kl"])) > 1e-3
    chosen = list(read(whole / "generation-1" / "unlabelled.jsonl"))
    voted = list(read(whole / "generation-1" / "records.jsonl"))
    assert len(chosen) == len(voted) == 5
    assert all(len(r.votes) == 3 for r in voted)
    heats = {c.source["temperature"] for r in chosen for c in r.completions}
    assert heats <= {0.7, 1.0}  # the first two decodings of sampler=diverse
    state = torch.load(whole / "generation-1" / "policy.pt", weights_only=True)["speaker"]
    assert all("lora" in name for name in state)


def test_the_reward_model_is_a_run_that_is_trained_again_on_the_votes(train):
    with patch("rlhf.reward.export.check"):  # a process per run; tested where exporting is
        run = train(
            *SMALL,
            "reward_learner=trained",
            "data.items=24",  # so that few prompts come twice, whose votes would add up
            "+reward_learner.changes.epochs=2",
            "head=ensemble",
            "head.members=2",
            "task.plan.generations=2",
            "early_stopping=disagreement",
            "split=balanced",
            "bootstrap=0",
            "logger=wandb",
        )
    assert len(list(run.parent.glob("**/*.wandb"))) == 1  # the reward models' trainings have no runs of their own
    rewards = sorted((run / "rewards").iterdir())
    assert len(rewards) == 4  # two halves, two generations
    sizes = [int(folder.name[:6]) for folder in rewards]
    more = sum(sizes[2:]) - sum(sizes[:2])
    assert 5 < more <= 5 + 4  # pairs that were voted on, and those of the oversight whose answers differ
    assert all((folder / "model" / "config.json").is_file() for folder in rewards)
    state = torch.load(run / "generation-1" / "policy.pt", weights_only=True)["speaker"]
    assert state  # the whole model, without its reference
    assert not any("frozen" in name for name in state)


def test_a_study_of_early_stopping_evaluates_levels_on_other_runs(tmp_path):
    """Gold rises to step 20, then falls in half of the runs; the sign grows by one per step."""

    def run(seed, falls):
        gold = [min(t, 20) / 10 - (max(0, t - 20) / 20 if falls else 0) for t in range(61)]
        return Unstopped("w", seed, [{"sign": float(t)} for t in range(60)], {}, gold)

    def make(level):
        return StoppingRule({"sign": partial(above, column="sign", level=level)}, window=5)

    falling = run(0, True)
    assert outcome(falling, make(16), 0.1) == outcome(falling, make(15.5), 0.1)
    found = outcome(falling, make(16), 0.1)
    assert (found.step, found.stopped, found.peak, found.end) == (20, 2.0, 2.0, 0.0)
    assert (found.fell, found.in_time, found.before_peak) == (True, True, True)
    late = outcome(falling, make(40), 0.1)
    assert (late.step, late.in_time, late.before_peak) == (45, False, False)
    assert late.stopped == pytest.approx(0.75)
    never = outcome(falling, make(99), 0.1)
    assert (never.step, never.stopped, never.in_time) == (None, 0.0, False)
    assert not outcome(run(0, False), make(99), 0.1).fell
    assert best_level([falling], make, [5, 16, 40, 99], 0.1) == 16
    assert best_level([run(0, False)], make, [5, 40, 99], 0.1) == 99
    runs = [run(seed, seed % 2 == 0) for seed in range(4)]
    result = study([replace(falling, seed=9)], runs, {"s": (make, [5, 16, 40])}, tmp_path, margin=0.1)
    assert result["w/s/level"] == 16
    assert result["w/s/gain"] == pytest.approx(np.mean([2, 0, 2, 0]))
    assert result["w/s/regret"] == 0
    assert result["all/s/gain"] == result["w/s/gain"]
    assert (result["w/s/fell"], result["w/s/in_time"], result["w/s/held"], result["w/s/false"]) == (2, 2, 2, 2)
    assert "| w | s 16 |" in (tmp_path / "warnings.md").read_text()
    with pytest.raises(ValueError, match="other runs"):
        study(runs[:1], runs, {"s": (make, [5])}, tmp_path, margin=0.1)


def test_the_study_runs_and_goes_on(train):
    given = [
        "experiment=early_stopping", "data.size=80", "task.plan.steps=15", "task.plan.prompts=3",
        "task.plan.reference_samples=32", "task.plan.oversight=2", "task.seeds=[0,1]", "task.chosen_seeds=[7]",
        "~task.worlds.quick", "~task.worlds.able",
        "task.chosen_on=[biased]",
    ]  # fmt: skip
    run = train(*given)
    before = metrics(run)
    kept = run / "biased" / "seed-0" / "unstopped.json"
    stamp = kept.stat().st_mtime_ns
    train(*given, f"ckpt={run}")
    assert metrics(run) == before
    assert kept.stat().st_mtime_ns == stamp
    assert len(list(csv.DictReader((run / "warnings.csv").open()))) == 2 * 2 * 7
