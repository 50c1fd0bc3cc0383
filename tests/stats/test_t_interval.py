"""Intervals over few seeds hold the truth as often as they say; what they are is said beside them."""

import json

import numpy as np
import pytest
import select_intervals
from scipy import stats

from rlhf.select.loop.learning_curve import compare, curves, page
from rlhf.stats.t_interval import caution, expanded, expanded_tail, t_interval


def holds(ends):
    low, high = ends
    return float(((low <= 0) & (high >= 0)).mean())


@pytest.mark.parametrize("seeds", [2, 4, 8])
def test_nominal_coverage_of_normal_differences(seeds):
    """1500 samples: the standard error of a share of 0.95 is 0.006."""
    generator = np.random.default_rng(seeds)
    values = generator.standard_normal((seeds, 1500))
    draws = generator.integers(seeds, size=(2000, seeds))
    drawn = np.stack([values[d].mean(0) for d in draws])
    assert 0.93 <= holds(t_interval(values)) <= 0.97
    plain, wide = holds(np.quantile(drawn, [0.025, 0.975], axis=0)), holds(expanded(drawn, seeds))
    assert plain < 0.91  # what was wrong
    assert wide >= {2: 0.47, 4: 0.84, 8: 0.92}[seeds]
    assert seeds > 4 or wide <= {2: 0.53, 4: 0.89}[seeds]  # no resample leaves the range: 1 - 2^(1 - seeds) at most


def test_the_t_interval_is_the_textbooks():
    values = np.array([0.3, -0.1, 0.4, 0.2, 0.6])
    low, high = t_interval(values, 0.9)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_the_expanded_tail_shrinks_to_the_plain_one():
    assert expanded_tail(8) == pytest.approx(stats.norm.cdf(-np.sqrt(8 / 7) * 2.364624), rel=1e-4)
    assert expanded_tail(4) < expanded_tail(8) < expanded_tail(20) < 0.025
    assert expanded_tail(10**6) == pytest.approx(0.025, rel=1e-3)


def rows(seeds):
    generator = np.random.default_rng(0)
    return [
        {"selector": name, "seed": seed, "round": number, "labels": 10 * (number + 1),
         "pair_accuracy": 0.5 + 0.02 * number + 0.02 * generator.standard_normal(),
         "nll": 0.7 - 0.02 * number + 0.02 * generator.standard_normal()}
        for name in ("random", "other") for seed in range(seeds) for number in range(6)
    ]  # fmt: skip


def test_a_comparison_has_t_intervals_of_its_differences():
    found = curves(rows(6))
    numbers = compare(found)["other"]
    gap = (found["other"].values["nll"] - found["random"].values["nll"]).mean(1)
    expected = stats.ttest_1samp(gap, 0.0).confidence_interval(0.95)
    assert numbers["nll/mean/difference/ci_low"] == pytest.approx(expected.low)
    assert numbers["nll/mean/difference/ci_high"] == pytest.approx(expected.high)


def test_the_page_says_what_intervals_are_and_warns_of_few_seeds():
    assert "Caution" not in page(compare(curves(rows(5))))
    few = page(compare(curves(rows(3))))
    assert "t for differences of means" in few
    assert "Caution: an interval of fewer than 5 seeds means little: other (3)." in few
    assert "No intervals" in caution({"other": 1})


def test_seeds_and_prompts_together_are_wider_than_seeds_alone(tmp_path):
    generator = np.random.default_rng(3)
    for name in ("random", "other"):
        for seed in range(6):
            folder = tmp_path / "arms" / f"{name}-{seed}"
            folder.mkdir(parents=True)
            events = [
                {"event": "result", "selector": name, "seed": seed, "labels": 10 * (number + 1),
                 "by_prompt": {f"p{p}": ["d", 2, 0.7 - 0.05 * number + 0.05 * generator.standard_normal()]
                               for p in range(5)}}
                for number in range(4)
            ]  # fmt: skip
            (folder / "journal.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    found = {}
    for by in ("none", "prompt"):
        table, labels = select_intervals.read([tmp_path], by)
        found[by] = select_intervals.compare(table, labels, "other", 0.95, resamples=400)
    losses = {
        name: np.array([[np.mean([v[2] for v in json.loads(line)["by_prompt"].values()])
                         for line in (tmp_path / "arms" / f"{name}-{s}" / "journal.jsonl").open()] for s in range(6)])
        for name in ("random", "other")
    }  # fmt: skip
    expected = stats.ttest_1samp((losses["other"] - losses["random"]).mean(1), 0.0).confidence_interval(0.95)
    assert found["none"]["nll_difference"][1:] == pytest.approx([expected.low, expected.high])
    assert found["prompt"]["nll_difference"][0] == pytest.approx(found["none"]["nll_difference"][0])
    assert found["prompt"]["labels_saved"][1] <= found["prompt"]["labels_saved"][0]


def test_the_t_interval_is_students():
    # by hand: t(0.975, 2) = 4.302653, standard deviation 1, n 3
    assert t_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert t_interval(np.full(9, 0.5)) == (0.5, 0.5)
