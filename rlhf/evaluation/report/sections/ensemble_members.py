"""The members of a set: how good each is, whether they err together, whether disagreement shows errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure as Canvas

from rlhf.evaluation.metrics.bias import Estimate, mean
from rlhf.evaluation.metrics.calibration import nll
from rlhf.evaluation.metrics.metric_intervals import intervals
from rlhf.evaluation.metrics.metrics import pair_metrics, probability_metrics
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.paired import Difference, differences
from rlhf.evaluation.metrics.robustness import Robustness, robustness
from rlhf.evaluation.report.section import (
    Cell,
    Figure,
    Section,
    Table,
    as_key,
    cell,
    p_value,
    ranged,
    with_interval,
)
from rlhf.evaluation.report.style import BLUE, FAINT, INK, WIDTH, plot, wilson
from rlhf.evaluation.results import Evaluation
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import DIFFERENCE, SHARE, bounds, cluster_sums, ratio, resampled_sums

MOST = 8
"""Models that are compared each with each: 28 comparisons."""
SHOWN = ("pair_accuracy", "nll", "brier", "ece")


def members(evaluation: Evaluation) -> Section | None:
    """Robustness of a set of runs, or of the members of an ensemble head."""
    results, scored = evaluation.results, evaluation.results.scored
    found = robustness(scored, results.members)
    if found is None:
        return None
    cluster = scored.pair_prompt[np.isfinite(credit(scored.difference, scored.win_prob))]
    each = [_mean(evaluation, right) for right in found.right]
    together = _mean(evaluation, found.combined)
    gain = _mean(evaluation, found.combined - found.right.mean(0), within=DIFFERENCE)
    pairs = np.triu_indices(len(each), 1)
    known_pairs = found.correlation[pairs][np.isfinite(found.correlation[pairs])]
    correlation = float(known_pairs.mean()) if len(known_pairs) else math.nan
    metrics = {
        "members/n": len(each),
        **_estimates({
            "mean_accuracy": _mean(evaluation, found.right.mean(0)),
            "gain": gain,
            "all_wrong": _mean(evaluation, (found.right < 0.5).all(0).astype(float)),
            "split": _mean(evaluation, (found.right.min(0) != found.right.max(0)).astype(float)),
            **{f"{as_key(n)}/pair_accuracy": e for n, e in zip(results.member_names, each, strict=True)},
        }),
        **with_interval("members/error_correlation", correlation, *_spread(found.right, cluster, evaluation)),
    }  # fmt: skip
    if found.auroc is not None:
        metrics |= with_interval("members/disagreement_auroc", *found.auroc)
    rows: list[tuple[Cell, ...]] = [
        (name, ranged(e.value, e.low, e.high)) for name, e in zip(results.member_names, each, strict=True)
    ]
    rows.append(("together", ranged(together.value, together.low, together.high)))
    rows.append(("together less the mean member", ranged(gain.value, gain.low, gain.high)))
    known = {k: v for k, v in metrics.items() if math.isfinite(v)}
    return Section(
        "Robustness of the set", _words(found, known), known,
        [Table("Members", ("", "accuracy"), rows)],
        [_matrix(found, results.member_names), _by_disagreement(found)],
    )  # fmt: skip


def _mean(evaluation: Evaluation, values: Floats, *, within: tuple[float, float] = SHARE) -> Estimate:
    """Of values [D] of the decided pairs; resamples are those of all pairs' prompts, as everywhere else."""
    scored = evaluation.results.scored
    right = credit(scored.difference, scored.win_prob)
    right[np.isfinite(right)] = values
    return mean(right, scored.pair_prompt, samples=evaluation.samples, seed=evaluation.seed, within=within)


def _estimates(found: Mapping[str, Estimate]) -> dict[str, float]:
    out: dict[str, float] = {}
    for name, e in found.items():
        out |= with_interval(f"members/{name}", e.value, e.low, e.high)
    return out


def _spread(right: Floats, cluster: Ints, evaluation: Evaluation) -> tuple[float, float]:
    """Interval of the mean correlation of two members' errors; right [M, P]."""
    size, (i, j) = len(right), np.triu_indices(len(right), 1)
    products = (right[a] * right[b] for a in range(size) for b in range(a, size))
    sums = cluster_sums([*right, *products, np.ones(right.shape[1])], cluster)
    if len(sums) < 2 or evaluation.samples < 1:
        return math.nan, math.nan
    drawn = resampled_sums(sums, samples=evaluation.samples, seed=evaluation.seed)
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


def _matrix(found: Robustness, names: tuple[str, ...]) -> Figure:
    def draw(canvas: Canvas) -> None:
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

    return Figure("error_correlation", "Correlation of the members' errors.", draw)


