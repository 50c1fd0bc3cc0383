"""Do the probabilities mean what they say, and does the margin know when the model is right?"""

from __future__ import annotations

import math
import warnings

import numpy as np
from matplotlib.figure import Figure as Canvas
from scipy.special import expit

from rlhf.evaluation.metrics.bias import correlation
from rlhf.evaluation.metrics.calibration import fit_temperature, fold
from rlhf.evaluation.metrics.ood import clustered_auroc
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.selective import accuracy_at, area, risk_coverage, selective_intervals
from rlhf.evaluation.report.calibration_figures import MARGIN, RELIABILITY, draw_margins, draw_reliability
from rlhf.evaluation.report.section import Cell, Figure, Section, Table, cell, ranged, with_interval
from rlhf.evaluation.report.sections.calibration_text import ROWS, verdict, what_temperature_did
from rlhf.evaluation.report.sections.ensemble_members import of_ensemble
from rlhf.evaluation.report.style import FAINT, SERIES, WIDTH, legend_below, plot
from rlhf.evaluation.results import Evaluation
from rlhf.stats.arrays import Floats

COVERAGES = (1.0, 0.8, 0.5, 0.2)
FEWEST = 20
"""Pairs that a risk-coverage curve starts from, or the least coverage of the table where that is fewer."""
RAW = (
    "No temperature was fitted: this data was read whole, with no validation part to fit one on, and the model brings "
    "none. T = 1, so NLL, Brier and ECE below are those of raw rewards, whose scale means nothing until it is fitted."
)


def calibration(evaluation: Evaluation) -> Section | None:
    """NLL, Brier and calibration errors before and after the temperature; reliability; what the margin knows."""
    m = evaluation.metrics
    if "nll" not in m:
        return None
    best = _best_temperature(evaluation)
    raw = evaluation.name in evaluation.uncalibrated
    metrics = _margin(evaluation) | {"temperature/fitted": float(not raw)}
    metrics |= {} if best is None else {"temperature/best_here": best}
    ideal = (
        "no temperature helps: the order is no better than chance" if best is None
        else f"the best on this very set would be {best:.3f}, never used"
    )  # fmt: skip
    rows = [(name, cell(m, key), cell(m, before)) for name, key, before in ROWS]
    columns = ("", "after temperature", "before")
    note = (
        f"Temperature {evaluation.temperature:.3f} (before: 1; {ideal}). "
        f"The least possible NLL, the entropy of the votes, is {m['nll/votes_entropy']:.3f}; a coin has 0.693. "
        f"Errors are symmetric in the two sides. {of_ensemble(evaluation)}"
    ).rstrip()
    words = (RAW if raw else "", verdict(m), "" if evaluation.temperature == 1 else what_temperature_did(m))
    text = "\n\n".join(part for part in words if part)
    figures = [
        Figure("reliability", RELIABILITY, draw_reliability(evaluation)),
        Figure("margin", MARGIN, draw_margins(evaluation)),
    ]  # fmt: skip
    found = {k: v for k, v in metrics.items() if math.isfinite(v)}
    return Section(
        "Calibration",
        text,
        found,
        [Table("Probabilities", columns, rows, note), _fifths(evaluation)],
        figures,
    )


def _best_temperature(evaluation: Evaluation) -> float | None:
    """The temperature that fits this very set best; None where its order is no better than chance."""
    scored = evaluation.results.scored
    if float(scored.difference @ (scored.win_prob - 0.5)) <= 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_temperature(scored.difference, scored.win_prob)


