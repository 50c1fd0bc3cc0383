"""Overoptimisation of learned rewards where everything is exact: curves, the published fits, ensembles, KL penalties.

usage: python benchmarks/rl_overoptimisation.py          writes benchmarks/results/rl_overoptimisation.{json,png}
       python benchmarks/rl_overoptimisation.py --seeds 2 --out quick.json               writes quick.{json,png}

`worlds` holds what every world has, by β, in the order of the seeds: gold at its start, peak and end, KL at its end.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from rlhf.evaluation.metrics.best_of_n import gao_fit, kl_bound
from rlhf.stats.ensemble import mean, mean_minus_variance, worst_case
from rlhf.studies.ablation import interval
from rlhf.studies.gaussian_world import GaussianWorld, best_of_n_curve, fit_rl, rl_curve, single

RESULTS = Path(__file__).parent / "results"
NS = 2 ** np.arange(11)
AGGREGATES = {
    "single": single,
    "mean": mean,
    "worst case": worst_case,
    "mean - variance": partial(mean_minus_variance, weight=1.0),
}
BETAS = (0.0, 0.05, 0.2, 0.5, 1.0)
SEEDS = 16
"""Worlds behind the stored results."""
BOUND = np.sqrt(kl_bound(NS))


def until_lost(kl, gold):
    """The curve up to where gold lies 1 below the reference: beyond, one point outweighs all others.

    What is fitted and drawn is this part only.
    """
    below = np.flatnonzero(gold < gold[0] - 1)
    stop = int(below[0]) if len(below) else len(gold)
    return np.sqrt(kl[:stop]), gold[:stop] - gold[0]


def measure(seeds: int) -> dict:
    out: dict = {"rl": {}, "best_of_n": {}, "beta": {}, "worlds": {}, "seeds": seeds}
    for pairs, noise in ((300, 0.25), (1000, 0.25), (1000, 0.0)):
        for name, aggregate in AGGREGATES.items():
            worlds = [GaussianWorld(pairs=pairs, noise=noise, seed=s) for s in range(seeds)]
            curves = [rl_curve(w, aggregate, steps=300) for w in worlds]
            fits = [fit_rl(*until_lost(k, g)) for k, g, _ in curves]
            picks = [best_of_n_curve(w, aggregate, NS, prompts=60) for w in worlds]
            key = f"{pairs} pairs, noise {noise:g}, {name}"
            out["rl"][key] = {
                "peak_gold": interval([g.max() for _, g, _ in curves]),
                "kl_at_peak": interval([k[g.argmax()] for k, g, _ in curves]),
                "fit_alpha": interval([f.alpha for f in fits]),
                "fit_beta": interval([f.beta for f in fits]),
                "fit_r2": interval([f.r2 for f in fits]),
            }
            found = [gao_fit(kl_bound(NS), (p - p[0])[None], bootstrap=0) for p in picks]
            out["best_of_n"][key] = {
                "peak_gold": interval([p.max() for p in picks]),
                "gold_at_1024": interval([p[-1] for p in picks]),
                "fit_alpha": interval([f.alpha for f in found]),
                "fit_beta": interval([f.beta for f in found]),
                "fit_r2": interval([f.r2 for f in found]),
            }
    for beta in BETAS:
        curves = [rl_curve(GaussianWorld(seed=s), mean, beta=beta, steps=300) for s in range(seeds)]
        own = {
            "start_gold": [float(g[0]) for _, g, _ in curves],
            "peak_gold": [float(g.max()) for _, g, _ in curves],
            "end_gold": [float(g[-1]) for _, g, _ in curves],
            "end_kl": [float(k[-1]) for k, _, _ in curves],
        }
        out["worlds"][f"{beta:g}"] = own
        out["beta"][f"{beta:g}"] = {name: interval(values) for name, values in own.items()}
    return out


def draw(path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for name, aggregate in AGGREGATES.items():
        world = GaussianWorld(seed=1)
        kl, gold, _ = rl_curve(world, aggregate, steps=300)
        d, gain = until_lost(kl, gold)
        (line,) = left.plot(d, gain, label=name)
        fit = fit_rl(d, gain)
        x = np.linspace(1e-3, d[-1], 200)
        left.plot(x, x * (fit.alpha - fit.beta * np.log(x)), "--", linewidth=1, color=line.get_color())
        picked = best_of_n_curve(world, aggregate, NS, prompts=200)
        right.plot(BOUND, picked - picked[0], "o-", label=name, color=line.get_color())
        best = gao_fit(kl_bound(NS), (picked - picked[0])[None], bootstrap=0)
        x = np.linspace(0, BOUND[-1], 200)
        right.plot(x, x * (best.alpha - best.beta * x), "--", linewidth=1, color=line.get_color())
    left.set(xlabel="√KL, exact", ylabel="gain in gold", title="RL", ylim=(-1.5, None))
    right.set(xlabel="√(log n - (n - 1)/n), an upper bound of √KL", ylabel="gain in gold", title="best of n")
    for axis, form in ((left, "d (α - β log d)"), (right, "d (α - β d)")):
        axis.plot([], [], "k--", linewidth=1, label=f"fit: {form}")
        axis.legend()
    figure.savefig(path, dpi=100)


def show(results: dict) -> None:
    for part in ("rl", "best_of_n", "beta"):
        for key, row in results[part].items():
            cells = ", ".join(f"{n} {m:.2f} [{a:.2f}, {b:.2f}]" for n, (m, a, b) in row.items())
            print(f"{part:10} {key:42} {cells}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.out is None and given.seeds != SEEDS:
        parser.error(
            f"the stored results are of --seeds {SEEDS}; others go into a file of their own: --out <file>.json"
        )
    out = given.out or RESULTS / "rl_overoptimisation.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    results = measure(given.seeds)
    out.write_text(json.dumps(results, indent=1))
    draw(out.with_suffix(".png"))
    show(results)


if __name__ == "__main__":
    main()
