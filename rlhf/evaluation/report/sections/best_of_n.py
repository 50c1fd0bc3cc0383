"""Best-of-n: what a policy would gain by picking this model's favourite, and what it would not."""

from collections.abc import Mapping
from functools import partial
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure as Canvas

from rlhf.evaluation.metrics.best_of_n import WIN, Curve
from rlhf.evaluation.metrics.best_of_n import curve as curve_of
from rlhf.evaluation.metrics.scored import Results
from rlhf.evaluation.report.section import Cell, Evaluation, Figure, Section, Table, as_key, known, plain, ranged
from rlhf.evaluation.report.style import FAINT, SERIES, WIDTH, legend_below, plot
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import Estimate
from rlhf.stats.ensemble import Aggregator, mean, mean_minus_variance, median, standardise, worst_case

AGGREGATORS: tuple[Aggregator, ...] = (mean, median, worst_case, mean_minus_variance)
"""What an ensemble is picked by, beside its own combination; members standardised over the set."""
ROUNDING = 1e-6
"""Of a reward of 1, between batches."""


def best_of_n(evaluation: Evaluation, *, size: int | None = None) -> Section | None:
    """Gains of best-of-n over a random answer, by reward, by known gold, by every other model, and in length.

    All answers of a prompt are pooled, equal ones counted once. Keys, n > 1: `best_of_n/<n>/<what>` with intervals,
    where `<what>` is proxy (the evaluated model's own log-odds), gold, length (characters of the pick), or another
    model's
    name; `best_of_n/<n>/gold/win_rate`; `best_of_n/<n>/kl_bound`; `best_of_n/<what>/alpha`, `/beta`, `/r2` of
    R(d) = d (α - β d); with an ensemble `best_of_n/<n>/gold/<aggregator>`.

    Args:
        evaluation: what was measured.
        size: n of the last step; None = as many answers as at least half of the prompts with a choice have, and 2
            prompts at least.

    Returns:
        None where no prompt has two different answers.
    """
    prompts = pooled(evaluation.results)
    if max((len(p) for p in prompts), default=0) < 2:
        return None
    values = _values(evaluation)
    columns = {name: _split(v, prompts, centred=name != "length") for name, v in values.items()}
    proxy, options = columns.pop("proxy"), {"bootstrap": evaluation.samples, "seed": evaluation.seed}
    curve = curve_of(proxy, columns, size=size, **options)
    variants: dict[str, Curve] = {}
    members = evaluation.results.members
    for aggregate in AGGREGATORS if "gold" in values and len(members) > 1 else ():
        together = aggregate(standardise(members))
        by_gold = {"gold": columns["gold"]}
        picked = [together[p] for p in prompts]
        variants[aggregate.__name__] = curve_of(picked, by_gold, size=curve.ns[-1], **options)
    metrics = _metrics(curve)
    for name, variant in variants.items():
        for i, n in enumerate(variant.ns[1:], start=1):
            metrics |= known(variant.at("gold", i).keys(f"best_of_n/{n}/gold/{name}"))
    tables = [_table(curve), *_fit_table(curve), *([_variant_table(curve, variants)] if variants else [])]
    figure = Figure("best_of_n", _caption(curve), partial(_draw, curve, variants))
    return Section("Best of n", _text(curve), metrics, tables, [figure])


def pooled(results: Results) -> list[Ints]:
    """Completions of every prompt; the same answer in several records is there once.

    Answers are the same where length and reward are: to rounding, because each process reads a text for itself.
    """
    scored = results.scored
    columns = (scored.prompt[scored.group], scored.length, scored.reward)
    order = np.lexsort(columns[::-1])  # stable: of equal answers the first one comes first
    tolerance = ROUNDING * (1 + np.abs(scored.reward[order]))
    new = np.any(
        [~(np.diff(c[order], prepend=np.nan) <= t) for c, t in zip(columns, (0, 0, tolerance), strict=True)], 0
    )
    first = np.sort(order[new])
    prompt = scored.prompt[scored.group[first]]
    order = np.argsort(prompt, kind="stable")
    ends = np.flatnonzero(np.diff(prompt[order])) + 1
    return list(np.split(first[order], ends))