def selective(evaluation: Evaluation) -> Section | None:
    """Accuracy where the model is sure: risk against coverage for every sign of doubt there is."""
    scored = evaluation.results.scored
    everything, of_all = credit(scored.difference, scored.win_prob), _signals(evaluation)
    decided = np.isfinite(everything)
    if not decided.any():
        return None
    right = everything[decided]
    signals = {name: values[decided] for name, values in of_all.items()}
    rows: list[tuple[Cell, ...]] = []
    metrics: dict[str, float] = {}
    for name, confidence in signals.items():
        whole, ends = selective_intervals(
            of_all[name],
            everything,
            scored.pair_prompt,
            COVERAGES,
            samples=evaluation.samples,
            seed=evaluation.seed,
        )
        at = [(accuracy_at(confidence, right, c), *end) for c, end in zip(COVERAGES, ends, strict=True)]
        key = f"selective/{name.replace(' ', '_')}"
        metrics |= with_interval(f"{key}/aurc", area(confidence, right), *whole)
        for c, values in zip(COVERAGES[1:], at[1:], strict=True):  # all of them: pair_accuracy
            metrics |= with_interval(f"{key}/accuracy_at_{100 * c:.0f}", *values)
        rows.append((name, cell(metrics, f"{key}/aurc"), *(ranged(*values) for values in at)))
    columns = (
        "doubt is shown by",
        "area (lower is better)",
        *(f"{100 * c:.0f} % answered" for c in COVERAGES),
    )

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(WIDTH, 3.3)
        axes = plot(canvas, "share of the pairs that are answered", "accuracy on them")
        for (name, confidence), colour in zip(signals.items(), SERIES, strict=False):
            coverage, accuracy = risk_coverage(confidence, right)
            start = min(FEWEST, math.ceil(COVERAGES[-1] * len(coverage))) - 1
            some = np.unique(np.linspace(start, len(coverage) - 1, 200).astype(int))
            axes.plot(coverage[some], accuracy[some], color=colour, label=name, linewidth=1.6)
        axes.axhline(right.mean(), color=FAINT, linewidth=0.8, linestyle=":")
        legend_below(canvas, axes)

    caption = (
        "Accuracy among the pairs the model is surest about, from 20 pairs or 20 % on. A line that falls to the right "
        "knows its errors; dotted: the accuracy on all."
    )
    known = {k: v for k, v in metrics.items() if math.isfinite(v)}
    return Section(
        "Answering only when sure", "", known, [Table("Accuracy at a coverage", columns, rows)],
        [Figure("risk_coverage", caption, draw)],
    )  # fmt: skip


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


def _margin(evaluation: Evaluation) -> dict[str, float]:
    scored = evaluation.results.scored
    margin, share = np.abs(scored.difference), np.maximum(scored.win_prob, 1 - scored.win_prob)
    out: dict[str, float] = {}
    if len(np.unique(margin)) > 1 and len(np.unique(share)) > 1:
        rho = correlation(margin, share, scored.pair_prompt, samples=evaluation.samples, seed=evaluation.seed)
        out |= with_interval("margin/spearman_votes", rho.value, rho.low, rho.high)
    right = credit(scored.difference, scored.win_prob)
    good, bad, cluster = right > 0.5, right < 0.5, scored.pair_prompt
    if good.any() and bad.any():
        auroc = clustered_auroc(margin[bad], margin[good], (cluster[bad], cluster[good]))
        out |= with_interval("margin/auroc_right", *auroc)
    return out


def _fifths(evaluation: Evaluation) -> Table:
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
            bounds = np.abs(difference[part[[0, -1]]])
            rows.append((f"{bounds[0]:.2f} to {bounds[1]:.2f}", len(part), float(confidence[part].mean()),
                         float(agreement[part].mean()), float(decided.mean()) if len(decided) else None))  # fmt: skip
    found = _margin(evaluation)
    note = (
        f"A larger margin picks out the right orders with AUROC {cell(found, 'margin/auroc_right')}; 0.5 is no "
        f"knowledge. Rank correlation of |margin| and the majority's share of the votes: "
        f"{cell(found, 'margin/spearman_votes') or 'not defined'}."
        if "margin/auroc_right" in found
        else ""
    )
    columns = ("|margin|, log-odds", "pairs", "stated confidence", "votes that agree", "accuracy")
    return Table("Does the margin track confidence? Fifths of the pairs", columns, rows, note)
