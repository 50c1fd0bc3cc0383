"""Out of distribution: what happens to the model on shifted data, and which detector notices."""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure as Canvas

from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.metrics.ood import Detection, detection
from rlhf.evaluation.metrics.scored import Results, Scored
from rlhf.evaluation.report.section import ENDS, Cell, Evaluation, Figure, Section, Table, cell, known, plain, ranged
from rlhf.evaluation.report.style import FAINT, GRID, INK, SERIES, WIDTH, dots, legend, plot
from rlhf.stats.arrays import Floats, Ints

Found = Mapping[str, Mapping[str, Detection]]
"""Shift -> detector -> how well it tells."""
DETECTORS = {
    "mahalanobis": "distance of the pooled state from training, shrunk covariance",
    "laplace": "variance of the reward under a posterior of the last layer",
    "ensemble": "standard deviation of the members, each standardised on the ordinary set",
    "energy": "-log mean exp of the prompt's rewards (Liu et al. 2020)",
    "reward": "|z| of the reward on the ordinary set",
    "length": "|z| of the log length on the ordinary set: needs no model",
}
AUROC = "AUROC of every detector on every shift, 95 % intervals clustered by prompt. Dotted: blind."
ROC = (
    "ROC curves on every shift: share of shifted answers caught against false alarms, the share of ordinary ones "
    "called shifted. Dotted: blind."
)


def shifts(evaluation: Evaluation) -> Section | None:
    """Accuracy, ECE and reward on every named shift, and AUROC, AUPR, FPR95 of every detector.

    Beside them what chance gives: `ood/<shift>/ece/by_chance` of a calibrated model at this n, and the AUPR of a blind
    detector, `ood/<shift>/base_rate`, the share of shifted answers.
    """
    sets = {name: e for name, e in evaluation.shifts.items() if len(e.scored.reward)}
    if not sets:
        return None
    t = evaluation.temperature
    ordinary = scores(evaluation.results, evaluation.results, t)
    found: dict[str, dict[str, Detection]] = {}
    metrics: dict[str, float] = {}
    effects = [_effect("as it is", evaluation.results, evaluation.metrics)]
    for shift, results in sets.items():
        shifted = scores(results, evaluation.results, t)
        prompts = _prompts(evaluation.results, results)
        found[shift] = {
            name: detection(ordinary[name], shifted[name], prompts, **evaluation.resamples)
            for name in ordinary
            if name in shifted
        }
        on_it = evaluate(results.scored, temperature=t, bootstrap=evaluation.samples, seed=evaluation.seed)
        sizes = [len(e.scored.reward) for e in (results, evaluation.results)]
        for name, d in found[shift].items():
            for rate in ("auroc", "aupr", "fpr95"):
                metrics |= getattr(d, rate).keys(f"ood/{shift}/{name}/{rate}")
        metrics |= _shifted(shift, results, on_it)
        metrics[f"ood/{shift}/base_rate"] = sizes[0] / sum(sizes)
        effects.append(_effect(shift, results, on_it))
    names = [d for d in DETECTORS if any(d in f for f in found.values())]
    words = "; ".join(f"{name}: {DETECTORS[name]}" for name in names)
    text = (
        "0.5 is blind, below 0.5 the detector calls the shifted ones ordinary. Length is a confounder: a detector that "
        f"does not beat it has not been shown to see more.\n\n{_best(found)}\n\n{words}."
    )
    figures = [Figure("ood", AUROC, partial(_draw_auroc, found))]
    figures.append(Figure("ood_roc", ROC, partial(_draw_roc, evaluation, ordinary, found)))
    tables = _tables(effects, found, names, metrics)
    return Section("Out of distribution", text, known(metrics), tables, figures)


def _best(found: Found) -> str:
    """The best detector of every shift, and whether it surely beats length alone."""
    said = []
    for shift, several in found.items():
        models = {name: d.auroc for name, d in several.items() if name != "length"}
        name = max(models, key=lambda n: models[n].value)
        best, alone = models[name], several["length"].auroc
        more = (
            "one prompt gives no interval; length" if not math.isfinite(best.low)
            else "more than length" if best.low > alone.high
            else "less than length" if best.high < alone.low
            else "no clear difference from length"
        )  # fmt: skip
        said.append(f"{plain(shift)}: {name} {ranged(*best)}, {more} ({alone.value:.3f})")
    return "Best detector on each shift, chosen on this very set: " + "; ".join(said) + "."


def _tables(effects: list[tuple[Cell, ...]], found: Found, names: list[str], m: Mapping[str, float]) -> list[Table]:
    columns = ("", "answers", "pairs", "accuracy", "ECE", "ECE by chance", "mean reward")
    note = (
        "A shift that changes texts keeps the votes of the original answers. By chance: the ECE that a calibrated "
        "model would show on as many pairs."
    )
    rows = [
        (
            f"{plain(shift)}: {name}",
            ranged(*several[name].auroc),
            ranged(*several[name].aupr),
            m[f"ood/{shift}/base_rate"],
            ranged(*several[name].fpr95),
        )
        for shift, several in found.items()
        for name in names
        if name in several
    ]
    rates = (
        "AUPR: average precision; a blind detector has the base rate, the share of shifted answers. FPR95: share of "
        "false alarms at the threshold that catches 95 % of the shifted."
    )
    heads = ("", "AUROC", "AUPR", "base rate", "FPR95")
    return [
        Table("What the shift does to the model", columns, effects, note),
        Table("Does it notice? Every detector on every shift", heads, rows, rates),
    ]


