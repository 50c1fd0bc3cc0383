"""The table at the end of a run says what is in the metrics, and `-` for what is not."""

import numpy as np
from scored_sets import pair, simulate

from rlhf.evaluation.metrics.baselines import baseline_table
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.metrics.scored import Scored


def line(table, name):
    (found,) = (row for row in table.splitlines() if row.strip().startswith(name))
    return found


def test_every_number_of_the_table_is_the_one_in_the_metrics():
    metrics = evaluate(simulate(60, 3, np.random.default_rng(0)), temperature=1.5, bootstrap=100)
    table = baseline_table(metrics)
    assert "180 pairs on 60 prompts" in table
    model = line(table, "this model")
    for key in ("pair_accuracy", "pair_accuracy/ci_low", "pair_accuracy/ci_high"):
        assert f"{metrics[key]:.3f}" in model
    for name, keys in {
        "the longer answer": ["baseline/length"],
        "always the same side": ["baseline/majority"],
        "lead over": ["pair_accuracy/minus_length", "pair_accuracy/minus_length/ci_low"],
        "NLL": ["nll", "nll/ci_high", "nll/votes_entropy"],
        "ECE": ["ece", "ece/ci_high", "ece_uncalibrated", "ece/by_chance"],
    }.items():
        for key in keys:
            assert f"{metrics[key]:.3f}" in line(table, name), key


def test_what_a_set_does_not_define_shows_as_a_dash():
    table = baseline_table(evaluate(Scored.from_groups([pair(1, 0, 1, 0, 0)]), bootstrap=20))
    assert line(table, "one annotator").split()[-1] == "-"
    assert line(table, "this model").split()[-1] == "1.000"
    empty = baseline_table(evaluate(Scored.from_groups([])))
    assert line(empty, "this model").split()[-1] == "-"


def test_a_file_with_the_winner_always_first_is_called_that():
    one_sided = [pair(1, 0, 1, 0, 0)] * 20
    remark = "the file stores the winner there"
    assert remark in baseline_table(evaluate(Scored.from_groups(one_sided), bootstrap=0))
    mixed = Scored.from_groups([*one_sided, *[pair(1, 0, 0, 0, 1)] * 15])
    assert remark not in baseline_table(evaluate(mixed, bootstrap=0))


def test_even_pairs_are_named():
    table = baseline_table(evaluate(Scored.from_groups([pair(1, 0, 1, 0, 0), pair(1, 0, 1, 0, 1)])))
    assert "2 pairs (1 of them even, left out of accuracies)" in table