def _values(evaluation: Evaluation) -> dict[str, Floats]:
    """What is followed, [N] each: log-odds of the evaluated and of the other models, gold where all of it is known."""
    results = evaluation.results
    found: dict[str, Floats] = {"proxy": results.scored.reward / evaluation.temperature}
    if len(results.gold) and np.isfinite(results.gold).all():
        found["gold"] = results.gold
    for name, reward in results.others.items():
        found[as_key(name)] = reward / evaluation.temperatures.get(name, 1.0)
    return found | {"length": results.scored.length}


def _split(values: Floats, prompts: list[Ints], *, centred: bool = True) -> list[Floats]:
    """Values [N] of every prompt's answers; centred: as a gain over a random answer of the same prompt."""
    sizes = np.array([len(p) for p in prompts])
    found = values[np.concatenate(prompts)]
    starts = np.cumsum(sizes) - sizes
    if centred:
        found = found - np.repeat(np.add.reduceat(found, starts) / sizes, sizes)
    return list(np.split(found, starts[1:]))


def _metrics(curve: Curve) -> dict[str, float]:
    out: dict[str, float] = {"best_of_n/n_prompts": curve.n_prompts, "best_of_n/n_left_out": curve.n_left_out}
    for i, n in enumerate(curve.ns):
        out[f"best_of_n/{n}/kl_bound"] = float(curve.kl_bound[i])
        for name in curve.value:
            if (n > 1 or name == "length") and (not name.endswith(WIN) or name == f"gold{WIN}"):
                out |= known(curve.at(name, i).keys(f"best_of_n/{n}/{name}"))
    for name, fit in curve.fit.items():
        if name != "length":
            found = Estimate(fit.alpha, *fit.alpha_interval).keys(f"best_of_n/{name}/alpha")
            found |= Estimate(fit.beta, *fit.beta_interval).keys(f"best_of_n/{name}/beta")
            out |= known(found | {f"best_of_n/{name}/r2": fit.r2})
    return out


def _text(curve: Curve) -> str:
    last, n = len(curve.ns) - 1, curve.ns[-1]
    fewer = f" ({_counted(curve.n_left_out)} left out for having fewer)" if curve.n_left_out else ""
    said = [
        f"Of {n} answers the one with the highest reward is picked, on {_counted(curve.n_prompts)} with at least {n} "
        f"different answers{fewer}. The reward promises a gain of "
        f"{_cell(curve, 'proxy', last)} log-odds over a random answer."
    ]
    if "gold" in curve.value:
        best = int(np.argmax(curve.value["gold"]))
        turned = curve.high["gold"][last] < curve.value["gold"][best]
        rose = best > 0 and curve.low["gold"][best] > 0
        said.append(
            f"The gold reward gains {_cell(curve, 'gold', last)}; the pick beats a random answer in "
            f"{curve.value['gold/win_rate'][last]:.3f} of the cases. "
            + ("Without intervals nothing is known about other prompts." if not curve.has_intervals else
               "It is past its peak: more selection makes the answers worse." if turned else
               "Within these n it does not surely turn over." if rose else
               "At no n it is surely above a random answer's.")
        )  # fmt: skip
    said.append("log n - (n-1)/n bounds the KL divergence from above; answers that repeat move the policy less.")
    return "\n\n".join(said)


def _counted(prompts: int) -> str:
    return "1 prompt" if prompts == 1 else f"{prompts} prompts"


def _cell(curve: Curve, name: str, i: int) -> str:
    return ranged(*curve.at(name, i)) or "–"


def _table(curve: Curve) -> Table:
    names = [name for name in curve.value if not name.endswith(WIN)]
    gold = "gold" in names
    columns = ["", "KL bound", *(("gold win rate",) if gold else ()), *names]
    rows: list[list[Cell]] = []
    for i, n in enumerate(curve.ns):
        win = [float(curve.value[f"gold{WIN}"][i])] if gold else []
        cells = [None if i == 0 and name != "length" else _cell(curve, name, i) for name in names]
        rows.append([f"n = {n}", float(curve.kl_bound[i]), *win, *cells])
    note = (
        f"Log-odds{' with 95 % intervals over prompts' if curve.has_intervals else ''}; length in characters of the "
        "pick; win rate against a random answer of the same prompt."
    )
    return Table("Gain over a random answer", columns, rows, note)