def scores(results: Results, ordinary: Results, temperature: float) -> dict[str, Floats]:
    """Every detector's score [N] of the completions of `results`; scales come from the ordinary set."""
    scored, base = results.scored, ordinary.scored
    out = {name: values for name, values in results.ood_scores.items() if np.isfinite(values).all()}
    if len(results.members) > 1:
        mean = ordinary.members.mean(1, keepdims=True)
        spread = ordinary.members.std(1, keepdims=True)
        out["ensemble"] = ((results.members - mean) / np.where(spread > 0, spread, 1)).std(0, ddof=1)
    out["energy"] = energy(scored, temperature)
    out["reward"] = _z(scored.reward, base.reward)
    out["length"] = _z(np.log1p(scored.length), np.log1p(base.length))
    return out


def energy(scored: Scored, temperature: float) -> Floats:
    """-log mean_k exp(r_k / T) of the group that each completion [N] belongs to: low rewards look out of
    distribution.
    """
    reward: Floats = scored.reward / temperature
    if not len(reward):
        return np.zeros(0)
    order = np.argsort(scored.group, kind="stable")
    starts = np.searchsorted(scored.group[order], np.arange(len(scored.prompt)))
    sizes = np.bincount(scored.group, minlength=len(scored.prompt))
    of_group: Floats = np.log(sizes) - np.logaddexp.reduceat(reward[order], starts)
    return np.asarray(of_group[scored.group])


def _z(values: Floats, base: Floats) -> Floats:
    return np.asarray(np.abs(values - float(base.mean())) / (float(base.std()) or 1.0))


def _prompts(ordinary: Results, shifted: Results) -> tuple[Ints, Ints]:
    """Codes of the prompts of both sets' completions; the same prompt has the same code in both."""
    names = np.unique([*ordinary.prompt_hash, *shifted.prompt_hash])
    codes = [np.searchsorted(names, e.prompt_hash)[e.scored.group] for e in (ordinary, shifted)]
    return codes[0], codes[1]


def _shifted(shift: str, results: Results, on_it: Mapping[str, float]) -> dict[str, float]:
    keys = [f"{key}{end}" for key in ("pair_accuracy", "ece", "nll", "reward/mean") for end in ENDS]
    keys.append("ece/by_chance")
    sizes = {f"ood/{shift}/n": float(len(results.scored.reward)), f"ood/{shift}/n_pairs": on_it["n_pairs"]}
    return sizes | {f"ood/{shift}/{key}": on_it[key] for key in keys if key in on_it}


def _effect(name: str, results: Results, m: Mapping[str, float]) -> tuple[Cell, ...]:
    numbers = (cell(m, key) for key in ("pair_accuracy", "ece", "ece/by_chance", "reward/mean"))
    return plain(name), len(results.scored.reward), int(m["n_pairs"]), *numbers


def _colour(detector: str) -> str:
    order = list(DETECTORS)
    return SERIES[order.index(detector) if detector in order else -1]


def _draw_auroc(found: Found, canvas: Canvas) -> None:
    rows = [(shift, name, d.auroc) for shift, several in found.items() for name, d in several.items()]
    canvas.set_size_inches(WIDTH, 0.6 + 0.24 * len(rows))
    axes = plot(canvas, "AUROC", "")
    labelled = [(f"{plain(shift)}: {name}", auroc) for shift, name, auroc in rows]
    dots(axes, labelled, [_colour(name) for _, name, _ in rows])
    axes.axvline(0.5, color=FAINT, linewidth=0.8, linestyle=":")
    for i in range(1, len(rows)):
        if rows[i][0] != rows[i - 1][0]:
            axes.axhline(i - 0.5, color=GRID, linewidth=0.8)
    axes.set_xlim(-0.02, 1.02)


def _draw_roc(evaluation: Evaluation, ordinary: Mapping[str, Floats], found: Found, canvas: Canvas) -> None:
    from sklearn.metrics import roc_curve

    wide = min(3, len(found))
    high = -(-len(found) // max(1, wide))
    canvas.set_size_inches(WIDTH, 0.8 + 2.0 * high)
    grid = canvas.add_gridspec(high, wide)
    at = np.linspace(0, 1, 201)
    for i, shift in enumerate(found):
        bottom, left = i + wide >= len(found), i % wide == 0
        labels = ("false alarms" if bottom else "", "caught" if left else "")
        axes = plot(canvas, *labels, grid[i // wide, i % wide])
        shifted = scores(evaluation.shifts[shift], evaluation.results, evaluation.temperature)
        for name in found[shift]:
            truth = np.repeat([0, 1], [len(ordinary[name]), len(shifted[name])])
            false, caught, _ = roc_curve(truth, np.concatenate([ordinary[name], shifted[name]]))
            axes.plot(at, np.interp(at, false, caught), color=_colour(name), linewidth=1.3, label=name)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.7, linestyle=":")
        axes.set_title(plain(shift), fontsize=9, color=INK)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.tick_params(labelleft=left, labelbottom=bottom)
    handles, names = axes.get_legend_handles_labels() if found else ([], [])
    legend(canvas, handles=handles, labels=names, loc="outside lower center", ncols=3)
