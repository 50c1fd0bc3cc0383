"""Overoptimisation by best-of-n, and how far ensembles help: known gold, many worlds, intervals over worlds.

    python benchmarks/overoptimisation.py [--worlds 20] [--answers 8192] [--steps 200]

A reward model learned from votes on ordinary answers picks the best of n sampled ones (rlhf.judge.best_of_n: unbiased,
exact KL here, because no two answers are alike). Compared with the single model: the mean of five members, the
worst case, and mean - λ · variance; members standardised. Writes results/overoptimisation.json and .png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from feature_world import SAMPLED, WIDTH, Floats, World, train
from matplotlib.figure import Figure

from rlhf.judge.aggregators import mean, mean_minus_variance, standardise, worst_case
from rlhf.judge.best_of_n import best_of, curve
from rlhf.judge.drawing import SERIES, legend, plot
from rlhf.judge.intervals import cluster_bootstrap

RESULTS = Path(__file__).parent / "results"
SETTINGS = ((1000, 0.0), (1000, 0.25), (300, 0.25))
"""Votes, and the share of them that is flipped."""
MEMBERS = 5
ENSEMBLE: dict[str, Callable[[Floats], Floats]] = {
    "mean": mean,
    "worst case": worst_case,
    "mean - 0.5 variance": partial(mean_minus_variance, weight=0.5),
    "mean - variance": partial(mean_minus_variance, weight=1.0),
}


def main() -> None:
    """Measure, print, write, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--answers", type=int, default=8192, help="sampled per world; n goes up to this")
    parser.add_argument("--steps", type=int, default=200, help="of training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for pairs, noise in SETTINGS:
        name = f"{pairs} votes, {noise:.0%} flipped"
        proxies, gold = measured(pairs, noise, **vars(options))
        found[name] = summary(proxies, gold)
        show(name, found[name])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "overoptimisation.json").write_text(
        json.dumps({**vars(options), "settings": found}, indent=2) + "\n"
    )
    draw(found).savefig(RESULTS / "overoptimisation.png", dpi=120)


def measured(
    pairs: int, noise: float, *, worlds: int, answers: int, steps: int
) -> tuple[dict[str, list[Floats]], list[Floats]]:
    """Per world the rewards of the sampled answers, by the single model and every aggregator, and their gold."""
    proxies: dict[str, list[Floats]] = {way: [] for way in ("single", *ENSEMBLE)}
    gold = []
    for seed in range(worlds):
        world, rng = World.draw(seed), np.random.default_rng((seed, pairs, int(100 * noise)))
        model = train(*world.votes(pairs, noise, rng), members=MEMBERS + 1, steps=steps, seed=seed)
        sampled = SAMPLED * rng.normal(size=(answers, WIDTH))
        rewards, reward_of_gold = model.rewards(sampled), world.gold(sampled)
        gold.append(reward_of_gold - reward_of_gold.mean())
        members = standardise(rewards[1:])
        for way in proxies:
            proxies[way].append(rewards[0] if way == "single" else ENSEMBLE[way](members))
    return proxies, gold


def summary(proxies: dict[str, list[Floats]], gold: list[Floats]) -> dict[str, Any]:
    """Gains in gold by n, peaks, Gao's fit, and the paired lead over the single model, with 95 % intervals."""
    curves = {way: curve(p, {"gold": gold}) for way, p in proxies.items()}
    ns = curves["single"].ns
    each = {
        way: np.stack([best_of(ns, p, g) for p, g in zip(rows, gold, strict=True)])
        for way, rows in proxies.items()
    }
    out: dict[str, Any] = {"n": list(ns), "kl": curves["single"].kl_bound.round(4).tolist()}
    for way, c in curves.items():
        peak, fit = int(c.value["gold"].argmax()), c.fit["gold"]
        out[way] = {
            "gold": c.value["gold"].round(4).tolist(),
            "low": c.low["gold"].round(4).tolist(),
            "high": c.high["gold"].round(4).tolist(),
            "peak_n": ns[peak],
            "lost_after_peak": ratio(each[way][:, peak] - each[way][:, -1]),
            "alpha": round(fit.alpha, 4), "beta": round(fit.beta, 4), "r2": round(fit.r2, 4),
        }  # fmt: skip
        if way != "single":
            out[way]["lead_at_last_n"] = ratio(each[way][:, -1] - each["single"][:, -1])
            out[way]["lead_at_n_64"] = ratio((each[way] - each["single"])[:, ns.index(64)])
    return out


def ratio(values: Floats) -> list[float]:
    """Mean over worlds and its 95 % interval."""
    column = values[:, None]
    low, high = cluster_bootstrap(column, np.ones_like(column), samples=2000, seed=0)
    return [round(float(x), 4) for x in (values.mean(), low[0], high[0])]


def show(name: str, found: dict[str, Any]) -> None:
    """One line per way of picking."""
    print(
        f"\n{name}: gold gained over a random answer; peak; lead over the single model at n = {found['n'][-1]}"
    )
    for way, row in found.items():
        if way in ("n", "kl"):
            continue
        lead = "" if way == "single" else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*row["lead_at_last_n"])
        at = {n: g for n, g in zip(found["n"], row["gold"], strict=True)}
        print(f"  {way:20} n=64 {at[64]:6.2f}   last {row['gold'][-1]:6.2f}   peak at n={row['peak_n']:<5}"
              f" R2 {row['r2']:.3f}   {lead}")  # fmt: skip


def draw(settings: dict[str, Any]) -> Figure:
    """One panel per setting: gold against √KL, bands of 95 % over worlds, dashes for Gao's fit."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for panel, (name, found) in enumerate(settings.items(), start=1):
        axes = plot(figure, "√KL (nats)", "gold gained over a random answer", int(f"1{len(settings)}{panel}"))
        axes.set_title(name, fontsize=10)
        d = np.sqrt(found["kl"])
        for way, colour in zip(("single", *ENSEMBLE), SERIES, strict=False):
            row = found[way]
            axes.plot(d, row["gold"], color=colour, marker="o", markersize=3, label=way)
            axes.fill_between(d, row["low"], row["high"], color=colour, alpha=0.12, linewidth=0)
            axes.plot(d, d * (row["alpha"] - row["beta"] * d), "--", color=colour, linewidth=0.8)
        legend(axes)
    return figure


if __name__ == "__main__":
    main()
