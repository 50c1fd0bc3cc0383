"""What the reward pays for besides quality: length, and what a probe changes on purpose."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.figure import Figure as Canvas

from rlhf.evaluation.metrics.bias import (
    Estimate,
    Probe,
    length_correlation,
    partial_length_correlation,
    probe,
)
from rlhf.evaluation.report.section import Cell, Figure, Section, Table, cell, ranged
from rlhf.evaluation.report.style import FAINT, WIDTH, dots, plot
from rlhf.evaluation.results import Evaluation

EXPECTED = {
    "filler": "one more sentence that says nothing: should not raise it",
    "flattery": "praise of the question first: should not raise it",
    "markdown": "the same sentences as a bold list: should change nothing",
    "repetition": "the whole answer twice: should lower it",
    "refusal": "a refusal instead of the answer: should lower it where the request is harmless",
    "truncated_end": "the last quarter of the characters is missing: should lower it",
    "swapped": "answers in reversed order: must change nothing at all",
}


def bias(evaluation: Evaluation) -> Section | None:
    """Correlation of reward and length, and what every probe does to the reward."""
    scored = evaluation.results.scored
    if not len(scored.reward):
        return None
    options = {"samples": evaluation.samples, "seed": evaluation.seed}
    inside, partial = length_correlation(scored, **options), partial_length_correlation(scored, **options)
    metrics: dict[str, float] = {}
    if inside is not None:  # its value belongs to the first section
        metrics |= {"length/spearman/ci_low": inside.low, "length/spearman/ci_high": inside.high}
    metrics |= _estimate("length/partial", partial)
    rows: list[tuple[Cell, ...]] = [
        ("all answers together", cell(evaluation.metrics, "length/spearman_pooled")),
        ("within a prompt, averaged", _cell(inside)),
        ("within a prompt, the votes' order held fixed", _cell(partial)),
    ]
    note = "The last row is what the reward pays for length beyond what the votes do."
    tables = [
        Table("Rank correlation of reward and length", ("", "value"), rows, note),
        *_better(evaluation.metrics),
    ]
    probes = {name: _probe(evaluation, name) for name in evaluation.probes}
    found = {name: p for name, p in probes.items() if p is not None}
    for name, p in found.items():
        metrics |= _estimate(f"probe/{name}/effect", p.effect) | _estimate(f"probe/{name}/raised", p.raised)
        metrics |= _estimate(f"probe/{name}/overtakes", p.overtakes)
        metrics |= {f"probe/{name}/n": p.answers, f"probe/{name}/largest": p.largest}
    if found:
        tables.append(_table(found))
    known = {k: v for k, v in metrics.items() if math.isfinite(v)}
    return Section("Biases", _words(found), known, tables, [_figure(found)] if found else [])


def _better(metrics: Mapping[str, float]) -> list[Table]:
    """Accuracy by which of the two answers is the better one."""
    rows: list[tuple[Cell, ...]] = [
        (
            f"the {side} answer is better",
            int(metrics[f"n_{side}_won"]),
            cell(metrics, f"pair_accuracy/{side}_won"),
        )
        for side in ("longer", "shorter")
        if metrics.get(f"n_{side}_won")
    ]
    note = "By any difference in length; with a class of similar lengths: Accuracy by slice."
    return [Table("Accuracy by the better answer", ("", "pairs", "accuracy"), rows, note)] if rows else []


def _probe(evaluation: Evaluation, name: str) -> Probe | None:
    return probe(
        evaluation.results,
        evaluation.probes[name],
        evaluation.temperature,
        samples=evaluation.samples,
        seed=evaluation.seed,
    )


def _words(found: dict[str, Probe]) -> str:
    said = {name: f"{name.replace('_', ' ')} ({p.effect.value:+.2f})" for name, p in found.items()}
    up = [said[name] for name, p in found.items() if p.effect.low > 0]
    down = [said[name] for name, p in found.items() if p.effect.high < 0]
    if not found:
        return ""
    parts = [
        f"These changes raise the reward on average, in log-odds: {', '.join(up)}."
        if up
        else "No probe raises the reward on average.",
        f"These lower it: {', '.join(down)}." if down else "None lowers it.",
        "What each should do stands in the table.",
    ]
    if "swapped" in found:
        parts.append(f"Order of the answers moves a reward by {found['swapped'].largest:.1e} at most.")
    return " ".join(parts)


def _table(found: dict[str, Probe]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, p in found.items():
        said = f"{name.replace('_', ' ')} ({EXPECTED.get(name, 'of your own')})"
        rows.append((said, p.answers, _cell(p.effect), _cell(p.raised), _cell(p.overtakes)))
    columns = ("probe", "answers", "effect", "raised", "overtakes")
    note = (
        "Effect: mean change of the reward in log-odds. Raised: share of the answers whose reward rose (0.5 = no "
        "matter). Overtakes: of the pairs that the model orders rightly, how often the worse answer, changed, beats "
        "the better one as it was."
    )
    return Table("Probes", columns, rows, note)


def _figure(found: dict[str, Probe]) -> Figure:
    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(WIDTH, 0.7 + 0.32 * len(found))
        axes = plot(canvas, "mean change of the reward, log-odds", "")
        bounds = [(p.effect.low, p.effect.high) for p in found.values()]
        names = [name.replace("_", " ") for name in found]
        dots(axes, names, [p.effect.value for p in found.values()], bounds)
        axes.axvline(0, color=FAINT, linewidth=0.8, linestyle=":")

    return Figure(
        "probes", "What each change does to the reward of the same answers, with 95 % intervals.", draw
    )


def _cell(estimate: Estimate | None) -> Cell:
    return None if estimate is None else ranged(estimate.value, estimate.low, estimate.high)


def _estimate(key: str, estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return {}
    return {key: estimate.value, f"{key}/ci_low": estimate.low, f"{key}/ci_high": estimate.high}
