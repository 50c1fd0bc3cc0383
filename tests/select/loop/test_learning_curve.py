"""The comparison: labels saved against hand-made curves, paired intervals, and no gain where there is none."""

import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rlhf.select.loop import learning_curve
from rlhf.select.loop.learning_curve import (
    COLUMNS,
    combine,
    compare,
    curves,
    draw,
    read_rows,
    reference_lines,
    saved,
    table,
    write_rows,
)

LABELS = np.arange(10, 110, 10.0)


def rows(shapes, seeds=8, noise=0.0, shared=0.0):
    generator = np.random.default_rng(0)
    together = shared * generator.standard_normal((seeds, len(LABELS)))
    out = []
    for selector, quality in shapes.items():
        for seed in range(seeds):
            for number, labels in enumerate(LABELS):
                value = quality(labels) + together[seed, number] + noise * generator.standard_normal()
                out.append({"selector": selector, "seed": seed, "round": number, "labels": int(labels),
                            "pair_accuracy": 0.5 + value / 4, "nll": 0.7 - value / 4})  # fmt: skip
    return out


def slow(labels):
    return labels / 100


def fast(labels):
    return 2 * labels / 100


def test_labels_saved_on_known_curves():
    curve = {name: np.array([shape(x) for x in LABELS]) for name, shape in (("slow", slow), ("fast", fast))}
    assert saved(curve["fast"], curve["slow"], LABELS) == pytest.approx(0.5)
    assert saved(curve["slow"], curve["fast"], LABELS) == pytest.approx(-1.0)
    assert saved(curve["slow"], curve["slow"], LABELS) == 0
    assert saved(curve["slow"] * 0.6, curve["slow"], LABELS) == pytest.approx(1 - 100 / 60)


def test_a_real_gain_is_found_in_noise_that_seeds_share():
    found = compare(curves(rows({"random": slow, "good": fast}, noise=0.01, shared=0.1)))["good"]
    for metric in ("pair_accuracy", "nll"):
        assert found[f"labels_saved/{metric}"] == pytest.approx(0.5, abs=0.1)
        assert found[f"labels_saved/{metric}/ci_low"] > 0.3
    assert found["pair_accuracy/mean/difference/ci_low"] > 0
    assert found["nll/mean/difference/ci_high"] < 0
    assert found["nll/mean/difference/wins"] == 1


def test_no_gain_is_claimed_where_there_is_none():
    """Sixty comparisons of equal curves: the intervals miss 0 about as often as they say."""
    missed = 0
    generator = np.random.default_rng(1)
    for _ in range(60):
        values = {}
        for name in ("random", "same"):
            values[name] = [
                {
                    "selector": name,
                    "seed": s,
                    "round": r,
                    "labels": int(x),
                    "pair_accuracy": slow(x) + n,
                    "nll": 1 - slow(x),
                }
                for s in range(8)
                for n in [0.05 * generator.standard_normal()]
                for r, x in enumerate(LABELS)
            ]
        found = compare(curves(values["random"] + values["same"]))["same"]
        missed += (
            not found["pair_accuracy/mean/difference/ci_low"] <= 0 <= found["pair_accuracy/mean/difference/ci_high"]
        )
    assert missed <= 9  # 3 of 60 are expected; 10 have odds below 1 in 1000


def test_rounds_that_a_seed_has_not_reached_are_left_out():
    made = [r for r in rows({"random": slow}) if r["seed"] != 3 or r["round"] < 4]
    assert len(curves(made)["random"].labels) == 4


def test_one_seed_gives_numbers_without_intervals():
    found = compare(curves(rows({"random": slow, "good": fast}, seeds=1)))["good"]
    assert found["labels_saved/nll"] == pytest.approx(0.5)
    assert not any("ci_" in key for key in found)


