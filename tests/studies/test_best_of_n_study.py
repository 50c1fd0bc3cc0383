"""Best-of-n: exact against enumeration, KL in closed form, pairing, a fit that is recovered."""

from itertools import combinations

import numpy as np
import pytest
from small_studies import best_of_n

from rlhf.records import RecordError
from rlhf.stats.bootstrap import stretched
from rlhf.stats.ensemble import mean
from rlhf.studies.feature_world import WIDTH


def test_gains_are_the_mean_over_all_subsets_and_paired_with_the_single_model():
    study = best_of_n(answers=8)
    row = study.one(3)
    world, rng, model = study.learned(3, 0.25)
    sampled = rng.normal(size=(8, WIDTH))
    gold, rewards = world.gold(sampled), model.rewards(sampled)[0]
    for n in (2, 4, 8):
        picks = [gold[max(chosen, key=lambda i: rewards[i])] for chosen in combinations(range(8), n)]
        assert row[f"single/gold/{n}"] == pytest.approx(np.mean(picks) - gold.mean())
        assert row[f"mean/lead/{n}"] == pytest.approx(row[f"mean/gold/{n}"] - row[f"single/gold/{n}"])
    assert row["single/gold/1"] == pytest.approx(0, abs=1e-9)


def test_the_aggregators_see_the_ensemble_without_the_single_model():
    study = best_of_n()
    _, rng, model = study.learned(0, 0.25)
    x = rng.normal(size=(50, WIDTH))
    members = model.rewards(x)[1:]
    assert members.shape == (2, 50)
    z = (members - members.mean(1, keepdims=True)) / members.std(1, keepdims=True)
    np.testing.assert_allclose(study.rewards(model, x)["mean"], z.mean(0))
    np.testing.assert_allclose(study.rewards(model, x)["worst_case"], z.min(0))


def test_kl_is_the_closed_form_and_the_fit_recovers_its_curve():
    study = best_of_n()
    kl = np.array([np.log(n) - (n - 1) / n for n in study.ns])
    curve = np.sqrt(kl) * (1.5 - 0.7 * np.sqrt(kl))
    rows = []
    for shift in (-0.1, 0.1):
        row = {f"{way}/gold/{n}": g * (1 + shift) for way in study.ways for n, g in zip(study.ns, curve, strict=True)}
        rows.append(row | {f"{way}/lead/{n}": shift for way in study.aggregators for n in study.ns[1:]})
    found = study.found(rows)
    m = found.metrics
    assert [m[f"kl/{n}"] for n in study.ns] == pytest.approx(kl)
    assert (m["single/alpha"], m["single/beta"], m["single/r2"]) == pytest.approx((1.5, 0.7, 1.0))
    best = int(curve.argmax())
    assert m["single/best_n"] == study.ns[best]
    assert m["single/lost_after_peak"] == pytest.approx(curve[best] - curve[-1])
    reach = 0.1 * stretched(2)
    assert m["single/lost_after_peak/ci_low"] == pytest.approx((1 - reach) * (curve[best] - curve[-1]))
    assert (m["mean/lead/64"], m["mean/lead/64/ci_high"]) == pytest.approx((0.0, reach))
    assert set(found.sweep_metrics) <= set(m)
    assert len({len(row) for row in (found.columns, *found.rows)}) == 1
    (legend,) = found.figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["single", "mean", "worst case"]


def test_one_world_has_no_intervals():
    study = best_of_n(worlds=1)
    found = study.found([study.one(0)])
    assert not [key for key in found.metrics if "/ci_" in key]
    assert found.rows[0][1].count("[") == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"noise": 0.6}, r"task.study.noise': 0.6 is no number from 0 to 0.5"),
        ({"answers": 4}, r"task.study.answers': 4 is no whole number from 8 on"),
        ({"sharpness": -1.0}, r"task.study.sharpness'"),
        ({"sampled_spread": 0.0}, r"task.study.sampled_spread'"),
        ({"aggregators": {"single": mean}}, r"task.study.aggregators'.*another name"),
    ],
)
def test_settings_out_of_range_are_named(changed, said):
    with pytest.raises(RecordError, match=said):
        best_of_n(**changed)
