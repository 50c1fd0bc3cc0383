"""The members of a set: how good each is, whether they err together, whether disagreement shows errors."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from matplotlib.figure import Figure as Canvas

from rlhf.evaluation.metrics.calibration import nll
from rlhf.evaluation.metrics.metrics import pair_intervals, pair_metrics
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.paired import Difference, Robustness, differences, robustness
from rlhf.evaluation.report.section import (
    ENDS,
    Evaluation,
    Figure,
    Section,
    Table,
    as_key,
    cell,
    known,
    p_value,
    ranged,
)
from rlhf.evaluation.report.style import BLUE, FAINT, INK, WIDTH, plot, wilson
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import DIFFERENCE, SHARE, Estimate, bounds, cluster_sums, ratio, resampled_sums

MOST = 8
"""Models that are compared each with each: 28 comparisons."""
SHOWN = ("pair_accuracy", "nll", "brier", "ece")
KEPT = (
    "temperature", "pair_accuracy", "nll", "brier", "ece", "ece/adaptive", "ece/by_chance", "ece_uncalibrated",
    "brier_uncalibrated", "ece/adaptive_uncalibrated",
)  # fmt: skip
"""Numbers of every single model: shown in its row, and in report.json."""
DISAGREEMENT = (
    "Accuracy in groups of equal count, up to ten, by the members' disagreement, with Wilson's 95 % intervals; "
    "dotted: overall."
)


def members(evaluation: Evaluation) -> Section | None:
    """Robustness of a set of runs, or of the members of an ensemble head."""
    results, scored = evaluation.results, evaluation.results.scored
    found = robustness(scored, results.members)
    if found is None:
        return None
    cluster = scored.pair_prompt[np.isfinite(credit(scored.difference, scored.win_prob))]
    names = results.member_names
    each = [_mean(evaluation, right) for right in found.right]
    gain = _mean(evaluation, found.combined - found.right.mean(0), within=DIFFERENCE)
    pairs = found.correlation[np.triu_indices(len(each), 1)]
    correlation = float(pairs[np.isfinite(pairs)].mean()) if np.isfinite(pairs).any() else math.nan
    estimates = {
        "mean_accuracy": _mean(evaluation, found.right.mean(0)),
        "gain": gain,
        "all_wrong": _mean(evaluation, (found.right < 0.5).all(0).astype(float)),
        "split": _mean(evaluation, (found.right.min(0) != found.right.max(0)).astype(float)),
        **{f"{as_key(name)}/pair_accuracy": e for name, e in zip(names, each, strict=True)},
        "error_correlation": Estimate(correlation, *_spread(found.right, cluster, evaluation)),
    }
    if found.auroc is not None:
        estimates["disagreement_auroc"] = found.auroc
    metrics: dict[str, float] = {"members/n": len(each)}
    for name, e in estimates.items():
        metrics |= e.keys(f"members/{name}")
    metrics = known(metrics)
    shown = (*zip(names, each, strict=True), ("together", _mean(evaluation, found.combined)))
    rows = [(name, ranged(*e)) for name, e in (*shown, ("together less the mean member", gain))]
    figures = [
        Figure("error_correlation", "Correlation of the members' errors.", partial(_matrix, found, names)),
        Figure("disagreement", DISAGREEMENT, partial(_by_disagreement, found)),
    ]
    table = Table("Members", ("", "accuracy"), rows)
    return Section("Robustness of the set", _words(found, metrics), metrics, [table], figures)


def _mean(evaluation: Evaluation, values: Floats, *, within: tuple[float, float] = SHARE) -> Estimate:
    """Of values [D] of the decided pairs; resamples are those of all pairs' prompts, as everywhere else."""
    scored = evaluation.results.scored
    right = credit(scored.difference, scored.win_prob)
    right[np.isfinite(right)] = values
    return evaluation.pair_mean(right, within=within)


