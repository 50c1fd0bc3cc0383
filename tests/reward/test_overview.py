"""What a training shows at its beginning and at its end: the plan, a bag of words beside the model, a figure."""

import json

import numpy as np
import pytest
from matplotlib.image import imread
from scored_sets import simulate

from rlhf.evaluation.metrics.baselines import against, baseline_table
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.reward.overview import draw_overview


@pytest.mark.slow
@pytest.mark.overview
def test_a_run_says_what_it_does_and_ends_with_baselines_and_a_figure(train, capsys):
    folder = train("model=tiny", "data.size=300")
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("task    reward: A reward model from preferences")
    assert lines[1].startswith("reads   toy: ")
    assert "model=tiny" in lines[2]
    assert lines[3].split()[0] == "writes"
    assert str(folder) in lines[3]
    assert lines[-1] == f"run: {folder}"
    assert f"open: {folder}/overview.png" in lines
    assert f"evaluate.py run={folder}" in out
    assert imread(folder / "overview.png").std() > 0.01
    metrics = json.loads((folder / "metrics.json").read_text())
    lead = metrics["test/pair_accuracy"] - metrics["test/baseline/bag_of_words"]
    assert metrics["test/pair_accuracy/minus_bag_of_words"] == pytest.approx(lead, abs=1e-9)
    low, high = (metrics[f"test/pair_accuracy/minus_bag_of_words/ci_{end}"] for end in ("low", "high"))
    assert low <= lead <= high
    assert "a bag of words" in out


def test_a_lead_is_paired_and_zero_over_oneself():
    scored = simulate(60, 3, np.random.default_rng(0))
    same = against("x", scored.reward, scored, samples=200, seed=0)
    assert same["pair_accuracy/minus_x"] == 0
    assert same["baseline/x"] == np.nanmean(credit(scored.difference, scored.win_prob))
    worse = against("x", -scored.reward, scored, samples=200, seed=0)
    assert worse["pair_accuracy/minus_x/ci_low"] > 0
    assert against("x", -scored.reward, scored, samples=0, seed=0).keys() == {"baseline/x", "pair_accuracy/minus_x"}


def test_the_table_has_a_bag_of_words_only_where_it_was_measured():
    metrics = {"n_pairs": 3, "n_prompts": 2, "pair_accuracy": 0.5}
    assert "bag of words" not in baseline_table(metrics)
    assert "bag of words" in baseline_table(metrics | {"pair_accuracy/minus_bag_of_words": 0.1})


def test_a_run_without_a_history_and_with_few_pairs_is_drawn(tmp_path):
    draw_overview(tmp_path / "no.csv", simulate(2, 2, np.random.default_rng(0)), 1.0, tmp_path / "a.png", "run")
    assert (tmp_path / "a.png").stat().st_size > 1000
