"""Ensemble gain under label noise: the same world as best-of-n, leads and what noise adds to them."""

import pytest
from small_studies import best_of_n, label_noise

from rlhf.records import RecordError


def test_every_level_is_the_world_that_best_of_n_measures():
    row = label_noise().one(1)
    for noise in (0.0, 0.25):
        same = best_of_n(noise=noise).one(1)
        for way in ("single", "mean", "worst_case"):
            assert row[f"noise={noise:g}/{way}/gold/64"] == same[f"{way}/gold/64"]
        assert row[f"noise={noise:g}/mean/lead/gold/8"] == pytest.approx(same["mean/lead/8"])


def test_what_noise_adds_is_the_difference_of_the_leads():
    row = label_noise().one(0)
    for key in ("accuracy", "gold/8", "gold/64"):
        lead = {noise: row[f"noise={noise}/mean/{key}"] - row[f"noise={noise}/single/{key}"] for noise in (0, 0.25)}
        assert row[f"noise=0.25/mean/lead/{key}"] == pytest.approx(lead[0.25])
        assert row[f"noise=0.25/mean/added/{key}"] == pytest.approx(lead[0.25] - lead[0])
    assert "noise=0/mean/added/accuracy" not in row


def test_flipped_votes_cost_accuracy_and_coins_teach_nothing():
    study = label_noise(noise=[0.0, 0.5], votes=400, steps=100)
    rows = [study.one(seed) for seed in (0, 1)]
    for row in rows:
        assert row["noise=0/single/accuracy"] > 0.85
        assert row["noise=0.5/single/accuracy"] < 0.7
    found = study.found(rows)
    assert len(found.rows) == 2 * 3
    assert found.rows[0][:2] == ["0%", "single"]
    assert len(found.columns) == len(found.rows[0]) == 2 + 2 * 3
    assert set(found.sweep_metrics) <= set(found.metrics)
    assert len(found.figure.axes) == 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"noise": 0.25}, r"task.study.noise': 0.25 is no list of different numbers.*\[0, 0.25\]"),
        ({"noise": [0.1, 0.1]}, r"task.study.noise'"),
        ({"noise": [0.1, 0.7]}, r"task.study.noise': 0.7"),
        ({"at": []}, r"task.study.at'"),
        ({"at": [64, 100]}, r"task.study.at': \[100\] with answers=64 \(some of 2, 4, 8, 16, 32, 64\)"),
        ({"fresh": 0}, r"task.study.fresh'"),
    ],
)
def test_settings_out_of_range_are_named(changed, said):
    with pytest.raises(RecordError, match=said):
        label_noise(**changed)