def _spread(right: Floats, cluster: Ints, evaluation: Evaluation) -> tuple[float, float]:
    """Interval of the mean correlation of two members' errors; right [M, P]."""
    size, (i, j) = len(right), np.triu_indices(len(right), 1)
    products = (right[a] * right[b] for a in range(size) for b in range(a, size))
    sums = cluster_sums([*right, *products, np.ones(right.shape[1])], cluster)
    if len(sums) < 2 or evaluation.samples < 1:
        return math.nan, math.nan
    drawn = resampled_sums(sums, **evaluation.resamples)
    drawn = drawn[:, :-1] / drawn[:, -1:]
    means, place = drawn[:, :size], np.zeros((size, size), np.int64)
    place[np.triu_indices(size)] = size + np.arange(size * (size + 1) // 2)
    spread = np.sqrt(np.maximum(drawn[:, np.diag(place)] - means**2, 0))
    together = drawn[:, place[i, j]] - means[:, i] * means[:, j]
    low, high = np.clip(bounds(ratio(together, spread[:, i] * spread[:, j]).mean(1), len(sums)), *DIFFERENCE)
    return float(low), float(high)


def _words(found: Robustness, known: Mapping[str, float]) -> str:
    text = (
        f"Members differ about the winner of {cell(known, 'members/split')} of the pairs; all are wrong on "
        f"{cell(known, 'members/all_wrong')}: no combination mends these. Their errors correlate by "
        f"{cell(known, 'members/error_correlation') or 'an unknown number'} on average: 0 would be independent, 1 the "
        "same errors."
    )
    if found.auroc is None:
        return text
    area, low, high = found.auroc
    if not math.isfinite(low):
        return f"{text}\n\nDisagreement picks out the set's errors with AUROC {area:.3f}; one prompt gives no interval."
    sure = "it shows errors" if low > 0.5 else "it hides them" if high < 0.5 else "not told apart from no use"
    return f"{text}\n\nDisagreement picks out the set's errors with AUROC {area:.3f} [{low:.3f}, {high:.3f}]: {sure}."


def _matrix(found: Robustness, names: tuple[str, ...], canvas: Canvas) -> None:
    size = len(names)
    canvas.set_size_inches(min(WIDTH, 2.6 + 0.6 * size), min(6.0, 1.6 + 0.5 * size))
    axes = plot(canvas, "", "")
    axes.grid(visible=False)
    image = axes.imshow(found.correlation, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(size), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(size), names, fontsize=8)
    for i, j in np.ndindex(size, size) if size <= MOST else ():
        value = found.correlation[i, j]
        colour = "white" if value > 0.6 else INK
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    bar = canvas.colorbar(image, ax=axes, shrink=0.8)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)