def test_files_round_trip_and_runs_combine(tmp_path):
    made = rows({"random": slow, "good": fast}, noise=0.01)
    for name, part in (("0", made[:100]), ("1", made[60:])):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "curve.csv", part)
    assert read_rows(tmp_path / "0" / "curve.csv")[0].keys() == set(COLUMNS)
    page = combine(sorted(tmp_path.glob("*/curve.csv")), tmp_path)
    assert len(read_rows(tmp_path / "curve.csv")) == len(made)
    assert (tmp_path / "curve.png").stat().st_size > 10_000
    assert "| good | 8 |" in page.read_text()
    assert combine([], tmp_path) is None
    assert reference_lines({"ceiling/nll": 0.5}) == {"pair_accuracy": {}, "nll": {"all votes of the pool": 0.5}}
    assert json.dumps(compare(curves(made)))
    assert table(compare(curves(made))).count("\n") == 4


def test_the_figure_says_what_is_compared_how_surely_and_what_is_saved():
    found = curves(rows({"random": slow, "good": fast}, noise=0.02))
    lines = reference_lines({"baseline/length": 0.55, "ceiling/pair_accuracy": 0.9, "ceiling/nll": 0.4, "other": 1.0})
    numbers = compare(found)
    figure = draw(found, numbers, lines)
    left, right, lower, difference = figure.axes
    assert [axis.get_ylabel() for axis in (left, lower)] == ["pair accuracy", "NLL per vote in nats"]
    assert {axis.get_xlabel() for axis in (lower, difference)} == {"votes obtained"}
    assert difference.get_ylabel() == "NLL per vote in nats, less random"
    assert "8 seeds (bands: 95% t intervals over seeds)" in figure.get_suptitle()
    said = [text.get_text() for text in left.get_legend().get_texts()]
    assert said == ["random", "good", "longer answer", "all votes of the pool"]
    saving = right.get_legend().get_texts()[0].get_text()
    share, low = (numbers["good"][f"labels_saved/pair_accuracy{part}"] for part in ("", "/ci_low"))
    assert saving.startswith(f"good: {share:+.0%} of the votes saved [{low:+.0%}, ")
    band = difference.collections[0].get_paths()[0].vertices[:, 1]
    gap = found["good"].values["nll"] - found["random"].values["nll"]
    assert band.min() < gap.mean(0).min() < gap.mean(0).max() < band.max()
    alone = draw({"good": found["good"]}, numbers, {})
    assert alone.axes[1].get_legend() is None


def test_accuracies_and_their_bands_stay_in_0_to_1_whatever_the_seeds():
    high = rows({"random": slow}, seeds=2)
    values = [0.2, 1.0]
    found = curves([row | {"pair_accuracy": values[row["seed"] % 2]} for row in high])
    left, _, nll, _ = draw(found, compare(found), {}).axes
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0, 1)  # the t interval reaches from -4.5 to 5.7
    assert 0 <= left.get_ylim()[0] < left.get_ylim()[1] <= 1
    assert nll.get_ylim()[0] >= 0


def test_no_legend_covers_a_curve():
    found = curves(rows({"random": slow, **{f"a selector of name {k}": fast for k in range(6)}}, noise=0.02))
    figure = draw(found, compare(found), reference_lines({"baseline/length": 0.55, "ceiling/pair_accuracy": 0.9}))
    FigureCanvasAgg(figure).draw()
    for axis in figure.axes:
        box = axis.get_legend().get_window_extent()
        assert not any(box.overlaps(other.get_window_extent().shrunk(0.98, 0.98)) for other in figure.axes)


def test_a_sweep_keeps_the_lines_of_its_runs(tmp_path, monkeypatch):
    drawn = []
    real = learning_curve.draw
    monkeypatch.setattr(learning_curve, "draw", lambda *given: (drawn.append(given[-1]), real(*given))[1])
    for name, height in (("0", 0.5), ("1", 0.6)):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "curve.csv", rows({"random": slow, "good": fast}))
        (tmp_path / name / "metrics.json").write_text(json.dumps({"baseline/length": height, "compare/x/y": 1}))
    combine(sorted(tmp_path.glob("*/curve.csv")), tmp_path)
    assert drawn == [{"pair_accuracy": {"longer answer": pytest.approx(0.55)}, "nll": {}}]
