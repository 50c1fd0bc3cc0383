"""`task=tradeoff`: its statistics against simulation and closed forms, its methods on one small world, the command."""

import csv
import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from rlhf.collect.prompts import Task
from rlhf.studies.tradeoff import compare, deviation, draw, share
from rlhf.studies.tradeoff_methods import BestOfNMethod, MethodOutcome, TradeoffWorld, untrained
from rlhf.toy.gold import ToyGold
from rlhf.toy.linear_reward import LinearReward
from rlhf.toy.tabular_policy import TabularPolicy
from rlhf.toy.world import ToyWorld


def worlds(*seeds):
    for seed in seeds:
        source = ToyWorld(size=90, seed=seed)
        records = list(source.records())
        tasks = [Task(str(i), r.prompt_id, r.prompt, r.domain, None) for i, r in enumerate(records)]
        gold = ToyGold(source)
        reward_source = LinearReward(records[:60], members=2, reads=gold)
        yield TradeoffWorld(records[:60], tasks[:60], tasks[60:], gold, reward_source, seed)


def test_the_interval_of_a_deviation_holds_the_true_one_as_often_as_it_says():
    rng = np.random.default_rng(0)
    ends = np.array([deviation(row) for row in rng.normal(0, 2, (2000, 8)).tolist()])
    assert ends[:, 0].mean() == pytest.approx(2 * 0.965, abs=0.06)  # c4(8) = 0.965
    held = ((ends[:, 1] < 2) & (ends[:, 2] > 2)).mean()
    assert held == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_the_interval_of_a_share_is_the_exact_one():
    assert share(0, 8) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 8)))
    assert share(8, 8) == (1, pytest.approx(0.025 ** (1 / 8)), 1)


def test_no_name_in_the_figure_covers_another_however_many_methods_there_are(tmp_path, monkeypatch):
    names = [f"{kind} {k}" for kind in ("best of", "ppo with beta", "dpo with beta") for k in (1, 2, 4, 8, 16, 32)]
    numbers = {"gold": 1.0, "gold/low": 0.9, "gold/high": 1.1, "kl": 1.0, "seconds": 3.0}  # all at one point
    metrics = {f"{name}/{key}": value for name in names for key, value in numbers.items()}
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    draw(tmp_path / "t.png", metrics, {name: [1.0, 1.1] for name in names})
    (figure,) = drawn
    figure.canvas.draw()
    texts = [*figure.axes[1].get_yticklabels(), *(axis.xaxis.label for axis in figure.axes)]
    texts += figure.legends[0].get_texts()
    boxes = [t.get_window_extent() for t in texts if t.get_text()]
    assert len(boxes) == len(names) + 3 + 3
    assert not any(axis.texts for axis in figure.axes), "nothing is written among the points"
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_every_method_is_compared_with_the_same_start(tmp_path):
    """A method that loses 1 of gold where the seed is even and gains 3 elsewhere; one that always gains 2."""

    def by(gain):
        def method(world, policy):
            start = policy.expected_gold([t.domain for t in world.held_out])
            return MethodOutcome(start + gain(world.seed), 0.5, 40.0, 10, 1, 0.1)

        return method

    uneven, steady = by(lambda seed: 3 if seed % 2 else -1), by(lambda seed: 2)
    found = compare(
        {"uneven β=1": uneven, "steady β=1": steady}, list(worlds(0, 1, 2, 3)), TabularPolicy, tmp_path,
        contrasts=[("steady β=1", "uneven β=1"), ("uneven β=1", "reference")],
    )  # fmt: skip
    assert found["uneven β=1/below"] == 0.5
    assert found["steady β=1/below"] == 0
    assert found["steady β=1/gold"] == pytest.approx(found["reference/gold"] + 2)
    assert found["steady β=1 less uneven β=1/gold"] == pytest.approx(1)
    half = 3.182446 * np.std([3, -1, 3, -1], ddof=1) / 2  # t with 3 degrees of freedom
    assert found["uneven β=1 less reference/gold/low"] == pytest.approx(1 - half)
    text = (tmp_path / "tradeoff.md").read_text()
    assert "2 of 4 [0.07, 0.93]" in text
    assert text.count("not told apart") == 2
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    assert (tmp_path / "tradeoff.png").stat().st_size > 10_000
    assert len(list(csv.DictReader((tmp_path / "tradeoff.csv").open()))) == 12
    with pytest.raises(ValueError, match="at least 2"):
        compare({}, list(worlds(0)), TabularPolicy, tmp_path)


def test_best_of_n_by_the_truth_is_the_best_and_of_one_the_start():
    (world,) = worlds(5)
    start = untrained(world, TabularPolicy(world.gold))

    class Truth:
        def score(self, prompts, texts):
            return torch.tensor([world.gold(prompts, texts)]), None

    known = TradeoffWorld(world.records, world.tasks, world.held_out, world.gold, Truth(), 5)
    one, four, many = (
        BestOfNMethod(n, draws=d)(known, TabularPolicy(world.gold)) for n, d in ((1, 40), (4, 4), (16, 2))
    )
    assert one.gold == pytest.approx(start.gold, abs=0.25)
    assert start.gold + 0.5 < four.gold < many.gold
    assert (four.kl, four.per_answer) == (pytest.approx(math.log(4) - 0.75), 4)


@pytest.mark.slow
def test_the_command_compares_four_ways(train):
    run = train(
        "task=tradeoff", "data.size=80", "task.seeds=[0,1]", "task.betas=[0.3]", "task.steps=2", "task.prompts=4",
        "task.dpo.steps=5", "task.best_of=[2]", "task.against=2",
    )  # fmt: skip
    found = json.loads((run / "metrics.json").read_text())
    for name in ("RLOO β=0.3", "PPO β=0.3", "DPO β=0.3"):
        assert found[f"{name}/kl"] > 0
        assert found[f"{name} less best of 2/gold/low"] < found[f"{name} less best of 2/gold/high"]
    assert found["PPO β=0.3/samples"] == found["RLOO β=0.3/samples"] == 2 * 4 * 4
    assert "PPO β=0.3 less RLOO β=0.3/gold" in found
    assert (run / "tradeoff.png").is_file()
