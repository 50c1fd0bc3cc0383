"""The report's part on best-of-n: pooling, keys, ensembles, figures."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scored_sets import group

from rlhf.evaluation.metrics.best_of_n import best_of
from rlhf.evaluation.metrics.scored import Results, Scored
from rlhf.evaluation.report.section import Evaluation
from rlhf.evaluation.report.sections.best_of_n import best_of_n as part
from rlhf.evaluation.report.sections.best_of_n import pooled


def evaluation(rewards, gold=None, *, prompts=None, members=None, others=None, temperature=2.0):
    """Groups with these rewards; prompts are all different unless named."""
    prompts = prompts or [str(i) for i in range(len(rewards))]
    scored = Scored.from_groups(
        group(r, 1.0, prompt=p, length=10 + np.arange(len(r))) for r, p in zip(rewards, prompts, strict=True)
    )
    n, g = len(scored.reward), len(rewards)
    results = Results(
        scored=scored, record=np.arange(g), place=np.zeros(n, int), prompt_id=prompts, completion_id=["c"] * n,
        prompt_hash=prompts, source=np.full(n, -1), sources=(), annotators=np.zeros(g, int), annotator_sets=((),),
        tokens=np.zeros(n), trimmed=np.zeros(g, bool), finished=np.ones(n, bool),
        gold=np.full(n, np.nan) if gold is None else np.concatenate(gold),
        members=scored.reward[None] if members is None else members, member_names=(), others=others or {},
    )  # fmt: skip
    return Evaluation("m", results, temperature, temperatures={"other": 3.0}, samples=200)


def world(prompts=60, k=8, seed=0):
    rng = np.random.default_rng(seed)
    gold = list(rng.normal(size=(prompts, k)))
    return [2 * g + rng.normal(size=k) for g in gold], gold


def test_gains_are_those_over_a_random_answer_in_log_odds():
    rewards, gold = world()
    section = part(evaluation(rewards, gold))
    m = section.metrics
    assert m["best_of_n/8/proxy"] == pytest.approx(np.mean([r.max() - r.mean() for r in rewards]) / 2)
    assert m["best_of_n/4/gold"] == pytest.approx(
        np.mean([best_of([4], r, g - g.mean())[0] for r, g in zip(rewards, gold, strict=True)])
    )
    assert "best_of_n/1/gold" not in m
    assert m["best_of_n/8/gold/ci_low"] < m["best_of_n/8/gold"] < m["best_of_n/8/gold/ci_high"]
    assert m["best_of_n/1/length"] == pytest.approx(10 + 3.5)
    assert m["best_of_n/8/gold/win_rate"] > 0.8
    assert m["best_of_n/8/kl_bound"] == pytest.approx(np.log(8) - 7 / 8)
    assert (m["best_of_n/n_prompts"], m["best_of_n/n_left_out"]) == (60, 0)
    assert m["best_of_n/gold/alpha"] > 0
    assert "does not surely turn over" in section.text


def test_a_reward_that_is_gamed_is_said_to_be_past_its_peak():
    rng = np.random.default_rng(0)
    rewards = list(rng.normal(size=(300, 32)))
    gold = [np.where(r < 1, r, 1 - 4 * (r - 1)) for r in rewards]
    assert "past its peak" in part(evaluation(rewards, gold)).text


def test_records_of_one_prompt_are_pooled_and_an_answer_in_two_of_them_counts_once():
    rewards = [np.array([1.0, 2.0]), np.array([3.0, 1.0, 5.0]), np.array([9.0, 8.0])]
    found = evaluation(rewards, prompts=["a", "a", "b"])
    assert [sorted(found.results.scored.reward[p]) for p in pooled(found.results)] == [[1, 1, 2, 3, 5], [8, 9]]
    same = evaluation([np.array([1.0, 2.0]), np.array([1.0, 2.0])], prompts=["a", "a"])
    assert [len(p) for p in pooled(same.results)] == [2]
    rounded = evaluation([np.array([1.0, 2.0]), np.array([1.0 + 5e-7, 2.0 - 5e-7]), np.array([1.1, 2.0])],
                         prompts=["a", "a", "a"])  # fmt: skip
    assert [len(p) for p in pooled(rounded.results)] == [3], "rounding makes no new answer, a tenth does"


def test_without_gold_the_other_models_say_what_the_pick_is_worth():
    rewards, gold = world()
    section = part(evaluation(rewards, others={"other": 3 * np.concatenate(gold)}))
    assert "best_of_n/8/gold" not in section.metrics
    expected = np.mean([(g - g.mean())[r.argmax()] for r, g in zip(rewards, gold, strict=True)])
    assert section.metrics["best_of_n/8/other"] == pytest.approx(expected)  # 3 g over its temperature 3


def test_an_ensemble_is_picked_by_every_aggregator():
    rewards, gold = world(k=4)
    flat = np.concatenate(rewards)
    rng = np.random.default_rng(1)
    section = part(evaluation(rewards, gold, members=flat + rng.normal(size=(5, len(flat)))))
    keys = [f"best_of_n/4/gold/{name}" for name in ("mean", "median", "worst_case", "mean_minus_variance")]
    assert all(0.3 < section.metrics[k] < 1.2 for k in keys)
    assert len({section.metrics[k] for k in keys}) == 4
    same = part(evaluation(rewards, gold, members=np.tile(flat, (5, 1))))
    assert [same.metrics[k] for k in keys] == pytest.approx([same.metrics["best_of_n/4/gold"]] * 4)


def test_figures_draw_and_tables_fit():
    rewards, gold = world(k=8)
    section = part(evaluation(rewards, gold, others={"org/model": np.concatenate(gold)}))
    canvas = Figure()
    section.figures[0].draw(canvas)
    axes = canvas.axes[0]
    assert "upper bound" in axes.get_xlabel()
    assert [t.get_text() for t in canvas.legends[0].get_texts()] == ["proxy", "gold", "org_model"]
    assert [row[0] for row in section.tables[0].rows] == ["n = 1", "n = 2", "n = 4", "n = 8"]
    assert "bands are 95 % intervals" in section.figures[0].caption
    assert "dashes the fit" in section.figures[0].caption
    assert "95 % intervals" in section.tables[0].note


@pytest.mark.parametrize("ensemble", [False, True])
def test_the_legend_lies_on_no_curve_and_inside_the_figure(tmp_path, ensemble):
    rewards, gold = world(k=8)
    flat = np.concatenate(rewards)
    members = flat + np.random.default_rng(1).normal(size=(5, len(flat))) if ensemble else None
    figure = part(evaluation(rewards, gold, members=members, others={"org/another-model": flat})).figures[0]
    canvas = Figure(layout="constrained")
    figure.draw(canvas)
    renderer = FigureCanvasAgg(canvas).get_renderer()
    canvas.draw(renderer)
    box, axes = canvas.legends[0].get_window_extent(renderer), canvas.axes[0].get_tightbbox(renderer)
    assert box.y1 <= axes.y0
    assert box.x0 >= 0
    assert box.x1 <= canvas.bbox.x1
    assert canvas.axes[0].get_window_extent(renderer).height > 0.4 * canvas.bbox.height


def test_two_prompts_of_different_size_are_both_counted():
    rng = np.random.default_rng(0)
    section = part(evaluation([rng.normal(size=3), rng.normal(size=114)]))
    m = section.metrics
    assert (m["best_of_n/n_prompts"], m["best_of_n/n_left_out"]) == (2, 0)
    assert "best_of_n/3/proxy/ci_low" in m
    assert "best_of_n/114/proxy" not in m
    assert "on 2 prompts with at least 3 different answers." in section.text


def test_one_prompt_gets_no_fit_and_no_word_of_intervals():
    rewards = [np.arange(16.0), np.array([1.0]), np.array([1.0])]  # two without a choice
    section = part(evaluation(rewards, [r**2 for r in rewards]))
    assert "on 1 prompt with at least 16 different answers (2 prompts left out for having fewer)." in section.text
    assert "Without intervals" in section.text
    words = [section.figures[0].caption, *(t.note for t in section.tables)]
    assert not any("95 %" in w or "fit" in w or "resampled" in w for w in words)
    assert not any(key.endswith(("alpha", "beta", "r2", "ci_low")) for key in section.metrics)


def test_where_nothing_can_be_picked_there_is_nothing_to_say():
    assert part(evaluation([np.array([1.0])])) is None
