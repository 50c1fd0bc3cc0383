"""Rankings: agreement of the order inside each prompt, and what the rewards look like."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure as Canvas

from rlhf.evaluation.metrics.pair_credit import EVEN
from rlhf.evaluation.report.section import Evaluation, Figure, Section, Table, cell, known
from rlhf.evaluation.report.style import AMBER, BLUE, CELLS, WIDTH, legend_below, plain_ticks, plot
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import Estimate, bounds, cluster_sums, resampled_sums

NAMES = {
    "top1": "top-1: the best answer has the highest reward",
    "spearman": "Spearman, within a prompt, averaged",
    "kendall": "Kendall's tau-b, within a prompt, averaged",
    "ndcg": "NDCG (points: answers ranked below)",
}
SATURATED = 10.0
"""A difference of log-odds beyond this is a certainty of more than 0.99995."""
BINS = (8, 40)
"""Bars of the histogram of rewards: twice the root of the number of pairs, within these."""
MANY = 20
"""From so many distinct lengths on, reward against length is drawn as a density."""
SPREADS = {
    "reward/mean": "mean",
    "reward/std": "standard deviation",
    "reward/std_within": "within a prompt",
    "reward/std_between": "between prompts",
    "reward/tie_rate": "equal rewards, share of the pairs",
    "reward/saturated": f"saturated pairs (|log-odds| > {SATURATED:.0f})",
}
REWARDS = "Rewards of the better and the worse answer of every decided pair."
LENGTH = "Reward against length of the answer in characters; darker cells hold more answers."


def rankings(evaluation: Evaluation) -> Section | None:
    """Top-1, Spearman, Kendall, NDCG with intervals; the numbers belong to the first section."""
    m = evaluation.metrics
    if "spearman" not in m:
        return None
    rows = [(name, cell(m, key)) for key, name in NAMES.items() if key in m]
    silent = int(m.get("n_rank_undefined", 0))
    note = f" In {silent} of them all rewards are equal; these count as 0." if silent else ""
    sizes = np.bincount(evaluation.results.scored.group)
    text = (
        f"{m['n_ranked']:.0f} records whose votes rank at least two answers apart ({sizes.mean():.1f} answers each on "
        f"average).{note} Correlations are computed inside a record and then averaged, never pooled."
    )
    return Section("Rankings", text, {}, [Table("Order of the answers", ("", "value"), rows)])


def rewards(evaluation: Evaluation) -> Section | None:
    """How the reward spreads: within prompts (what a policy sees), between them, and of winners and losers."""
    scored = evaluation.results.scored
    if not len(scored.reward):
        return None
    means = np.bincount(scored.group, scored.reward) / np.bincount(scored.group)
    metrics = _spread(means, scored.prompt, **evaluation.resamples).keys("reward/std_between")
    if len(scored.first):
        beyond = (np.abs(scored.difference / evaluation.temperature) > SATURATED).astype(float)
        metrics |= evaluation.pair_mean(beyond).keys("reward/saturated")
    every = {**evaluation.metrics, **metrics}
    rows = [(name, cell(every, key)) for key, name in SPREADS.items()]
    text = (
        "A policy that is optimised against this model sees the spread within a prompt; the spread between prompts "
        "cancels out."
    )
    figures = [Figure("rewards", REWARDS, partial(_draw_rewards, evaluation))]
    figures.append(Figure("length", LENGTH, partial(_draw_length, evaluation)))
    table = Table("Raw rewards", ("", "value"), rows)
    return Section("Rewards", text, known(metrics), [table], figures)


def _spread(values: Floats, cluster: Ints, *, samples: int, seed: int) -> Estimate:
    """The standard deviation of values [G], clusters resampled."""
    centred, value = values - values.mean(), float(values.std())
    sums = cluster_sums([centred, centred**2, np.ones(len(values))], cluster)
    if len(sums) < 2 or samples < 1:
        return Estimate(value, np.nan, np.nan)
    first, second, count = resampled_sums(sums, samples=samples, seed=seed).T
    low, high = np.maximum(bounds(np.sqrt(np.maximum(second / count - (first / count) ** 2, 0)), len(sums)), 0.0)
    return Estimate(value, float(low), float(high))


def _draw_rewards(evaluation: Evaluation, canvas: Canvas) -> None:
    scored = evaluation.results.scored
    decided = np.abs(scored.win_prob - 0.5) >= EVEN
    better, worse = (scored.reward[side][decided] for side in (scored.better, scored.worse))
    canvas.set_size_inches(WIDTH, 3.0)
    axes = plot(canvas, "reward", "answers")
    bins = np.histogram_bin_edges(scored.reward, bins=int(np.clip(2 * len(better) ** 0.5, *BINS)))
    axes.hist(better, bins=bins, color=BLUE, alpha=0.55, label="better answer")
    axes.hist(worse, bins=bins, color=AMBER, alpha=0.55, label="worse answer")
    legend_below(canvas, axes)


def _draw_length(evaluation: Evaluation, canvas: Canvas) -> None:
    scored = evaluation.results.scored
    canvas.set_size_inches(WIDTH, 3.2)
    axes = plot(canvas, "length in characters", "reward")
    scale = "log" if scored.length.min() > 0 and len(np.unique(scored.length)) > MANY else "linear"
    axes.hexbin(scored.length, scored.reward, gridsize=34, cmap=CELLS, mincnt=1, bins="log", xscale=scale)
    if scale == "log":
        plain_ticks(axes, float(scored.length.min()), float(scored.length.max()))
    edges = np.unique(np.quantile(scored.length, np.linspace(0, 1, 11)))
    if len(edges) > 2:
        place = np.clip(np.searchsorted(edges, scored.length, side="right") - 1, 0, len(edges) - 2)
        count = np.bincount(place, minlength=len(edges) - 1)
        some = count > 0
        x, y = (np.bincount(place, v, len(count))[some] / count[some] for v in (scored.length, scored.reward))
        axes.plot(x, y, color=AMBER, marker="o", markersize=4, label="mean in tenths of the answers by length")
        legend_below(canvas, axes)
