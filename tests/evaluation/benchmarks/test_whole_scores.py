"""A score is there only where all its parts have rows."""

import numpy as np
import pytest

from rlhf.evaluation.benchmarks import BenchmarkItem, rewardbench
from rlhf.evaluation.benchmarks.formats import SUBSETS


def whole_rewardbench(*prior):
    rows = [(name, 1.0 if name == "math-prm" else -1.0) for name in SUBSETS] + [(name, 1.0) for name in prior]
    return [BenchmarkItem("", name, f"{i}", np.array([x]), np.zeros(1)) for i, (name, x) in enumerate(rows)]


def test_the_score_of_rewardbench_needs_every_subset():
    rows = whole_rewardbench()
    found = rewardbench(rows, bootstrap=0)
    assert found["rewardbench/score"] == pytest.approx(984 / (2 * 984) / 4)
    assert found["rewardbench/n_missing_subsets"] == 0
    for lost in (0, 9, len(rows) - 1):
        fewer = rewardbench(rows[:lost] + rows[lost + 1 :], bootstrap=0)
        assert "rewardbench/score" not in fewer
        assert 0 <= fewer["rewardbench/partial_score"] < 1
        assert fewer["rewardbench/n_missing_subsets"] == 1
        assert fewer[f"rewardbench/n/{rows[lost].subset}"] == 0


def test_the_score_of_rewardbench_needs_all_prior_sets_or_none():
    prior = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
    found = rewardbench(whole_rewardbench(*prior), bootstrap=0)
    assert found["rewardbench/score"] == pytest.approx((0.5 + 0.5) / 4.5)
    found = rewardbench(whole_rewardbench(*prior[:3]), bootstrap=0)
    assert "rewardbench/score" not in found
    assert (found["rewardbench/n_missing_subsets"], found["rewardbench/n/summarize"]) == (1, 0)
