"""What every study leaves, and its intervals."""

import csv
import json

import numpy as np
import pytest
from small_studies import label_noise, temperature

from rlhf.stats.bootstrap import cluster_bootstrap
from rlhf.studies.study import cell, measure, over_worlds, words


def test_intervals_are_those_of_resampled_worlds():
    values = np.random.default_rng(0).normal(size=30)
    found = over_worlds([{"x": v, "y": 2 * v} for v in values], bootstrap=500)
    low, high = cluster_bootstrap(values[:, None], np.ones((30, 1)), samples=500, seed=0)
    assert found["x"] == pytest.approx(values.mean())
    assert (found["x/ci_low"], found["x/ci_high"]) == pytest.approx((low[0], high[0]))
    assert found["y/ci_high"] == pytest.approx(2 * high[0])


def test_one_world_says_nothing_about_spread():
    assert over_worlds([{"x": 1.0}], bootstrap=100) == {"x": 1.0}
    assert "nothing is known about other worlds" in words(1)


def test_worlds_that_agree_give_no_interval_without_width_and_few_are_said_to_be_few():
    found = over_worlds([{"x": 0.1, "y": 1.0}, {"x": 0.1, "y": 2.0}], bootstrap=100)
    assert set(found) == {"x", "y", "y/ci_low", "y/ci_high"}
    assert words(2).endswith("2 are too few to trust an interval.")
    assert "too few" not in words(20)
    assert words(20).startswith("Means over 20 worlds with 95% intervals")


def test_cells_and_tables():
    metrics = {"x": 1.2345, "x/ci_low": 1.0, "x/ci_high": 2.0, "y": -0.5}
    assert cell(metrics, "x", 2, "+") == "+1.23 [1.00, 2.00]"
    assert cell(metrics, "y", 1) == "-0.5"


def test_files_of_a_run(tmp_path):
    logged = []
    study = temperature(seed=5, steps=20)
    found = measure(study, tmp_path / "new", lambda row, step: logged.append((step, row)))
    rows = list(csv.DictReader((tmp_path / "new" / "worlds.csv").open()))
    assert [row["seed"] for row in rows] == ["5", "6"]
    assert [step for step, _ in logged] == [0, 1]
    assert logged[1][1]["world/single/temperature"] == float(rows[1]["single/temperature"])
    metrics = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert metrics == found.metrics
    assert metrics["single/accuracy/after"] == pytest.approx(np.mean([float(r["single/accuracy/after"]) for r in rows]))
    headline = json.loads((tmp_path / "new" / "headline.json").read_text())
    assert headline[:3] == ["single/temperature", "single/temperature/ci_low", "single/temperature/ci_high"]
    page = (tmp_path / "new" / "temperature.md").read_text()
    assert page.startswith("| model |")
    assert page.endswith(f"{words(2)}\n")
    assert (tmp_path / "new" / "temperature.png").read_bytes()[:4] == b"\x89PNG"


def test_the_same_seeds_are_the_same_numbers(tmp_path):
    once, again = (measure(label_noise(), tmp_path / name).metrics for name in "ab")
    assert once == again