def _fit_table(curve: Curve) -> list[Table]:
    """The fits, and where each turns over."""
    rows: list[list[Cell]] = [
        [name, ranged(fit.alpha, *fit.alpha_interval), ranged(fit.beta, *fit.beta_interval), fit.r2,
         float(fit.peak) if np.isfinite(fit.peak) else None]
        for name, fit in curve.fit.items()
        if name != "length"
    ]  # fmt: skip
    resampled = ", prompts resampled" if curve.has_intervals else ""
    note = (
        f"Least squares over the n{resampled}; d = √(bound of KL). Peak: α / 2β, where the fit turns over; it "
        "may lie beyond what was measured; a dash where it never does. R² is a description of the mean curve."
    )
    columns = ("gain in", "α", "β", "R²", "peak d")
    return [Table("Fit d (α - β d) of the gain (Gao et al. 2023)", columns, rows, note)] if rows else []


def _variant_table(curve: Curve, variants: Mapping[str, Curve]) -> Table:
    columns = ["picked by", *(f"n = {n}" for n in curve.ns[1:])]
    every = {"the reported reward": curve, **variants}
    rows = [[plain(name), *(_cell(c, "gold", i) for i in range(1, len(c.ns)))] for name, c in every.items()]
    return Table("Gold gained by the ensemble's aggregators", columns, rows, "Members standardised over this set; "
                 "mean minus variance is mean - 0.5 · variance (ddof 0).")  # fmt: skip


def _caption(curve: Curve) -> str:
    parts = [
        "Gain over a random answer against the square root of the upper bound of the KL divergence",
        *(("bands are 95 % intervals over prompts",) if curve.has_intervals else ()),
        *(("dashes the fit d (α - β d)",) if curve.fit else ()),
    ]
    return f"{'; '.join(parts)}. Where gold stays behind the reward, the reward is being gamed."


LINES = ((":", "s"), ("--", "^"), ("-.", "D"), ((0, (1, 3)), "v"))
"""Styles of the aggregators' curves, which lie close together."""


def _apart(curve: Curve, variants: Mapping[str, Curve]) -> dict[str, str]:
    """The gold curves that differ: that of the reported reward ("gold") and those of aggregators, to their labels.

    An aggregator whose curve is equal to an earlier one, to rounding, joins its label instead of hiding under it.
    """
    if not variants:
        return {}
    labels = {"gold": "gold"}
    values = {"gold": curve.value["gold"]}
    for name, variant in variants.items():
        found = variant.value["gold"]
        twin = next((k for k, v in values.items() if np.allclose(v, found, rtol=0, atol=1e-9)), None)
        if twin is None:
            labels[name], values[name] = plain(name), found
        else:
            labels[twin] += f"{', also picked by' if labels[twin] == 'gold' else ' and'} {plain(name)}"
    return labels


def _draw(curve: Curve, variants: Mapping[str, Curve], canvas: Canvas) -> None:
    canvas.set_size_inches(WIDTH, 3.4)
    axes = plot(canvas, "√(upper bound of KL in nats)", "gain over a random answer")
    d = np.sqrt(curve.kl_bound)
    grid = np.linspace(0, d[-1], 100)
    names = [k for k in curve.value if not k.endswith(WIN) and k != "length"]
    labels = _apart(curve, variants)
    for name, colour in zip(names, cycle(SERIES), strict=False):
        label = labels.get(name, name)
        axes.plot(d, curve.value[name], marker="o", markersize=4, color=colour, label=label)
        axes.fill_between(d, curve.low[name], curve.high[name], alpha=0.15, color=colour, linewidth=0)
        if name in curve.fit:
            fit = curve.fit[name]
            axes.plot(grid, grid * (fit.alpha - fit.beta * grid), "--", color=colour, linewidth=1)
    styles = zip(SERIES[len(names) :] + SERIES, LINES, strict=False)
    for name, (colour, (line, marker)) in zip([k for k in labels if k != "gold"], styles, strict=False):
        gold = variants[name].value["gold"]
        axes.plot(d, gold, linestyle=line, marker=marker, markersize=6, fillstyle="none", color=colour,
                  label=f"gold, picked by {labels[name]}")  # fmt: skip
    above = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "fontsize": 8, "color": FAINT}
    for place, n in zip(d, curve.ns, strict=True):
        axes.annotate(f"n={n}", (place, 1.01), **above)
    legend_below(canvas, axes)