def _by_disagreement(found: Robustness) -> Figure:
    def draw(canvas: Canvas) -> None:
        canvas.set_size_inches(WIDTH, 2.8)
        axes = plot(canvas, "disagreement of the members (standard deviation)", "accuracy of the set")
        order = np.argsort(found.disagreement, kind="stable")
        for part in np.array_split(order, min(10, max(1, len(order) // 20))):
            value = float(found.combined[part].mean())
            low, high = wilson(np.array([value]), np.array([max(1, len(part))]))
            error = [value - low, high - value]
            axes.errorbar(found.disagreement[part].mean(), value, error, color=BLUE, marker="o", markersize=4)
        axes.axhline(found.combined.mean(), color=FAINT, linewidth=0.8, linestyle=":")

    return Figure(
        "disagreement",
        "Accuracy in groups of equal count, up to ten, by the members' disagreement, with Wilson's 95 % intervals; "
        "dotted: overall.",
        draw,
    )


def comparison(evaluation: Evaluation) -> Section | None:
    """Two or more models on the same pairs: paired differences, corrected for their number."""
    contestants = _contestants(evaluation)
    if len(contestants) < 2:
        return None
    scored = evaluation.results.scored
    difference = {n: r[scored.first] - r[scored.second] for n, (r, _) in contestants.items()}
    right = {n: credit(d, scored.win_prob) for n, d in difference.items()}
    loss = {n: nll(d / contestants[n][1], scored.win_prob) for n, d in difference.items()}
    found = differences(right, loss, scored.pair_prompt, samples=evaluation.samples, seed=evaluation.seed)
    metrics: dict[str, float] = {}
    for d in found:
        key = f"compare/{as_key(d.first)}/{as_key(d.second)}"
        metrics |= {
            f"{key}/accuracy": d.accuracy, f"{key}/accuracy/ci_low": d.low, f"{key}/accuracy/ci_high": d.high,
            f"{key}/p": d.p, f"{key}/mcnemar_p": d.mcnemar, f"{key}/nll": d.nll, f"{key}/nll/ci_low": d.nll_low,
            f"{key}/nll/ci_high": d.nll_high, f"{key}/nll_p": d.nll_p,
        }  # fmt: skip
    each = {name: _alone(evaluation, *contestants[name]) for name in contestants}
    metrics |= {f"model/{as_key(name)}/{key}": v for name, m in each.items() for key, v in m.items()}
    known = {k: v for k, v in metrics.items() if math.isfinite(v)}
    return Section("Comparison", _verdict(found), known, [_each(evaluation, each), _differences(found)])


def _alone(evaluation: Evaluation, reward: Floats, temperature: float) -> dict[str, float]:
    """Accuracy and calibration of one model on the common pairs, with intervals."""
    scored = replace(evaluation.results.scored, reward=reward)
    found = {"pair_accuracy": pair_metrics(scored)["pair_accuracy"], "temperature": temperature}
    found |= probability_metrics(scored, temperature)
    found |= intervals(scored, temperature, evaluation.samples, evaluation.seed)
    names = (
        "temperature",
        "pair_accuracy",
        "nll",
        "brier",
        "ece",
        "ece/adaptive",
        "ece/by_chance",
        "ece_uncalibrated",
        "brier_uncalibrated",
        "ece/adaptive_uncalibrated",
    )
    keys = [f"{name}{end}" for name in names for end in ("", "/ci_low", "/ci_high")]
    return {key: found[key] for key in keys if key in found}


def _each(evaluation: Evaluation, each: Mapping[str, Mapping[str, float]]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (name, *(ranged(m[key], m.get(f"{key}/ci_low"), m.get(f"{key}/ci_high")) for key in SHOWN),
         m.get("ece/by_chance"), m.get("ece_uncalibrated"), m["temperature"])
        for name, m in each.items()
    ]  # fmt: skip
    raw = [name for name in each if name in evaluation.uncalibrated]
    note = (
        f"NLL in nats, Brier and ECE after each model's own temperature T. {of_ensemble(evaluation)}".strip()
        + (
            f" There was nothing to fit T on for {', '.join(raw)}: T = 1, and the scale of its raw rewards decides."
            if raw
            else ""
        )
    )
    return Table(
        "Each model",
        ("", "accuracy", "NLL", "Brier", "ECE", "ECE by chance", "ECE before T", "T"),
        rows,
        note,
    )


def of_ensemble(evaluation: Evaluation) -> str:
    """What "before the temperature" means for a set of runs; "" for one model."""
    if not evaluation.runs_inside:
        return ""
    return (
        f"{evaluation.name} is the mean of its members' log-odds, each after its own temperature: that mean is what is "
        "meant by before, and its T comes on top of theirs."
    )


def _contestants(evaluation: Evaluation) -> Mapping[str, tuple[Floats, float]]:
    """Rewards [N] and temperature of every model: the judged one, its members if they are few, the others.

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
    found |= {
        name: (reward, evaluation.temperatures.get(name, 1.0)) for name, reward in results.others.items()
    }
    return found


def _differences(found: list[Difference]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (f"{d.first} less {d.second}", ranged(d.accuracy, d.low, d.high), p_value(d.p),
         f"{d.only_first} / {d.only_second}", p_value(d.mcnemar) if d.only_first + d.only_second else None,
         ranged(d.nll, d.nll_low, d.nll_high), p_value(d.nll_p))
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
    nll = [f"{d.first} and {d.second} ({d.nll:+.3f})" for d in found if d.nll_p < 0.05]
    scale = f" NLL differs significantly: {'; '.join(nll)}." if nll else " Neither does NLL."
    sure = [d for d in found if d.p < 0.05]
    if not sure:
        return f"No two of them differ significantly in accuracy at the 5 % level after correction.{scale}"
    said = [
        f"{d.first} is {'better' if d.accuracy > 0 else 'worse'} than {d.second} ({d.accuracy:+.3f})"
        for d in sure
    ]
    rest = len(found) - len(sure)
    return (
        "Significant at the 5 % level: "
        + "; ".join(said)
        + (f". Not told apart: {rest} of {len(found)} comparisons." if rest else ".")
        + (scale if nll else " NLL does not differ significantly.")
    )
