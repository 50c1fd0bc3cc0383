"""The title and the traffic lights of a report: what each number must be for its colour."""

import pytest

from rlhf.evaluation.report.tiles import headline, tiles

PICKS = "The reward model picks the preferred answer in"


def with_interval(key, value, low, high):
    return {key: value, f"{key}/ci_low": low, f"{key}/ci_high": high}


@pytest.mark.parametrize(
    ("metrics", "light"),
    [
        (with_interval("pair_accuracy", 0.8, 0.7, 0.9), "good"),
        (with_interval("pair_accuracy", 0.55, 0.45, 0.65), "unsure"),
        (with_interval("pair_accuracy", 0.45, 0.4, 0.6), "poor"),
        ({"pair_accuracy": 1.0}, "unsure"),  # one prompt: no interval
        (with_interval("pair_accuracy/minus_length", 0.1, 0.02, 0.2), "good"),
        (with_interval("pair_accuracy/minus_length", 0.1, -0.02, 0.2), "unsure"),
        (with_interval("pair_accuracy/minus_length", -0.1, -0.2, -0.02), "poor"),
        (with_interval("pair_accuracy", 0.8, 0.7, 0.9) | {"baseline/bag_of_words": 0.8}, "unsure"),
        ({"pair_accuracy": 0.8, "ceiling/annotators": 0.7}, "good"),
        ({"pair_accuracy": 0.6, "ceiling/annotators": 0.7}, "unsure"),
        ({"pair_accuracy": 0.9, "ceiling/annotators": 0.55}, "poor"),
        (with_interval("nll", 0.5, 0.4, 0.6), "good"),
        (with_interval("nll", 0.68, 0.6, 0.75), "unsure"),
        ({"nll": 0.72}, "poor"),
        ({"ece": 0.05}, "good"),
        ({"ece": 0.07}, "unsure"),
        ({"ece": 0.1}, "poor"),
        (with_interval("spearman", 0.5, 0.3, 0.7), "good"),
        (with_interval("spearman", -0.5, -0.7, -0.3), "poor"),
        ({"length/spearman": -0.29}, "good"),
        ({"length/spearman": 0.4}, "unsure"),
        ({"length/spearman": -0.6}, "poor"),
        (with_interval("pair_accuracy/worst_part", 0.6, 0.45, 0.7), "unsure"),
        (with_interval("pair_accuracy/worst_part", 0.3, 0.2, 0.4), "poor"),
    ],
)
def test_every_light(metrics, light):
    assert tiles(metrics)[-1].light == light


def test_a_tile_says_number_interval_and_meaning_and_unknown_numbers_have_none():
    (tile,) = tiles(with_interval("length/spearman", 0.612, 0.5, 0.7))
    assert (tile.value, tile.interval) == ("0.612", "0.500 to 0.700")
    assert "longer" in tile.meaning
    assert tiles({"brier": 0.2}) == []


@pytest.mark.parametrize(
    ("metrics", "title"),
    [
        ({}, "No pair of this set has a right answer"),
        ({"pair_accuracy": 0.5}, f"{PICKS} 50% of the pairs: no better than guessing"),
        ({"pair_accuracy": 0.6}, f"{PICKS} 60% of the pairs: not surely better than guessing"),
        (
            with_interval("pair_accuracy", 0.8, 0.7, 0.9) | {"baseline/bag_of_words": 0.81},
            f"{PICKS} 80% of the pairs, not more than a bag of words does",
        ),
        (
            with_interval("pair_accuracy", 0.8, 0.7, 0.9)
            | with_interval("pair_accuracy/minus_length", 0.1, 0.05, 0.2),
            f"{PICKS} 80% of the pairs, ahead of choosing the longer answer",
        ),
        (
            with_interval("pair_accuracy", 0.8, 0.7, 0.9)
            | with_interval("pair_accuracy/minus_length", -0.1, -0.2, -0.05),
            f"{PICKS} 80% of the pairs, behind choosing the longer answer",
        ),
    ],
)  # fmt: skip
def test_the_title_says_what_the_model_does(metrics, title):
    assert headline(metrics) == title
