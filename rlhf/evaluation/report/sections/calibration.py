"""Do the probabilities mean what they say, and does the margin know when the model is right?"""

import math
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from scipy.special import expit

from rlhf.evaluation.metrics.calibration import BINS, fit_temperature, fold, reliability
from rlhf.evaluation.metrics.ood import clustered_auroc
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.ranking import correlation
from rlhf.evaluation.metrics.selective import risk_coverage, selective_intervals
from rlhf.evaluation.report.section import Cell, Evaluation, Figure, Section, Table, cell, known, ranged
from rlhf.evaluation.report.sections.ensemble_members import of_ensemble
from rlhf.evaluation.report.style import AMBER, BLUE, FAINT, INK, SERIES, WIDTH, legend_below, plot, wilson
from rlhf.stats.arrays import Floats, Ints

COVERAGES = (1.0, 0.8, 0.5, 0.2)
FEWEST = 20
"""Pairs that a risk-coverage curve starts from, or the least coverage of the table where that is fewer."""
RAW = (
    "No temperature was fitted: this data was read whole, with no validation part to fit one on, and the model brings "
    "none. T = 1, so NLL, Brier and ECE below are those of raw rewards, whose scale means nothing until it is fitted."
)
ROWS = (
    ("NLL in nats", "nll", "nll_uncalibrated"), ("Brier", "brier", "brier_uncalibrated"),
    ("ECE, 15 equal bins", "ece", "ece_uncalibrated"),
    ("by chance at this n", "ece/by_chance", "ece_uncalibrated/by_chance"),
    ("ECE, equal counts", "ece/adaptive", "ece/adaptive_uncalibrated"),
    ("by chance at this n, equal counts", "ece/adaptive/by_chance", "ece/adaptive_uncalibrated/by_chance"),
)  # fmt: skip
"""Name, key after the temperature, key before."""
RELIABILITY = (
    "Share of the votes that agreed against stated confidence, in 15 bins; below: how many pairs each bin holds, "
    "both before and after the temperature. On the dashed diagonal, confidence is deserved. Bars: Wilson's 95 % "
    "intervals, which take pairs as independent."
)
MARGIN = (
    "Share of the votes for the answer with the higher reward against |margin|, in groups of equal count, for the raw "
    "reward and after the temperature where one was fitted. Dashed: what the margin promises. "
    "Bars: Wilson's 95 % intervals."
)
GROUPS, EACH = 12, 20
"""Groups of the margins, at most, and pairs in each, at least."""


def calibration(evaluation: Evaluation) -> Section | None:
    """NLL, Brier and calibration errors before and after the temperature; reliability; what the margin knows."""
    m, t = evaluation.metrics, evaluation.temperature
    if "nll" not in m:
        return None
    best, margin = _best_temperature(evaluation), _margin(evaluation)
    raw = evaluation.name in evaluation.uncalibrated
    metrics = margin | {"temperature/fitted": float(not raw)}
    metrics |= {} if best is None else {"temperature/best_here": best}
    ideal = (
        "no temperature helps: the order is no better than chance" if best is None
        else f"the best on this very set would be {best:.3f}, never used"
    )  # fmt: skip
    note = (
        f"Temperature {t:.3f} (before: 1; {ideal}). "
        f"The least possible NLL, the entropy of the votes, is {m['nll/votes_entropy']:.3f}; a coin has 0.693. "
        f"Errors are symmetric in the two sides. {of_ensemble(evaluation)}"
    ).rstrip()
    rows = [(name, cell(m, key), cell(m, before)) for name, key, before in ROWS]
    words = (RAW if raw else "", verdict(m), what_temperature_did(m) if m["nll/minus_uncalibrated"] else "")
    return Section(
        "Calibration",
        "\n\n".join(part for part in words if part),
        known(metrics),
        [Table("Probabilities", ("", "after temperature", "before"), rows, note), _fifths(evaluation, margin)],
        [
            Figure("reliability", RELIABILITY, partial(draw_reliability, evaluation)),
            Figure("margin", MARGIN, partial(draw_margins, evaluation)),
        ],
    )


def _best_temperature(evaluation: Evaluation) -> float | None:
    """The temperature that fits this very set best; None where its order is no better than chance."""
    scored = evaluation.results.scored
    if float(scored.difference @ (scored.win_prob - 0.5)) <= 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_temperature(scored.difference, scored.win_prob)


def _margin(evaluation: Evaluation) -> dict[str, float]:
    """What |margin| knows of the votes' share and of the right orders."""
    scored = evaluation.results.scored
    margin, share = np.abs(scored.difference), np.maximum(scored.win_prob, 1 - scored.win_prob)
    out: dict[str, float] = {}
    if len(np.unique(margin)) > 1 and len(np.unique(share)) > 1:
        rho = correlation(margin, share, scored.pair_prompt, **evaluation.resamples)
        out |= rho.keys("margin/spearman_votes")
    right = credit(scored.difference, scored.win_prob)
    good, bad, cluster = right > 0.5, right < 0.5, scored.pair_prompt
    if good.any() and bad.any():
        auroc = clustered_auroc(margin[bad], margin[good], (cluster[bad], cluster[good]))
        out |= auroc.keys("margin/auroc_right")
    return out


