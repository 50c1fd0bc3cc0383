"""How often the model agrees with the votes: beside baselines, and by slice of the set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure as Canvas

from rlhf.evaluation.metrics.bias import mean
from rlhf.evaluation.metrics.metric_intervals import worst_slice
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.slices import (
    Slice,
    better_length,
    class_names,
    holm,
    length_classes,
    margin_classes,
    slice_accuracy,
    source_pairs,
    vote_classes,
)  # fmt: skip
from rlhf.evaluation.report.section import (
    Cell,
    Figure,
    Section,
    Table,
    as_key,
    known,
    p_value,
    ranged,
    with_interval,
)
from rlhf.evaluation.report.style import AMBER, BLUE, FAINT, WIDTH, dots, plot
from rlhf.evaluation.results import Evaluation
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import SHARE

ONE_SIDED = 0.95
"""Where one side wins more often than this, the file was written that way."""
ENOUGH = 6
"""With fewer prompts 2^(1 - n) is above 0.05: nothing is significant."""
FEW = 10
"""A worst slice is looked for among those with at least this many prompts."""
GIVEN = ("domain", "source pair", "length")
"""Kinds of slices that are known before anybody voted; the others depend on the outcome."""

CUT = ("length", "margin")
"""Kinds of slices that are cut at quantiles of the set."""


def accuracy(evaluation: Evaluation) -> Section:
    """Accuracy beside what needs no model; holds the keys of the contract."""
    m = evaluation.metrics
    extra = _baselines(evaluation)
    rows = _rows(evaluation, extra)

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(WIDTH, 0.5 + 0.42 * len(rows))
        axes = plot(canvas, "share of the decided pairs", "")
        colours = [
            BLUE if i == 0 else AMBER if "annotator" in name else FAINT for i, (name, _) in enumerate(rows)
        ]
        values, bounds = [v for _, (v, _, _) in rows], [(low, high) for _, (_, low, high) in rows]
        dots(axes, [name for name, _ in rows], values, bounds, colours)
        axes.axvline(0.5, color=FAINT, linewidth=0.8, linestyle=":")

    note = (
        "95 % intervals resample prompts; where all prompts agree they are exact binomial ones over prompts. Equal "
        "rewards count one half; pairs whose votes are even have no right answer and are left out of accuracies."
    )
    if m.get("baseline/majority", 0) > ONE_SIDED:
        note += " The file stores the winner on one side: always choosing that side means nothing."
    table = Table(
        "Accuracy and what it must beat", ("", "accuracy"), [(name, ranged(*v)) for name, v in rows], note
    )
    caption = "Accuracy with 95 % intervals. Dotted: guessing."
    return Section(
        "Accuracy",
        _words(evaluation, extra),
        dict(m) | extra | _known(evaluation),
        [table],
        [Figure("accuracy", caption, draw)] if rows else [],
    )


def slices(evaluation: Evaluation) -> Section | None:
    """Accuracy by domain, source pair, vote share, margin and length; the worst slice."""
    scored = evaluation.results.scored
    right = credit(scored.difference, scored.win_prob)
    if not np.isfinite(right).any():
        return None
    options = {"samples": evaluation.samples, "seed": evaluation.seed}
    found = [
        (
            kind,
            slice_accuracy(right, code, labels, scored.pair_prompt, names=_names(kind, labels), **options),
        )
        for kind, code, labels in _kinds(evaluation)
    ]
    found = [(kind, p) for kind, p in found if len(p) > 1]
    if not found:
        return None
    adjusted = holm([part.p for _, several in found for part in several])
    tables: list[Table] = []
    metrics: dict[str, float] = {}
    start = 0
    for kind, several in found:
        corrected = adjusted[start : start + len(several)]
        start += len(several)
        tables.append(_table(kind, several, corrected))
        metrics |= _metrics(kind, several, known=evaluation.metrics)
    candidates = [(p, kind) for kind, several in found if kind in GIVEN for p in several if p.prompts >= FEW]
    text = SLICES
    if candidates:
        worst, kind = min(candidates, key=lambda c: c[0].accuracy)
        low, high = _worst_interval(evaluation, right, [(kind, p.label) for p, kind in candidates])
        metrics |= known(with_interval("pair_accuracy/worst_part", worst.accuracy, low, high))
        text = (
            f"{text}\n\nThe worst slice that is known beforehand, with at least {FEW} prompts: {kind} {worst.label}, "
            f"{ranged(worst.accuracy, low, high)} on {worst.pairs} pairs. It is the lowest of {len(candidates)}, and "
            "would be low by chance too: the interval holds for the worst slice whichever it is."
        )
    return Section("Accuracy by slice", text, metrics, tables, [_figure(found)])


def _worst_interval(
    evaluation: Evaluation, right: Floats, candidates: list[tuple[str, str]]
) -> tuple[float, float]:
    """Of the lowest accuracy among slices (kind, label), which of them is the lowest being unknown."""
    chosen = []
    for kind, code, names in _kinds(evaluation):
        kept = np.array([(kind, name) in candidates for name in names] + [False])
        chosen.append((right, np.where(kept[code], code, -1)))
    cluster = evaluation.results.scored.pair_prompt
    return worst_slice(chosen, cluster, samples=evaluation.samples, seed=evaluation.seed)


def _kinds(evaluation: Evaluation) -> Iterator[tuple[str, Ints, list[str]]]:
    results, scored = evaluation.results, evaluation.results.scored
    yield "domain", scored.domain[scored.pair_group], list(scored.domains)
    yield ("source pair", *source_pairs(scored, results.source, results.sources))
    yield ("length", *length_classes(scored))
    yield ("votes", *vote_classes(scored))
    yield ("margin", *margin_classes(scored.difference / evaluation.temperature))
    yield ("better answer", *better_length(scored))


SLICES = (
    "Where is the model better, where worse? p asks whether a slice differs from the rest; it is clustered by prompt "
    "and corrected over all slices below (Holm)."
)
HEADINGS = {
    "domain": "By domain",
    "source pair": "By who wrote the two answers",
    "length": "By mean length of the answers, in characters",
    "votes": "By the majority's share of the votes",
    "margin": "By |margin| of the model, in log-odds",
    "better answer": "By the better answer's length (similar: within 10 %)",
}


def _table(kind: str, several: list[Slice], adjusted: list[float]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (p.label, p.pairs, p.prompts, ranged(p.accuracy, p.low, p.high), p_value(q))
        for p, q in zip(several, adjusted, strict=True)
    ]
    columns = (kind, "pairs", "prompts", "accuracy", "p")
    return Table(HEADINGS[kind], columns, rows)


def _names(kind: str, labels: list[str]) -> list[str]:
    """In keys: without the bounds of this very set; a domain as the data writes it."""
    if kind == "domain":
        return labels
    return class_names(labels) if kind in CUT else [as_key(label) for label in labels]


def _metrics(kind: str, several: list[Slice], known: Mapping[str, float]) -> dict[str, float]:
    out: dict[str, float] = {}
    for p in several:
        key = f"{as_key(kind)}/{p.name}"
        out |= {f"pair_accuracy/{key}": p.accuracy, f"n_pairs/{key}": p.pairs}
        out |= {f"pair_accuracy/{key}/ci_low": p.low, f"pair_accuracy/{key}/ci_high": p.high}
    return {key: value for key, value in out.items() if math.isfinite(value) and key not in known}


def _figure(found: list[tuple[str, list[Slice]]]) -> Figure:
    rows = [(f"{kind}: {p.label}", p) for kind, several in found for p in several[:8]]

    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(WIDTH, 0.6 + 0.27 * len(rows))
        axes = plot(canvas, "pair accuracy", "")
        kinds = {kind: i for i, (kind, _) in enumerate(found)}
        colours = [(BLUE, AMBER)[kinds[label.split(": ")[0]] % 2] for label, _ in rows]
        values, bounds = [p.accuracy for _, p in rows], [(p.low, p.high) for _, p in rows]
        dots(axes, [label for label, _ in rows], values, bounds, colours)
        axes.axvline(0.5, color=FAINT, linewidth=0.8, linestyle=":")

    return Figure(
        "parts", "Accuracy in the slices of the set, with 95 % intervals; at most eight of a kind.", draw
    )


def _baselines(evaluation: Evaluation) -> dict[str, float]:
    """`baseline/<name>` of the other models that read no more than words, and `baseline/length` with its interval."""
    scored = evaluation.results.scored
    out: dict[str, float] = {}
    columns = {"length": scored.length} | {
        name.replace(" ", "_"): reward
        for name, reward in evaluation.results.others.items()
        if name == "bag of words"
    }
    for name, values in columns.items():
        right = credit(values[scored.first] - values[scored.second], scored.win_prob)
        if np.isfinite(right).any():
            found = mean(
                right, scored.pair_prompt, samples=evaluation.samples, seed=evaluation.seed, within=SHARE
            )
            out[f"baseline/{name}"] = found.value
            out |= {f"baseline/{name}/ci_low": found.low, f"baseline/{name}/ci_high": found.high}
    return {k: v for k, v in out.items() if math.isfinite(v)}


def _rows(evaluation: Evaluation, extra: dict[str, float]) -> list[tuple[str, tuple[float, float, float]]]:
    m = dict(evaluation.metrics) | extra
    names = (
        (evaluation.name, "pair_accuracy"), ("the longer answer", "baseline/length"),
        ("bag of words", "baseline/bag_of_words"), ("always the same side", "baseline/majority"),
        ("one annotator against the others", "ceiling/annotators"),
    )  # fmt: skip
    ends = ("", "/ci_low", "/ci_high")
    return [
        (name, (m[key], m.get(key + ends[1], math.nan), m.get(key + ends[2], math.nan)))
        for name, key in names
        if key in m
    ]


def _known(evaluation: Evaluation) -> dict[str, int]:
    """How many of the evaluated prompts the models know from training and validation, where that can be known."""
    names = ("prompts_trained", "prompts_validated")
    return {f"n_{n}": evaluation.results.counts[n] for n in names if n in evaluation.results.counts}


def _met_before(evaluation: Evaluation) -> str:
    known = _known(evaluation)
    trained, validated = known.get("n_prompts_trained", 0), known.get("n_prompts_validated", 0)
    if not trained + validated:
        return ""
    return (
        f"This is no held-out result: of its {evaluation.metrics['n_prompts']:.0f} prompts {trained} were trained on, "
        f"and {validated} more chose the checkpoint and the temperature.\n\n"
    )


def _words(evaluation: Evaluation, extra: Mapping[str, float]) -> str:
    m, counts = evaluation.metrics, evaluation.results.counts
    if "pair_accuracy" not in m:
        return "No pair of this set has a right answer: its votes are even, or there are none."
    lead = (
        f" Its lead over always choosing the longer answer is {m['pair_accuracy/minus_length']:+.3f} "
        f"[{m['pair_accuracy/minus_length/ci_low']:+.3f}, {m['pair_accuracy/minus_length/ci_high']:+.3f}]"
        if "pair_accuracy/minus_length/ci_low" in m
        else ""
    )
    sure = (
        "" if not lead
        else f": {m['n_prompts']:.0f} prompts are too few to call that significant." if m["n_prompts"] < ENOUGH
        else ", which is significant." if m["pair_accuracy/minus_length/ci_low"] > 0
        else ": it is worse than that." if m["pair_accuracy/minus_length/ci_high"] < 0
        else ", which is not significant."
    )  # fmt: skip
    words = extra.get("baseline/bag_of_words")
    beside = (
        ""
        if words is None
        else f" A bag of words that learned from the run's training votes reaches {words:.3f}."
    )
    decided = m["n_pairs"] - m.get("n_gold_ties", 0)
    accuracy = ranged(*(m.get(f"pair_accuracy{end}") for end in ("", "/ci_low", "/ci_high")))
    if m["n_prompts"] < 2:
        beside += " One prompt says nothing about others, so there are no intervals."
    few = (
        f"\n\nOnly {m['n_prompts']:.0f} prompts: intervals resample them and are widened as so few demand; no p value "
        f"can lie below {2 ** (1 - m['n_prompts']):.2g}."
        if 1 < m["n_prompts"] < 2 * FEW
        else ""
    )
    dropped = sum(n for name, n in counts.items() if name.startswith("dropped/"))
    return (
        f"{_met_before(evaluation)}On {m['n_pairs']:.0f} labelled pairs of {m['n_prompts']:.0f} "
        f"prompt{'s' * (m['n_prompts'] > 1)} the model agrees with the majority of the votes in {accuracy} of the "
        f"{decided:.0f} decided ones."
        f"{lead}{sure}{beside}\n\n"
        f"{counts.get('records', 0)} records were read, {dropped} of them had nothing to evaluate, and "
        f"{counts.get('completions_too_long', 0)} completions were too long to be read.{few}"
    )
