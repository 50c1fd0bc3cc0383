"""How often the model agrees with the votes: beside baselines, and by slice of the set."""

from collections.abc import Mapping

import numpy as np

from rlhf.evaluation.metrics.metrics import worst_slice
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.slices import Slice, holm, slice_accuracy, slice_kinds
from rlhf.evaluation.report.section import Evaluation, Section, Table, as_key, cell, estimate, known, p_value, ranged
from rlhf.evaluation.report.style import AMBER, BLUE, FAINT, dot_figure
from rlhf.stats.arrays import Floats
from rlhf.stats.bootstrap import Estimate

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
NOTE = (
    "95 % intervals resample {unit}s; where all {unit}s agree they are exact binomial ones over them. Equal "
    "rewards count one half; pairs whose votes are even have no right answer and are left out of accuracies."
)
SLICES = (
    "Where is the model better, where worse? p asks whether a slice differs from the rest; it is clustered by {unit} "
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


def accuracy(evaluation: Evaluation) -> Section:
    """Accuracy beside what needs no model; holds the keys of the contract."""
    m = dict(evaluation.metrics) | _baselines(evaluation)
    names = (
        (evaluation.name, "pair_accuracy"), ("the longer answer", "baseline/length"),
        ("bag of words", "baseline/bag_of_words"), ("always the same side", "baseline/majority"),
        ("one annotator against the others", "ceiling/annotators"),
    )  # fmt: skip
    rows = [(name, estimate(m, key)) for name, key in names if key in m]
    colours = [BLUE if i == 0 else AMBER if "annotator" in name else FAINT for i, (name, _) in enumerate(rows)]
    note = NOTE.format(unit=evaluation.unit)
    if m.get("baseline/majority", 0) > ONE_SIDED:
        note += " The file stores the winner on one side: always choosing that side means nothing."
    cells = [(name, ranged(*value)) for name, value in rows]
    figure = dot_figure(
        "accuracy", "Accuracy with 95 % intervals. Dotted: guessing.", "share of the decided pairs", rows,
        colours=colours, height=(0.5, 0.42),
    )  # fmt: skip
    return Section(
        "Accuracy",
        _words(evaluation, m),
        m | _prompts_known(evaluation),
        [Table("Accuracy and what it must beat", ("", "accuracy"), cells, note)],
        [figure] if rows else [],
    )


def slices(evaluation: Evaluation) -> Section | None:
    """Accuracy by domain, source pair, vote share, margin and length; the worst slice."""
    scored = evaluation.results.scored
    right = credit(scored.difference, scored.win_prob)
    if not np.isfinite(right).any():
        return None
    found: dict[str, list[Slice]] = {}
    for kind, code, labels in slice_kinds(evaluation.results, evaluation.temperature):
        names = dict(zip(labels, _names(kind, labels), strict=True))
        several = slice_accuracy(right, code, names, scored.pair_prompt, **evaluation.resamples)
        if len(several) > 1:
            found[kind] = several
    if not found:
        return None
    adjusted = iter(holm([part.p for several in found.values() for part in several]))
    tables: list[Table] = []
    metrics: dict[str, float] = {}
    for kind, several in found.items():
        rows = [(p.label, p.pairs, p.prompts, ranged(*p.accuracy), p_value(next(adjusted))) for p in several]
        tables.append(Table(HEADINGS[kind], (kind, "pairs", f"{evaluation.unit}s", "accuracy", "p"), rows))
        metrics |= _metrics(kind, several, evaluation.metrics)
    text = SLICES.format(unit=evaluation.unit)
    candidates = [(p, kind) for kind in GIVEN for p in found.get(kind, ()) if p.prompts >= FEW]
    if candidates:
        worst, kind = min(candidates, key=lambda c: c[0].accuracy.value)
        ends = _worst_interval(evaluation, right, [(kind, p.label) for p, kind in candidates])
        lowest = Estimate(worst.accuracy.value, *ends)
        metrics |= known(lowest.keys("pair_accuracy/worst_part"))
        text = (
            f"{text}\n\nThe worst slice that is known beforehand, with at least {FEW} {evaluation.unit}s: {kind} "
            f"{worst.label}, {ranged(*lowest)} on {worst.pairs} pairs. It is the lowest of {len(candidates)}, and "
            "would be low by chance too: the interval holds for the worst slice whichever it is."
        )
    dotted = [(f"{kind}: {p.label}", p.accuracy) for kind, several in found.items() for p in several[:8]]
    colours = [(BLUE, AMBER)[i % 2] for i, several in enumerate(found.values()) for _ in several[:8]]
    caption = "Accuracy in the slices of the set, with 95 % intervals; at most eight of a kind."
    figure = dot_figure("parts", caption, "pair accuracy", dotted, colours=colours)
    return Section("Accuracy by slice", text, metrics, tables, [figure])


def _worst_interval(evaluation: Evaluation, right: Floats, candidates: list[tuple[str, str]]) -> tuple[float, float]:
    """Of the lowest accuracy among slices (kind, label), which of them is the lowest being unknown."""
    chosen = []
    for kind, code, names in slice_kinds(evaluation.results, evaluation.temperature):
        kept = np.array([(kind, name) in candidates for name in names] + [False])
        chosen.append((right, np.where(kept[code], code, -1)))
    return worst_slice(chosen, evaluation.results.scored.pair_prompt, **evaluation.resamples)


def _names(kind: str, labels: list[str]) -> list[str]:
    """In keys: ordered classes without the bounds of this very set; a domain as the data writes it."""
    if kind in CUT:
        return [f"{i}_of_{len(labels)}" for i in range(1, len(labels) + 1)]
    return labels if kind == "domain" else [as_key(label) for label in labels]


def _metrics(kind: str, several: list[Slice], taken: Mapping[str, float]) -> dict[str, float]:
    """Accuracy and pairs of every slice; keys that the first section has are its own."""
    out: dict[str, float] = {}
    for p in several:
        key = f"{as_key(kind)}/{p.name}"
        out |= p.accuracy.keys(f"pair_accuracy/{key}") | {f"n_pairs/{key}": p.pairs}
    return {key: value for key, value in known(out).items() if key not in taken}


def _baselines(evaluation: Evaluation) -> dict[str, float]:
    """`baseline/<name>` of the other models that read no more than words, and `baseline/length` with its interval."""
    results, scored = evaluation.results, evaluation.results.scored
    words = {"bag_of_words": results.others["bag of words"]} if "bag of words" in results.others else {}
    out: dict[str, float] = {}
    for name, values in ({"length": scored.length} | words).items():
        right = credit(values[scored.first] - values[scored.second], scored.win_prob)
        if np.isfinite(right).any():
            out |= evaluation.pair_mean(right).keys(f"baseline/{name}")
    return known(out)


def _prompts_known(evaluation: Evaluation) -> dict[str, int]:
    """How many of the evaluated prompts the models know from training and validation, and what scoring cost.

    Each where it can be known: `n_encodings` texts were read for `n_completions` that were asked for.
    """
    names = ("prompts_trained", "prompts_validated", "completions", "encodings")
    return {f"n_{n}": evaluation.results.counts[n] for n in names if n in evaluation.results.counts}


def _words(evaluation: Evaluation, m: Mapping[str, float]) -> str:
    counts, prompts, units = evaluation.results.counts, m["n_prompts"], m.get("n_clusters", m["n_prompts"])
    if "pair_accuracy" not in m:
        return "No pair of this set has a right answer: its votes are even, or there are none."
    words = m.get("baseline/bag_of_words")
    beside = "" if words is None else f" A bag of words that learned from the same training votes reaches {words:.3f}."
    if units < 2:
        beside += f" One {evaluation.unit} says nothing about others, so there are no intervals."
    few = (
        f"\n\nOnly {units:.0f} {evaluation.unit}s: intervals resample them and are widened as so few demand; no p "
        f"value can lie below {2 ** (1 - units):.2g}."
        if 1 < units < 2 * FEW
        else ""
    )
    dropped = sum(n for name, n in counts.items() if name.startswith("dropped/"))
    return (
        f"{_met_before(evaluation)}On {m['n_pairs']:.0f} labelled pairs of {prompts:.0f} "
        f"prompt{'s' * (prompts > 1)} the model agrees with the majority of the votes in {cell(m, 'pair_accuracy')} of "
        f"the {m['n_pairs'] - m.get('n_gold_ties', 0):.0f} decided ones.{_lead(m, evaluation.unit)}{beside}\n\n"
        f"{counts.get('records', 0)} records were read, {dropped} of them had nothing to evaluate, and "
        f"{counts.get('completions_too_long', 0)} completions were too long to be read.{few}"
    )


def _lead(m: Mapping[str, float], unit: str) -> str:
    """The lead over the longer answer, and whether it is significant; "" where it has no interval."""
    key = "pair_accuracy/minus_length"
    if f"{key}/ci_low" not in m:
        return ""
    value, low, high = estimate(m, key)
    units = m.get("n_clusters", m["n_prompts"])
    sure = (
        f": {units:.0f} {unit}s are too few to call that significant." if units < ENOUGH
        else ", which is significant." if low > 0
        else ": it is worse than that." if high < 0
        else ", which is not significant."
    )  # fmt: skip
    return f" Its lead over always choosing the longer answer is {value:+.3f} [{low:+.3f}, {high:+.3f}]{sure}"


def _met_before(evaluation: Evaluation) -> str:
    found = _prompts_known(evaluation)
    trained, validated = found.get("n_prompts_trained", 0), found.get("n_prompts_validated", 0)
    if not trained + validated:
        return ""
    return (
        f"This is no held-out result: of its {evaluation.metrics['n_prompts']:.0f} prompts {trained} were trained on, "
        f"and {validated} more chose the checkpoint and the temperature.\n\n"
    )
