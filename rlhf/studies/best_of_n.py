"""Overoptimisation by best-of-n, and how far ensembles help (Gao et al. 2023; Coste et al. 2024).

A reward model learned from votes on ordinary answers picks the best of n sampled ones
(`rlhf.evaluation.metrics.best_of_n`: without bias; log n - (n-1)/n is the exact KL here, because no two answers are
alike). Compared with the single model are aggregators of an ensemble: mean, worst case, mean - λ · variance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rlhf.evaluation.metrics.best_of_n import best_of, gao_fit, kl_bound, steps
from rlhf.evaluation.report.style import SERIES, legend_below, plot
from rlhf.records import RecordError
from rlhf.stats.arrays import Floats
from rlhf.stats.ensemble import Aggregator, standardise
from rlhf.studies.feature_world import WIDTH, FeatureWorld, Members, train
from rlhf.studies.study import Findings, Row, Study, cell, ends_of, over_worlds, whole, within

SINGLE = "single"
"""Picked by the single model."""


@dataclass(frozen=True, kw_only=True)
class Picking(Study):
    """What is learned and picked in a world.

    sharpness       P(i preferred to j) = σ(sharpness · (gold_i - gold_j)) before flipping; None = the better one
    voted_spread    standard deviation of the answers that were voted on
    sampled_spread  of those that are sampled; larger, so that the best of many lie where no votes are
    aggregators     name -> `(members [M, N], standardised over the sampled answers) -> reward [N]`
    answers         sampled per world; n goes up to this
    """

    sharpness: float | None
    voted_spread: float
    sampled_spread: float
    aggregators: Mapping[str, Aggregator]
    answers: int

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("answers", self.answers, 8)
        for key in ("voted_spread", "sampled_spread"):
            within(key, getattr(self, key), 0, above=True)
        if self.sharpness is not None:
            within("sharpness", self.sharpness, 0, above=True)
        if SINGLE in self.aggregators:
            raise RecordError(f"'{SINGLE}' is the single model", key="task.study.aggregators", remedy="another name")

    @property
    def ways(self) -> list[str]:
        """By what is picked."""
        return [SINGLE, *self.aggregators]

    @property
    def ns(self) -> tuple[int, ...]:
        """1, 2, 4, ... answers."""
        return steps(self.answers)

    def learned(self, seed: int, noise: float) -> tuple[FeatureWorld, np.random.Generator, Members]:
        """The world of a seed, what its further draws come from, and the models learned with this label noise."""
        world = FeatureWorld.draw(seed)
        rng = np.random.default_rng((seed, self.votes, round(100 * noise)))
        voted = world.votes(self.votes, noise, rng, spread=self.voted_spread, sharpness=self.sharpness)
        return world, rng, train(*voted, members=self.members, steps=self.steps, seed=seed)

    def gains(self, world: FeatureWorld, rng: np.random.Generator, model: Members) -> dict[str, Floats]:
        """Gold gained over a random answer by best-of-n, [len(ns)] for the single model and every aggregator.

        Exact for the sampled answers: the mean over all subsets of n (`rlhf.evaluation.metrics.best_of_n.best_of`).
        """
        sampled = self.sampled_spread * rng.normal(size=(self.answers, WIDTH))
        gold = world.gold(sampled)
        gold = gold - gold.mean()
        rewards = self.rewards(model, sampled)
        return {name: best_of(self.ns, values, gold) for name, values in rewards.items()}

    def rewards(self, model: Members, x: Floats) -> dict[str, Floats]:
        """Rewards [N] of answers [..., WIDTH] by the single model and every aggregator."""
        first, *_ = found = model.rewards(x)
        members = standardise(found[1:])
        return {SINGLE: first} | {name: way(members) for name, way in self.aggregators.items()}


def plain(way: str) -> str:
    """A name in words."""
    return way.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class BestOfNStudy(Picking):
    """The study: `Picking`, and

    noise   share of votes that is flipped, 0..0.5
    """

    noise: float

    name = "best_of_n"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("noise", self.noise, 0, 0.5)

    def one(self, seed: int) -> Row:
        """One world. Keys `<way>/gold/<n>`, gold gained; `<way>/lead/<n>`, over the single model."""
        gains = self.gains(*self.learned(seed, self.noise))
        out: Row = {}
        for way, gold in gains.items():
            out |= {f"{way}/gold/{n}": float(g) for n, g in zip(self.ns, gold, strict=True)}
            if way != SINGLE:
                lead = gold - gains[SINGLE]
                out |= {f"{way}/lead/{n}": float(x) for n, x in zip(self.ns[1:], lead[1:], strict=True)}
        return out

    def found(self, rows: Sequence[Row]) -> Findings:
        """The means, and `<way>/best_n`, `<way>/lost_after_peak`, `<way>/alpha`, `/beta`, `/r2` (Gao's fit), `kl/<n>`.

        `lost_after_peak` is gold at the n where the mean over worlds is highest, less gold at the largest n.
        """
        metrics: Row = {f"kl/{n}": float(kl_bound(n)) for n in self.ns}
        lost: list[Row] = [{} for _ in rows]
        for way in self.ways:
            gains = np.array([[row[f"{way}/gold/{n}"] for n in self.ns] for row in rows])
            peak = int(gains.mean(0).argmax())
            metrics |= {f"{way}/best_n": self.ns[peak], **self._fit(way, gains)}
            for row, own in zip(lost, gains, strict=True):
                row[f"{way}/lost_after_peak"] = float(own[peak] - own[-1])
        metrics |= over_worlds([a | b for a, b in zip(rows, lost, strict=True)], bootstrap=self.bootstrap)
        sweep_metrics = [f"{SINGLE}/gold/{self.ns[-1]}", f"{SINGLE}/lost_after_peak"]
        sweep_metrics += [f"{way}/lead/{self.ns[-1]}" for way in self.aggregators]
        title = f"{self.votes:,} votes, {self.noise:.0%} flipped, {self.worlds} worlds"
        figure = draw(metrics, self.ns, self.ways, title)
        return Findings(metrics, sweep_metrics, *self._table(metrics), figure)

    def _fit(self, way: str, gains: Any) -> Row:
        fit = gao_fit(kl_bound(np.array(self.ns)), gains, bootstrap=self.bootstrap)
        found = {"alpha": fit.alpha, "beta": fit.beta, "r2": fit.r2}
        for key, ends in (("alpha", fit.alpha_interval), ("beta", fit.beta_interval)):
            found |= {f"{key}/ci_low": ends[0], f"{key}/ci_high": ends[1]}
        return {f"{way}/{key}": value for key, value in found.items() if math.isfinite(value)}

    def _table(self, metrics: Row) -> tuple[list[str], list[list[str]]]:
        last = self.ns[-1]
        shown = [n for n in (8, 64, 512) if n < last]
        columns = ["picked by", *(f"n = {n}" for n in (*shown, last)), "best n", "lost after it",
                   *(f"lead at n = {n}" for n in (*shown[1:2], last)), "R² of the fit"]  # fmt: skip
        rows = []
        for way in self.ways:
            leads = ["" if way == SINGLE else cell(metrics, f"{way}/lead/{n}", 2, "+") for n in (*shown[1:2], last)]
            rows.append([
                plain(way), *(cell(metrics, f"{way}/gold/{n}", 2) for n in (*shown, last)),
                f"{metrics[f'{way}/best_n']:.0f}", cell(metrics, f"{way}/lost_after_peak", 2), *leads,
                f"{metrics[f'{way}/r2']:.3f}",
            ])  # fmt: skip
        return columns, rows


def draw(metrics: Mapping[str, float], ns: Sequence[int], ways: Sequence[str], title: str) -> Figure:
    """Gold against √KL: bands of 95% over worlds, dashes for Gao's fit; the legend is below the axes."""
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    axes = plot(figure, "√KL (nats)", "gold gained over a random answer")
    axes.set_title(title, fontsize=10)
    d = np.sqrt([metrics[f"kl/{n}"] for n in ns])
    fine = np.linspace(0, d[-1], 100)
    for way, colour in zip(ways, SERIES, strict=False):
        gold = [metrics[f"{way}/gold/{n}"] for n in ns]
        low, high = zip(*(ends_of(metrics, f"{way}/gold/{n}") for n in ns), strict=True)
        axes.plot(d, gold, color=colour, marker="o", markersize=3, label=plain(way))
        axes.fill_between(d, low, high, color=colour, alpha=0.12, linewidth=0)
        alpha, beta = metrics[f"{way}/alpha"], metrics[f"{way}/beta"]
        axes.plot(fine, fine * (alpha - beta * fine), "--", color=colour, linewidth=0.8)
    legend_below(figure, axes)
    return figure
