"""Benchmarks of methods, each in a world or two: what they measure is what they say."""

import length_bias
import pytest


@pytest.mark.slow
def test_one_world_of_length_bias():
    row = length_bias.one(0, votes=300, paid=1.5, steps=300)
    shorter = {head: values["gold accuracy, shorter better"] for head, values in row.items()}
    assert shorter["linear"] < 0.5
    assert shorter["length_controlled"] > 0.9
    assert row["length_controlled"]["paid for length, per sd"] == pytest.approx(1.5, abs=0.6)
