"""The report's part on shifts: what chance gives stands beside every number that chance moves."""

import numpy as np
from result_sets import results_of
from scored_sets import group

from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.metrics.scored import Scored
from rlhf.evaluation.report.section import Evaluation
from rlhf.evaluation.report.sections.ood import shifts


def scored(prompts, seed):
    rng = np.random.default_rng(seed)
    return Scored.from_groups(
        group(rng.normal(size=3), rng.integers(0, 4, (3, 3)) / 3, prompt=f"{seed} {i}", votes=3) for i in range(prompts)
    )


def test_what_chance_gives_stands_beside_the_numbers_of_a_shift():
    many, few = scored(60, 0), scored(20, 1)
    evaluation = Evaluation("m", results_of(many), 1.0, evaluate(many, bootstrap=50), shifts={"far": results_of(few)},
                    samples=50)  # fmt: skip
    section = shifts(evaluation)
    found, on_it = section.metrics, evaluate(few, bootstrap=50)
    assert found["ood/far/base_rate"] == 0.25  # 60 of 60 + 180 answers
    assert found["ood/far/ece/by_chance"] == on_it["ece/by_chance"] > 0
    effects, detectors = section.tables
    by_chance = effects.columns.index("ECE by chance")
    expected = [evaluation.metrics["ece/by_chance"], on_it["ece/by_chance"]]
    assert [row[by_chance] for row in effects.rows] == [f"{value:.3f}" for value in expected]
    assert {row[detectors.columns.index("base rate")] for row in detectors.rows} == {0.25}