def _fifths(evaluation: Evaluation, found: Mapping[str, float]) -> Table:
    """Pairs in fifths by |margin|: what the model says and what the votes say."""
    scored = evaluation.results.scored
    difference = scored.difference / evaluation.temperature
    confidence, agreement = fold(expit(difference), scored.win_prob)
    right = credit(scored.difference, scored.win_prob)
    order = np.argsort(np.abs(difference), kind="stable")
    rows: list[tuple[Cell, ...]] = []
    for part in np.array_split(order, 5):
        if len(part):
            decided = right[part][np.isfinite(right[part])]
            low, high = np.abs(difference[part[[0, -1]]])
            rows.append((f"{low:.2f} to {high:.2f}", len(part), float(confidence[part].mean()),
                         float(agreement[part].mean()), float(decided.mean()) if len(decided) else None))  # fmt: skip
    note = (
        f"A larger margin picks out the right orders with AUROC {cell(found, 'margin/auroc_right')}; 0.5 is no "
        f"knowledge. Rank correlation of |margin| and the majority's share of the votes: "
        f"{cell(found, 'margin/spearman_votes') or 'not defined'}."
        if "margin/auroc_right" in found
        else ""
    )
    columns = ("|margin|, log-odds", "pairs", "stated confidence", "votes that agree", "accuracy")
    return Table("Does the margin track confidence? Fifths of the pairs", columns, rows, note)


def verdict(m: Mapping[str, float]) -> str:
    """Is the calibration error larger than chance, in bins of equal width and in bins of equal counts?"""
    kinds = {"bins of equal width": "ece", "bins of equal counts": "ece/adaptive"}
    if any(f"{key}/ci_low" not in m or f"{key}/by_chance" not in m for key in kinds.values()):
        return ""
    said = " and ".join(f"{cell(m, key)} in {kind} (chance {m[f'{key}/by_chance']:.3f})" for kind, key in kinds.items())
    larger = [kind for kind, key in kinds.items() if m[f"{key}/ci_low"] > 0]
    sure = (
        "Neither is larger than chance explains: this set does not show that it is badly calibrated." if not larger
        else "Both are larger than chance explains." if len(larger) == len(kinds)
        else f"In {larger[0]} it is larger than chance explains, which makes bad calibration likely but not sure."
    )  # fmt: skip
    return (
        f"The calibration error is {said}, chance being what a perfectly calibrated model would show on as many pairs. "
        f"{sure}"
    )


def what_temperature_did(m: Mapping[str, float]) -> str:
    """Did dividing by the temperature help on this set, and what did it make worse?"""
    low, high = (m.get(f"nll/minus_uncalibrated/{end}", math.nan) for end in ("ci_low", "ci_high"))
    interval = f" [{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else ""
    sure = (
        "no interval, so nothing is sure" if not interval
        else "it surely helped" if high < 0
        else "it surely hurt" if low > 0
        else "not told apart from no effect"
    )  # fmt: skip
    worse = [
        f"{name} from {m[before]:.3f} to {m[key]:.3f}"
        for name, key, before in ROWS
        if not key.endswith("by_chance") and m[key] > m[before] + 5e-4
    ]
    return (
        f"What the temperature did to the NLL here, after less before on the same pairs: "
        f"{m['nll/minus_uncalibrated']:+.3f}{interval} nats, {sure}."
        + (f" The temperature made worse on this set: {'; '.join(worse)}." if worse else "")
    )


def _states(evaluation: Evaluation) -> list[tuple[float, str, str]]:
    """Temperature, colour and name of every drawn state: before and after, or one where T = 1."""
    if evaluation.temperature == 1:
        return [(1.0, BLUE, "T = 1")]
    return [(1.0, AMBER, "before temperature"), (evaluation.temperature, BLUE, "after")]


def draw_reliability(evaluation: Evaluation, canvas: Canvas) -> None:
    """Agreement against confidence with Wilson's intervals, and the counts behind them."""
    scored, states = evaluation.results.scored, _states(evaluation)
    canvas.set_size_inches(WIDTH, 4.8)
    grid = canvas.add_gridspec(2, 1, height_ratios=(3, 1), hspace=0.08)
    axes = plot(canvas, "", "votes that agreed", grid[0])
    below = plot(canvas, "stated confidence", "pairs", grid[1])
    axes.plot([0.5, 1], [0.5, 1], color=FAINT, linestyle="--", linewidth=1)
    width = 0.5 / BINS * 0.8 / len(states)
    for i, (temperature, colour, label) in enumerate(states):
        table = reliability(expit(scored.difference / temperature), scored.win_prob, bins=BINS)
        x, y, n = (np.array(v) for v in zip(*((b.confidence, b.agreement, b.count) for b in table), strict=True))
        _points(axes, x, y, n, colour, label, linewidth=1.4)
        middle = 0.5 + (np.minimum(np.floor((x - 0.5) * 2 * BINS), BINS - 1) + 0.5) / (2 * BINS)
        below.bar(middle + (i - (len(states) - 1) / 2) * width, n, width=width, color=colour)
    ceiling = evaluation.metrics.get("ceiling/annotators")
    if ceiling is not None:
        axes.axhline(ceiling, color=FAINT, linewidth=0.8, linestyle=":", label="one annotator")
    axes.tick_params(labelbottom=False)
    axes.set_ylim(-0.02, 1.02)
    for each in (axes, below):
        each.set_xlim(0.49, 1.01)
    legend_below(canvas, axes)


