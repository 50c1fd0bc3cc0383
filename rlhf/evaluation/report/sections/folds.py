"""Cross-validation: the leads over what needs no model, a row per fold, and pairs that the data has an answer to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten

import numpy as np

from rlhf.evaluation.metrics.left_out import over_groups
from rlhf.evaluation.report.section import Cell, Evaluation, Section, Table, cell, known, ranged
from rlhf.evaluation.report.style import AMBER, BLUE, FAINT, dot_figure
from rlhf.stats.arrays import Floats
from rlhf.stats.bootstrap import Estimate

SHOWN = 60
"""Folds and groups that are shown; folds.csv and groups.csv hold all."""
NAME = 40
"""Letters of what was left out, at most."""
BASELINES = {"length": "the longer answer", "bag_of_words": "a bag of words"}
COLUMNS = {
    "pairs": "n_pairs", "accuracy": "pair_accuracy", "longer": "baseline/length", "lead": "lead/length",
    "bag of words": "baseline/bag_of_words", "NLL": "nll", "ECE": "ece", "before T": "ece_uncalibrated",
    "Spearman": "spearman", "CPU s": "seconds",
}  # fmt: skip
GOLD = {
    "": "this model", "uncalibrated/": "before the temperature", "baseline/length/": "the longer answer",
    "baseline/bag_of_words/": "a bag of words",
}  # fmt: skip
NOTE = (
    "Every row is another model, tested on groups it has not seen. NLL of a coin: 0.693. The bag of words learned from "
    "the fold's own training votes. Temperature and early stopping saw the fold's own validation part only."
)


Row = dict[str, float | str]


@dataclass(frozen=True)
class LeftOut:
    """What was measured per part.

    folds, groups  a row per fold, and per group that was left out
    spearman       of the rewards with the mean vote share of the answers, mean over prompts
    gold           of `rlhf.evaluation.metrics.left_out.gold_metrics`
    validation     means over the folds' validation parts
    """

    folds: Sequence[Row]
    groups: Sequence[Row]
    spearman: Estimate
    gold: Mapping[str, float]
    validation: Mapping[str, float]


def folds(evaluation: Evaluation, left_out: LeftOut) -> Section:
    """The leads over length and over a bag of words, Student's interval over groups; tables of folds and gold pairs."""
    per_group = {name: _column(left_out.groups, f"lead/{name}") for name in BASELINES}
    leads = {name: over_groups(values) for name, values in per_group.items()}
    better = sum(float(row["nll"]) < math.log(2) for row in left_out.folds)
    metrics: dict[str, float] = {"n_folds": len(left_out.folds), "folds/nll_below_coin": better}
    for name, lead in leads.items():
        metrics |= lead.keys(f"lead/{name}")
    calibration = _column(left_out.groups, "nll") - _column(left_out.groups, "nll_uncalibrated")
    metrics |= over_groups(calibration, None).keys("folds/nll_minus_uncalibrated")
    metrics |= left_out.spearman.keys("prompt/spearman")
    metrics = known({**metrics, **left_out.gold, **left_out.validation})
    unit, count = evaluation.unit, len(left_out.folds)
    text = (
        f"{count} models, each scored on the {unit}s it was trained without. "
        f"{' '.join(_said(name, lead) for name, lead in leads.items())} These are means over {len(left_out.groups)} "
        f"{unit}s, each counted once, with Student's interval over them. NLL is below a coin's in {better} of {count} "
        "folds."
    )
    rows = [(f"lead over {BASELINES[name]}", ranged(*lead)) for name, lead in leads.items()]
    rows.append(("Spearman with the votes' ranking over all records of a prompt, mean", ranged(*left_out.spearman)))
    tables = [Table("Out of fold", ("", "value"), rows), _folds(left_out)]
    if left_out.gold:
        tables.append(_gold(left_out.gold))
    dots = [
        (str(row["group"]), Estimate(float(row["lead/length"]), math.nan, math.nan))
        for row in left_out.groups[:SHOWN]
        if math.isfinite(float(row["lead/length"]))
    ]
    colours = [FAINT] * len(dots) + [BLUE, AMBER]
    dots += [(f"mean lead over {BASELINES[name]}", lead) for name, lead in leads.items()]
    figure = dot_figure(
        "folds", f"Lead over the longer answer in every {unit} that was left out, and the means with their "
        "95 % intervals.", "accuracy less the baseline's", dots, colours=colours, origin=0.0,
    )  # fmt: skip
    return Section("Cross-validation", text, metrics, tables, [figure])


def _column(rows: Sequence[Row], key: str) -> Floats:
    return np.array([float(row.get(key, math.nan)) for row in rows])


def _said(name: str, lead: Estimate) -> str:
    if not math.isfinite(lead.low):
        return f"The lead over {BASELINES[name]} is {lead.value:+.3f}."
    sure = "surely above 0" if lead.low > 0 else "surely below 0" if lead.high < 0 else "not told apart from 0"
    return f"The lead over {BASELINES[name]} is {lead.value:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}], {sure}."


def _folds(left_out: LeftOut) -> Table:
    rows: list[list[Cell]] = []
    for row in left_out.folds[:SHOWN]:
        cells = [row.get(key) for key in COLUMNS.values()]
        rows.append(
            [
                shorten(f"{row['fold']}: {row['groups']}".replace("-", " "), NAME, placeholder=" …"),
                *(_known(value) for value in cells),
            ]
        )
    more = len(left_out.folds) - len(rows)
    note = f"{NOTE} {more} more in folds.csv." if more else NOTE
    return Table("Every fold", ("fold: left out", *COLUMNS), rows, note)


def _known(value: float | str | None) -> Cell:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _gold(gold: Mapping[str, float]) -> Table:
    rows = [
        [words, *(cell(gold, f"gold/{name}{key}") for key in ("pair_accuracy", "auc", "auc/mean", "nll"))]
        for name, words in GOLD.items()
        if f"gold/{name}pair_accuracy" in gold
    ]
    leads = [
        f"over {words} {cell(gold, f'gold/lead/{name}')}"
        for name, words in BASELINES.items()
        if f"gold/lead/{name}" in gold
    ]
    note = (
        f"{gold['gold/n_pairs']:.0f} pairs that the data itself has an answer to. Every pair counts in both orders in "
        f"the AUC; the mean is over AUCs of what was left out. Mean leads in accuracy: {', '.join(leads)}."
    )
    return Table("Gold pairs", ("", "accuracy", "AUC", "mean AUC", "cross-entropy"), rows, note)
