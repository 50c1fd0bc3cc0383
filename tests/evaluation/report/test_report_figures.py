"""The figures of a report: nothing overlaps, no interval leaves its axis, both sides of the temperature are shown."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from result_sets import results_of
from scipy.stats import binomtest
from scored_sets import simulate

from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.report.section import Evaluation
from rlhf.evaluation.report.sections.best_of_n import best_of_n
from rlhf.evaluation.report.sections.calibration import draw_margins, draw_reliability, selective
from rlhf.evaluation.report.sections.ood import shifts
from rlhf.evaluation.report.sections.rankings import rewards
from rlhf.evaluation.report.style import CELLS, plain_ticks, plot, wilson


def evaluation(temperature=0.5, prompts=30, **results):
    scored = simulate(prompts, 3, np.random.default_rng(0))
    return Evaluation(
        "m",
        results_of(scored, **results),
        temperature,
        evaluate(scored, temperature=temperature, bootstrap=20),
        samples=20,
    )


def drawn(draw):
    canvas = Figure(layout="constrained")
    draw(canvas)
    renderer = FigureCanvasAgg(canvas).get_renderer()
    canvas.draw(renderer)
    return canvas, renderer


def figure_of(section, name):
    return next(f for f in section.figures if f.name == name).draw


@pytest.mark.parametrize(("count", "number"), [(0, 1), (3, 3), (7, 20), (500, 1000)])
def test_wilson_is_scipys(count, number):
    low, high = wilson(np.array([count / number]), np.array([number]))
    expected = binomtest(count, number).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("draw", [draw_reliability, draw_margins])
def test_intervals_stay_inside_0_to_1(draw):
    canvas, _ = drawn(partial(draw, evaluation()))
    ends = [p[:, 1] for axes in canvas.axes for c in axes.collections for p in c.get_segments() if len(p) == 2]
    assert len(ends) > 3
    assert all(0 <= end.min() <= end.max() <= 1 for end in ends)


def test_reliability_counts_every_pair_before_and_after_and_its_legend_lies_below():
    one = evaluation()
    canvas, renderer = drawn(partial(draw_reliability, one))
    heights = [sum(bar.get_height() for bar in container) for container in canvas.axes[1].containers]
    assert heights == [len(one.results.scored.first)] * 2
    assert canvas.legends[0].get_window_extent(renderer).y1 <= canvas.axes[1].get_tightbbox(renderer).y0
    assert len(drawn(partial(draw_reliability, evaluation(temperature=1.0)))[0].axes[1].containers) == 1


def test_margins_are_drawn_raw_and_after_the_temperature():
    canvas, _ = drawn(partial(draw_margins, evaluation(temperature=0.5)))
    raw, scaled = (axes.containers[0].lines[0].get_xdata() for axes in canvas.axes)
    np.testing.assert_allclose(scaled, 2 * raw)
    assert [axes.get_title() for axes in canvas.axes] == ["before temperature", "after"]


@pytest.mark.parametrize(("low", "high"), [(28, 46), (20, 170), (8, 3000), (1, 90000)])
def test_ticks_of_a_logarithmic_axis_do_not_run_together(low, high):
    canvas = Figure(figsize=(4.8, 3.2))
    axes = plot(canvas, "length", "")
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    plain_ticks(axes, low, high)
    renderer = FigureCanvasAgg(canvas).get_renderer()
    canvas.draw(renderer)
    boxes = [t.get_window_extent(renderer) for t in axes.get_xticklabels() if t.get_text()]
    shown = sorted((b for b in boxes if axes.bbox.x0 - 20 <= b.x0 <= axes.bbox.x1), key=lambda b: b.x0)
    assert len(shown) >= 2
    assert all(a.x1 < b.x0 for a, b in pairwise(shown))


def test_a_single_answer_stands_out_from_the_paper_and_the_legend_from_the_points():
    assert np.mean(CELLS(0.0)[:3]) < 0.8
    canvas, renderer = drawn(figure_of(rewards(evaluation()), "length"))
    assert canvas.legends[0].get_window_extent(renderer).y1 <= canvas.axes[0].get_tightbbox(renderer).y0


def test_a_risk_coverage_curve_starts_where_the_table_does():
    canvas, _ = drawn(selective(evaluation(prompts=20)).figures[0].draw)  # 60 pairs: 20 of them are more than 20 %
    assert canvas.axes[0].lines[0].get_xdata()[0] == pytest.approx(0.2)


def test_roc_curves_name_both_axes():
    one = evaluation()
    canvas, _ = drawn(figure_of(shifts(replace(one, shifts={"long": one.results})), "ood_roc"))
    assert (canvas.axes[0].get_xlabel(), canvas.axes[0].get_ylabel()) == ("false alarms", "caught")


def test_aggregators_with_one_curve_share_a_line_and_others_look_different():
    one = evaluation()
    flat = one.results.scored.reward
    noise = np.random.default_rng(3).normal(size=(2, len(flat)))
    results = replace(one.results, members=flat + noise, gold=flat**3, member_names=("a", "b"))
    canvas, _ = drawn(best_of_n(replace(one, results=results)).figures[0].draw)
    labels = [t.get_text() for t in canvas.legends[0].get_texts()]
    assert "gold, picked by mean and median" in labels  # of two members the same
    lines = [line for line in canvas.axes[0].lines if "picked by" in line.get_label()]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(lines) > 1
    same = replace(results, members=np.stack([flat, flat]))
    canvas, _ = drawn(best_of_n(replace(one, results=same)).figures[0].draw)
    assert canvas.legends[0].get_texts()[1].get_text().startswith("gold, also picked by mean and median and worst")