def draw_margins(evaluation: Evaluation, canvas: Canvas) -> None:
    """Agreement against |margin|: one panel of raw rewards, one after the temperature, each on its own scale."""
    scored, states = evaluation.results.scored, _states(evaluation)
    canvas.set_size_inches(WIDTH, 3.0)
    grid = canvas.add_gridspec(1, len(states))
    for i, (temperature, colour, label) in enumerate(states):
        axes = plot(canvas, "|margin| in log-odds", "" if i else "votes that agreed", grid[0, i])
        axes.set_title(label, fontsize=9, color=INK)
        margin = np.abs(scored.difference) / temperature
        agreement = fold(expit(scored.difference / temperature), scored.win_prob)[1]
        count = min(GROUPS, max(1, len(margin) // EACH))
        groups = [g for g in np.array_split(np.argsort(margin, kind="stable"), count) if len(g)]
        x, y = (np.array([v[g].mean() for g in groups]) for v in (margin, agreement))
        _points(axes, x, y, np.array([len(g) for g in groups]), colour, label, linestyle="none")
        top = max(float(x.max(initial=0)) * 1.06, 0.1)
        line = np.linspace(0, top, 100)
        axes.plot(line, expit(line), color=FAINT, linestyle="--", linewidth=1)
        axes.set_xlim(0, top)
        axes.set_ylim(-0.02, 1.02)
        axes.tick_params(labelleft=not i)


def _points(axes: Any, x: Floats, y: Floats, n: Ints, colour: str, label: str, **line: Any) -> None:
    low, high = wilson(y, n)
    axes.errorbar(
        x, y, (y - low, high - y), color=colour, marker="o", markersize=4, elinewidth=0.8, label=label, **line
    )


def selective(evaluation: Evaluation) -> Section | None:
    """Accuracy where the model is sure: risk against coverage for every sign of doubt there is."""
    scored = evaluation.results.scored
    right, signals = credit(scored.difference, scored.win_prob), _signals(evaluation)
    decided = np.isfinite(right)
    if not decided.any():
        return None
    rows: list[tuple[Cell, ...]] = []
    metrics: dict[str, float] = {}
    for name, doubt in signals.items():
        whole, at = selective_intervals(doubt, right, scored.pair_prompt, COVERAGES, **evaluation.resamples)
        key = f"selective/{name.replace(' ', '_')}"
        metrics |= whole.keys(f"{key}/aurc")
        for c, values in zip(COVERAGES[1:], at[1:], strict=True):  # all of them: pair_accuracy
            metrics |= values.keys(f"{key}/accuracy_at_{100 * c:.0f}")
        rows.append((name, cell(metrics, f"{key}/aurc"), *(ranged(*values) for values in at)))
    shares = (f"{100 * c:.0f} % answered" for c in COVERAGES)
    table = Table("Accuracy at a coverage", ("doubt is shown by", "area (lower is better)", *shares), rows)
    caption = (
        "Accuracy among the pairs the model is surest about, from 20 pairs or 20 % on. A line that falls to the right "
        "knows its errors; dotted: the accuracy on all."
    )
    figure = Figure(
        "risk_coverage", caption, partial(_draw_coverage, {k: v[decided] for k, v in signals.items()}, right[decided])
    )
    return Section("Answering only when sure", "", known(metrics), [table], [figure])


def _draw_coverage(signals: Mapping[str, Floats], right: Floats, canvas: Canvas) -> None:
    canvas.set_size_inches(WIDTH, 3.3)
    axes = plot(canvas, "share of the pairs that are answered", "accuracy on them")
    for (name, confidence), colour in zip(signals.items(), SERIES, strict=False):
        coverage, accuracy = risk_coverage(confidence, right)
        start = min(FEWEST, math.ceil(COVERAGES[-1] * len(coverage))) - 1
        some = np.unique(np.linspace(start, len(coverage) - 1, 200).astype(int))
        axes.plot(coverage[some], accuracy[some], color=colour, label=name, linewidth=1.6)
    axes.axhline(right.mean(), color=FAINT, linewidth=0.8, linestyle=":")
    legend_below(canvas, axes)


def _signals(evaluation: Evaluation) -> dict[str, Floats]:
    """Confidence [P]: |margin|, agreement of members, nearness to training (the one of the two answers that is
    farther out counts).
    """
    results, scored = evaluation.results, evaluation.results.scored
    found = {"margin": np.abs(scored.difference)}
    if len(results.members) > 1:
        difference = results.members[:, scored.first] - results.members[:, scored.second]
        found["ensemble"] = -difference.std(0, ddof=1)
    for name, values in results.ood_scores.items():
        found[name] = -np.maximum(values[scored.first], values[scored.second])
    return found
