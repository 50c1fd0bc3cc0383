"""What the reward pays for besides quality: length, and what a probe changes on purpose."""

from collections.abc import Mapping

from rlhf.evaluation.metrics.bias import Probe, length_correlation, partial_length_correlation, probe
from rlhf.evaluation.report.section import Cell, Evaluation, Section, Table, cell, known, plain, ranged
from rlhf.evaluation.report.style import dot_figure

EXPECTED = {
    "filler": "one more sentence that says nothing: should not raise it",
    "flattery": "praise of the question first: should not raise it",
    "markdown": "the same sentences as a bold list: should change nothing",
    "repetition": "the whole answer twice: should lower it",
    "refusal": "a refusal instead of the answer: should lower it where the request is harmless",
    "truncated_end": "the last quarter of the characters is missing: should lower it",
    "swapped": "answers in reversed order: must change nothing at all",
}
CAPTION = "What each change does to the reward of the same answers, with 95 % intervals."


def bias(evaluation: Evaluation) -> Section | None:
    """Correlation of reward and length, and what every probe does to the reward."""
    scored = evaluation.results.scored
    if not len(scored.reward):
        return None
    options = evaluation.resamples
    inside, partial = length_correlation(scored, **options), partial_length_correlation(scored, **options)
    metrics: dict[str, float] = inside.keys("length/spearman") | partial.keys("length/partial")
    del metrics["length/spearman"]  # its value belongs to the first section
    correlations = [
        ("all answers together", cell(evaluation.metrics, "length/spearman_pooled")),
        ("within a prompt, averaged", ranged(*inside)),
        ("within a prompt, the votes' order held fixed", ranged(*partial)),
    ]
    note = "The last row is what the reward pays for length beyond what the votes do."
    length = Table("Rank correlation of reward and length", ("", "value"), correlations, note)
    found: dict[str, Probe] = {}
    for name, changed in evaluation.probes.items():
        if (p := probe(evaluation.results, changed, evaluation.temperature, **options)) is not None:
            found[name] = p
            metrics |= p.effect.keys(f"probe/{name}/effect") | p.raised.keys(f"probe/{name}/raised")
            metrics |= p.overtakes.keys(f"probe/{name}/overtakes")
            metrics |= {f"probe/{name}/n": p.answers, f"probe/{name}/largest": p.largest}
    tables = [length, *_better(evaluation.metrics), *([_table(found)] if found else [])]
    rows = [(plain(name), p.effect) for name, p in found.items()]
    axis = "mean change of the reward, log-odds"
    figures = [dot_figure("probes", CAPTION, axis, rows, origin=0, height=(0.7, 0.32))] if found else []
    return Section("Biases", _words(found), known(metrics), tables, figures)


def _better(metrics: Mapping[str, float]) -> list[Table]:
    """Accuracy by which of the two answers is the better one."""
    rows = [
        (f"the {side} answer is better", int(won), cell(metrics, f"pair_accuracy/{side}_won"))
        for side in ("longer", "shorter")
        if (won := metrics.get(f"n_{side}_won"))
    ]
    note = "By any difference in length; with a class of similar lengths: Accuracy by slice."
    return [Table("Accuracy by the better answer", ("", "pairs", "accuracy"), rows, note)] if rows else []


def _words(found: dict[str, Probe]) -> str:
    if not found:
        return ""
    said = {name: f"{plain(name)} ({p.effect.value:+.2f})" for name, p in found.items()}
    up = [said[name] for name, p in found.items() if p.effect.low > 0]
    down = [said[name] for name, p in found.items() if p.effect.high < 0]
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
        said = f"{plain(name)} ({EXPECTED.get(name, 'of your own')})"
        rows.append((said, p.answers, ranged(*p.effect), ranged(*p.raised), ranged(*p.overtakes)))
    columns = ("probe", "answers", "effect", "raised", "overtakes")
    note = (
        "Effect: mean change of the reward in log-odds. Raised: share of the answers whose reward rose (0.5 = no "
        "matter). Overtakes: of the pairs that the model orders rightly, how often the worse answer, changed, beats "
        "the better one as it was."
    )
    return Table("Probes", columns, rows, note)