def _by_disagreement(found: Robustness, canvas: Canvas) -> None:
    canvas.set_size_inches(WIDTH, 2.8)
    axes = plot(canvas, "disagreement of the members (standard deviation)", "accuracy of the set")
    order = np.argsort(found.disagreement, kind="stable")
    for part in np.array_split(order, min(10, max(1, len(order) // 20))):
        value = float(found.combined[part].mean())
        low, high = wilson(np.array([value]), np.array([max(1, len(part))]))
        error = [value - low, high - value]
        axes.errorbar(found.disagreement[part].mean(), value, error, color=BLUE, marker="o", markersize=4)
    axes.axhline(found.combined.mean(), color=FAINT, linewidth=0.8, linestyle=":")


def comparison(evaluation: Evaluation) -> Section | None:
    """Two or more models on the same pairs: paired differences, corrected for their number."""
    contestants = _contestants(evaluation)
    if len(contestants) < 2:
        return None
    scored = evaluation.results.scored
    difference = {n: r[scored.first] - r[scored.second] for n, (r, _) in contestants.items()}
    right = {n: credit(d, scored.win_prob) for n, d in difference.items()}
    loss = {n: nll(d / contestants[n][1], scored.win_prob) for n, d in difference.items()}
    found = differences(right, loss, scored.pair_prompt, **evaluation.resamples)
    metrics: dict[str, float] = {}
    for d in found:
        key = f"compare/{as_key(d.first)}/{as_key(d.second)}"
        metrics |= d.accuracy.keys(f"{key}/accuracy") | d.nll.keys(f"{key}/nll")
        metrics |= {f"{key}/p": d.p, f"{key}/mcnemar_p": d.mcnemar, f"{key}/nll_p": d.nll_p}
    each = {name: _alone(evaluation, *contestants[name]) for name in contestants}
    metrics |= {f"model/{as_key(name)}/{key}": v for name, m in each.items() for key, v in m.items()}
    tables = [_each(evaluation, each), _differences(found)]
    return Section("Comparison", _verdict(found), known(metrics), tables)


def _alone(evaluation: Evaluation, reward: Floats, temperature: float) -> dict[str, float]:
    """Accuracy and calibration of one model on the common pairs, with intervals."""
    scored = replace(evaluation.results.scored, reward=reward)
    found = pair_metrics(scored, temperature) | {"temperature": temperature}
    found |= pair_intervals(scored, temperature, **evaluation.resamples)
    return {f"{key}{end}": found[f"{key}{end}"] for key in KEPT for end in ENDS if f"{key}{end}" in found}


def _each(evaluation: Evaluation, each: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [
        (name, *(cell(m, key) for key in SHOWN), m.get("ece/by_chance"), m.get("ece_uncalibrated"), m["temperature"])
        for name, m in each.items()
    ]
    raw = [name for name in each if name in evaluation.uncalibrated]
    note = f"NLL in nats, Brier and ECE after each model's own temperature T. {of_ensemble(evaluation)}".strip()
    if raw:
        note += f" There was nothing to fit T on for {', '.join(raw)}: T = 1, and the scale of its raw rewards decides."
    columns = ("", "accuracy", "NLL", "Brier", "ECE", "ECE by chance", "ECE before T", "T")
    return Table("Each model", columns, rows, note)


def of_ensemble(evaluation: Evaluation) -> str:
    """What "before the temperature" means for a set of runs; "" for one model."""
    if not evaluation.runs_inside:
        return ""
    return (
        f"{evaluation.name} is the mean of its members' log-odds, each after its own temperature: that mean is what is "
        "meant by before, and its T comes on top of theirs."
    )


def _contestants(evaluation: Evaluation) -> Mapping[str, tuple[Floats, float]]:
    """Rewards [N] and temperature of every model: the evaluated one, its members if they are few, the others.

    A run in an ensemble counts with its rewards as they were before its own temperature, as it does alone; members
    of one head share the temperature of the model.
    """
    results, t = evaluation.results, evaluation.temperature
    found = {evaluation.name: (results.scored.reward, t)}
    if 1 < len(results.members) <= MOST - 1:
        own = {name: evaluation.temperatures[name] for name in evaluation.runs_inside}
        found |= {
            name: (results.members[m] * own.get(name, 1.0), own.get(name, t))
            for m, name in enumerate(results.member_names)
        }
    return found | {name: (reward, evaluation.temperatures.get(name, 1.0)) for name, reward in results.others.items()}


def _differences(found: list[Difference]) -> Table:
    rows = [
        (f"{d.first} less {d.second}", ranged(*d.accuracy), p_value(d.p),
         f"{d.only_first} / {d.only_second}", p_value(d.mcnemar) if d.only_first + d.only_second else None,
         ranged(*d.nll), p_value(d.nll_p))
        for d in found
    ]  # fmt: skip
    columns = ("", "accuracy", "p", "only one right", "McNemar p", "NLL", "p of NLL")
    note = (
        "Differences on the same pairs, prompts resampled; every p-value corrected for the number of comparisons "
        "(Holm). McNemar's test takes pairs as independent, which pairs of one prompt are not: where the two "
        "disagree, believe p."
    )
    return Table("Each with each", columns, rows, note)


def _verdict(found: list[Difference]) -> str:
    if not any(math.isfinite(d.p) for d in found):
        return "All pairs belong to one prompt: nothing can be said about others, and there is no test."
    nll = [f"{d.first} and {d.second} ({d.nll.value:+.3f})" for d in found if d.nll_p < 0.05]
    scale = f" NLL differs significantly: {'; '.join(nll)}." if nll else ""
    sure = [d for d in found if d.p < 0.05]
    if not sure:
        said = "No two of them differ significantly in accuracy at the 5 % level after correction."
        return said + (scale or " Neither does NLL.")
    said = "; ".join(
        f"{d.first} is {'better' if d.accuracy.value > 0 else 'worse'} than {d.second} ({d.accuracy.value:+.3f})"
        for d in sure
    )
    rest = len(found) - len(sure)
    others = f" Not told apart: {rest} of {len(found)} comparisons." if rest else ""
    return f"Significant at the 5 % level: {said}.{others}{scale or ' NLL does not differ significantly.'}"
