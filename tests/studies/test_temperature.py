"""Temperature scaling: identities, a true scale that is recovered, one world."""

import numpy as np
import pytest
from scipy.special import expit
from small_studies import temperature

from rlhf.evaluation.metrics.calibration import fit_temperature
from rlhf.records import RecordError
from rlhf.studies.feature_world import FeatureWorld
from rlhf.studies.temperature import difference, measured


def test_a_temperature_changes_no_accuracy_and_mends_the_rest():
    row = temperature().one(0)
    for model in ("single", "ensemble"):
        assert row[f"{model}/temperature"] > 1.5
        assert row[f"{model}/accuracy/after"] == row[f"{model}/accuracy/before"]
        for measure in ("ece", "nll", "brier"):
            assert row[f"{model}/{measure}/after"] < row[f"{model}/{measure}/before"]
    assert row["lead/nll/after"] == row["ensemble/nll/after"] - row["single/nll/after"]


def test_the_true_scale_of_the_votes_is_the_temperature_of_gold():
    """Votes are σ(s · lead) and nobody flips one: gold times c needs T = c / s; flipped votes need a larger one."""
    world, rng = FeatureWorld.draw(0), np.random.default_rng(0)
    x, win = world.votes(20_000, 0.0, rng, spread=0.7, sharpness=2.0)
    lead = difference(world.gold(x).reshape(1, -1))
    assert fit_temperature(6 * lead, win) == pytest.approx(3.0, rel=0.05)
    flipped = np.where(rng.random(len(win)) < 0.2, 1 - win, win)
    assert fit_temperature(6 * lead, flipped) > 4


def test_what_is_measured_is_the_closed_form():
    lead, win = np.array([1.0, -2.0, 0.5]), np.array([1.0, 1.0, 0.0])
    found = measured(lead, win)
    p = expit(lead)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["nll"] == pytest.approx(-np.log([p[0], p[1], 1 - p[2]]).mean())
    assert found["brier"] == pytest.approx(((p - win) ** 2).mean())


def test_the_table_is_what_was_found():
    study = temperature()
    rows = [{key: value + i for key, value in study.one(0).items()} for i in (0, 1)]
    found = study.found(rows)
    assert found.metrics["single/nll/after"] == pytest.approx(rows[0]["single/nll/after"] + 0.5)
    assert [row[0] for row in found.rows] == ["one model"] * 2 + ["mean of 2"] * 2 + ["mean less one, after"]
    assert set(found.sweep_metrics) <= set(found.metrics)
    assert f"{found.metrics['single/ece/before']:.3f} [" in found.rows[0][3]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"noise": 1.2}, r"task.study.noise': 1.2 is no number from 0 to 0.5"),
        ({"noise": [0.0, 0.1]}, r"`-m key=a,b` runs several"),
        ({"worlds": 0}, r"task.study.worlds': 0 is no whole number from 1 on"),
        ({"steps": 1.5}, r"task.study.steps'"),
        ({"members": 1}, r"task.study.members': 1 is no whole number from 2 on"),
        ({"sharpness": 0}, r"task.study.sharpness': 0 is no number above 0"),
        ({"spread": "wide"}, r"task.study.spread': 'wide'"),
        ({"fresh": True}, r"task.study.fresh'"),
    ],
)
def test_settings_out_of_range_are_named(changed, said):
    with pytest.raises(RecordError, match=said):
        temperature(**changed)
