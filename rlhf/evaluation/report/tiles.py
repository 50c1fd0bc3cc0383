"""The top of a report: a title in words, and tiles, each a number with a traffic light and what it means.

A light is a rule of thumb for a first look, not a test. What has a line to beat goes by its 95 % interval, so that few
prompts give amber and not green; calibration, length and annotators go by the number. Words stand beside every colour.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from rlhf.evaluation.report.section import estimate, number
from rlhf.stats.bootstrap import Estimate

Light = Literal["good", "unsure", "poor"]
Metrics = Mapping[str, float]
COIN = math.log(2)
"""NLL of 0.5 for every pair, in nats."""
CALIBRATED, MISCALIBRATED = 0.05, 0.1
"""Calibration error up to which stated probabilities can be used, and from which they cannot."""
WEAK, STRONG = 0.3, 0.5
"""Rank correlations: below the first length hardly matters, from the second it leads."""

NOISE = 0.6
"""Agreement of one annotator with the others below which labels are mostly noise."""


@dataclass(frozen=True)
class Tile:
    """One number on top of the page.

    name, value, interval   as printed; interval is "" where none is known
    light     good, unsure or poor
    meaning   one sentence for somebody who does not know the metric
    """

    name: str
    value: str
    interval: str
    light: Light
    meaning: str


Verdict = tuple[Light, str]


def tiles(metrics: Metrics) -> list[Tile]:
    """The tiles of those numbers that are known, in the order of reading."""
    return [_tile(metrics, key, name, judge) for key, name, judge in TILES if key in metrics]


def headline(metrics: Metrics) -> str:
    """The title: what the reward model does, in words."""
    if "pair_accuracy" not in metrics:
        return "No pair of this set has a right answer"
    share = f"The reward model picks the preferred answer in {metrics['pair_accuracy']:.0%} of the pairs"
    light, _ = _guessing(estimate(metrics, "pair_accuracy"))
    if light == "poor":
        return f"{share}: no better than guessing"
    if light == "unsure":
        return f"{share}: not surely better than guessing"
    if _behind_words(metrics):
        return f"{share}, not more than a bag of words does"
    if "pair_accuracy/minus_length" not in metrics:
        return share
    lead, _ = _lead(estimate(metrics, "pair_accuracy/minus_length"), metrics)
    return f"{share}{HEADLINES[lead]}"


HEADLINES: Mapping[Light, str] = {
    "good": ", ahead of choosing the longer answer",
    "unsure": ", not surely ahead of choosing the longer answer",
    "poor": ", behind choosing the longer answer",
}


def _tile(metrics: Metrics, key: str, name: str, judge: Callable[[Estimate, Metrics], Verdict]) -> Tile:
    found = estimate(metrics, key)
    interval = f"{number(found.low)} to {number(found.high)}" if _has_ends(found) else ""
    light, meaning = judge(found, metrics)
    return Tile(name, number(found.value), interval, light, meaning)


def _has_ends(found: Estimate) -> bool:
    return math.isfinite(found.low) and math.isfinite(found.high)


def _side(found: Estimate, line: float) -> int:
    """+1: surely above the line, -1: surely below it, 0: not known; without an interval nothing is sure."""
    if not _has_ends(found):
        return 0
    return int(found.low > line) - int(found.high < line)


def _above(found: Estimate, line: float, words: tuple[str, str, str]) -> Verdict:
    """Good where it is surely above the line, poor where surely below; words for below, not known, above."""
    side = _side(found, line)
    lights: tuple[Light, Light, Light] = ("poor", "unsure", "good")
    return lights[side + 1], words[side + 1]


def _behind_words(metrics: Metrics) -> bool:
    """Whether a bag of words that learned from the same votes does as well: what is read beyond words gains nothing."""
    return metrics.get("baseline/bag_of_words", -math.inf) >= metrics.get("pair_accuracy", math.inf)


def _accuracy(found: Estimate, metrics: Metrics) -> Verdict:
    light, meaning = _guessing(found)
    if light == "good" and _behind_words(metrics):
        return "unsure", "Better than guessing, but a bag of words from the same votes does as well."
    return light, meaning


def _guessing(found: Estimate) -> Verdict:
    if found.value <= 0.5:
        return "poor", "No better than guessing."
    return _above(found, 0.5, ("No better than guessing.", "Perhaps only guessing: more pairs would tell.",
                               "Surely better than guessing, which gives 0.5."))  # fmt: skip


def _lead(found: Estimate, _: Metrics) -> Verdict:
    return _above(found, 0.0, ("Choosing the longer answer would do better.",
                               "Not surely better than choosing the longer answer.",
                               "Surely better than choosing the longer answer."))  # fmt: skip


def _annotators(found: Estimate, metrics: Metrics) -> Verdict:
    accuracy = metrics.get("pair_accuracy", 0.0)
    if found.value < NOISE:
        return "poor", "People hardly agree, so no model can be judged well here."
    if accuracy >= found.value:
        return "good", "The model agrees with the majority at least as well as one person does."
    return "unsure", "One person still agrees with the majority more often than the model."


def _nll(found: Estimate, _: Metrics) -> Verdict:
    side = _side(found, COIN) if _has_ends(found) else 0
    if side < 0:
        return "good", f"Its probabilities say more than a coin, which costs {COIN:.3f}."
    if side > 0 or found.value > COIN:
        return "poor", f"Its probabilities are worse than a coin, which costs {COIN:.3f}."
    return "unsure", f"Not surely better than a coin, which costs {COIN:.3f}."


def _ece(found: Estimate, _: Metrics) -> Verdict:
    if found.value <= CALIBRATED:
        return "good", "When it says 80 %, it is right in about 80 %."
    if found.value < MISCALIBRATED:
        return "unsure", "Its probabilities are off by a few points: read them as a rough guide."
    return "poor", "Its probabilities are off: use the order of rewards, not their size."


def _order(found: Estimate, _: Metrics) -> Verdict:
    return _above(found, 0.0, ("It orders the answers of a prompt the wrong way round.",
                               "Not surely related to the order that the votes give.",
                               "It orders the answers of a prompt as the votes do; 1 is perfect."))  # fmt: skip


def _length(found: Estimate, _: Metrics) -> Verdict:
    size = abs(found.value)
    which = "longer" if found.value > 0 else "shorter"
    if size < WEAK:
        return "good", "Length of an answer says little about its reward."
    if size < STRONG:
        return "unsure", f"It leans to {which} answers: see bias."
    return "poor", f"It mostly pays for {which} answers: see bias."


def _worst(found: Estimate, _: Metrics) -> Verdict:
    return _above(found, 0.5, ("On its worst slice it is wrong more often than right.",
                               "On its worst slice it may be guessing.",
                               "Even on its worst slice it is better than guessing."))  # fmt: skip


TILES: tuple[tuple[str, str, Callable[[Estimate, Metrics], Verdict]], ...] = (
    ("pair_accuracy", "pair accuracy", _accuracy),
    ("pair_accuracy/minus_length", "lead over the longer answer", _lead),
    ("ceiling/annotators", "one annotator against the others", _annotators),
    ("nll", "NLL in nats", _nll),
    ("ece", "calibration error (ECE)", _ece),
    ("spearman", "Spearman within a prompt", _order),
    ("length/spearman", "reward follows length", _length),
    ("pair_accuracy/worst_part", "worst slice of the data", _worst),
)
"""Key of the number, what it is called on the page, and how it is judged."""
