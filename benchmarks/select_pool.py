"""Choosing 500 of 10^4 to 10^6 pairs: seconds and memory beside a naive implementation and an existing library.

    python benchmarks/select_pool.py [--sizes 10000 100000 1000000] [--width 128] [--budget 500]

Features are synthetic, 4 completions per prompt and all 6 pairs, single precision; the posterior is that of 500 labels.
Every measurement runs in a process of its own; memory is the peak above the pool itself. The naive log-det updates all
gains after every pick. Libraries: scikit-activeml's CoreSet and Badge where it is installed, scikit-learn's k-means,
which the project uses itself. Writes results/select_pool.json; what it holds of other sizes, with the same settings,
stays; and results/select_pool.png, seconds of CPU against the number of pairs. `--draw` draws that figure alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from memory import peak_during

from rlhf.select import LabelState, PairPool, at_random, query
from rlhf.select.laplace import fit
from rlhf.select.pool import Candidates, Selection
from rlhf.select.strategies.diversity import badge, clusters, k_centre, prompt_coverage
from rlhf.select.strategies.log_det import log_det
from rlhf.select.strategies.mixed import mixed, safe
from rlhf.select.strategies.uncertainty import bald, laplace_power, margin

RESULTS = Path(__file__).parent / "results"
LARGEST = {"naive log-det": 1_000_000, "skactiveml CoreSet": 100_000, "skactiveml Badge": 10_000}
"""Beyond these sizes a rival takes longer than ten minutes or more memory than the machine has: left out."""


RIVALS = ("naive log-det", "skactiveml CoreSet", "skactiveml Badge")
"""Drawn dashed."""

PANELS = {
    "ours in one pass": ("random", "margin", "BALD", "Laplace-power", "safe (default)"),
    "log-det, beside the naive rule": ("log-det, lazy", "naive log-det", "mixed 50/30/20"),
    "spread, beside scikit-activeml": (
        "k-centre, all", "k-centre (1e5 sampled)", "skactiveml CoreSet", "BADGE (1e5 sampled)", "skactiveml Badge",
        "clusters (1e5 sampled)", "prompt coverage",
    ),
}  # fmt: skip
"""Title -> ways drawn together."""


def naive_log_det(candidates: Candidates, budget: int, rng: np.random.Generator) -> Selection:
    """All differences at once, all gains after every pick: what a first implementation looks like."""
    z = candidates.pool.z(candidates.rows).astype(np.float32)
    w = candidates.weight.astype(np.float32)
    inverse = candidates.state.posterior.covariance()
    q = w * np.einsum("nd,nd->n", z @ inverse.astype(np.float32), z)
    chosen = []
    for _ in range(budget):
        chosen.append(place := int(np.argmax(q)))
        u = z[place].astype(np.float64) * np.sqrt(w[place])
        c = inverse @ u / np.sqrt(1 + u @ inverse @ u)
        q -= w * (z @ c.astype(np.float32)) ** 2
        q[chosen] = -1
        inverse -= np.outer(c, c)
    rows = candidates.rows[chosen]
    return Selection(rows, np.zeros(budget), ["naive"] * budget, np.zeros(budget, bool))


def skactiveml(name: str) -> Callable[..., Selection]:
    """A query strategy of scikit-activeml on the same differences, labels unknown."""

    def choose(candidates: Candidates, budget: int, rng: np.random.Generator) -> Selection:
        from skactiveml import pool as strategies
        from skactiveml.classifier import SklearnClassifier
        from sklearn.linear_model import LogisticRegression

        z = candidates.pool.z(candidates.rows)
        known = candidates.pool.z(candidates.state.rows)
        x = np.vstack([known, z])
        y = np.concatenate([candidates.state.share > 0.5, np.full(len(z), np.nan)])
        given: dict[str, Any] = {"batch_size": budget}
        if name == "Badge":
            given["clf"] = SklearnClassifier(LogisticRegression(), classes=[0, 1], random_state=0)
        picked = getattr(strategies, name)(random_state=0).query(x, y, **given)
        rows = candidates.rows[np.asarray(picked) - len(known)]
        return Selection(rows, np.zeros(budget), [name] * budget, np.zeros(budget, bool))

    return choose


WAYS: dict[str, Callable[..., Selection]] = {
    "random": at_random,
    "margin": margin,
    "BALD": bald,
    "Laplace-power": laplace_power,
    "safe (default)": safe,
    "log-det, lazy": log_det,
    "naive log-det": naive_log_det,
    "mixed 50/30/20": mixed,
    "prompt coverage": prompt_coverage,
    "k-centre (1e5 sampled)": k_centre,
    "k-centre, all": partial(k_centre, sample=10**7),
    "clusters (1e5 sampled)": clusters,
    "BADGE (1e5 sampled)": badge,
    "skactiveml CoreSet": skactiveml("CoreSet"),
    "skactiveml Badge": skactiveml("Badge"),
}


def make(size: int, width: int) -> tuple[PairPool, LabelState]:
    """A pool of `size` pairs and the state after 500 labels."""
    rng = np.random.default_rng(0)
    prompts = -(-size // 6)
    scale = np.linspace(1.5, 0.2, width, dtype=np.float32)
    features = rng.standard_normal((prompts * 4, width), dtype=np.float32) * scale
    left, right = np.triu_indices(4, 1)
    base = np.arange(prompts)[:, None] * 4
    prompt = np.repeat(np.arange(prompts), 6)[:size]
    pool = PairPool(features, (base + left).ravel()[:size], (base + right).ravel()[:size], np.arange(size), prompt,
                    domain=prompt % 8)  # fmt: skip
    theta = rng.standard_normal(width) * 0.3
    rows = rng.permutation(size)[:500]
    z = pool.z(rows)
    share = (rng.random(500) < 1 / (1 + np.exp(-z @ theta))).astype(float)
    votes = np.ones(500)
    state = LabelState(rows, share, votes, fit(z, share, votes, 10.0), np.full(500, 0.5))
    return pool, state


def measure(way: str, size: int, width: int, budget: int) -> dict[str, float]:
    """One choice in this process: seconds, peak megabytes, information of the batch."""
    pool, state = make(size, width)
    found: list[Selection] = []
    start = time.perf_counter()
    cpu = time.process_time()

    def work() -> None:
        found.append(query(pool, state, budget, np.random.default_rng(0), selector=WAYS[way]))

    peak = peak_during(work)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    z = pool.z(found[0].indices)
    p = 1 / (1 + np.exp(-z @ state.posterior.theta))
    white = z @ state.posterior.inverse_factor.T * np.sqrt(p * (1 - p))[:, None]
    gain = float(np.linalg.slogdet(np.eye(width) + white.T @ white)[1])
    chosen = hash(tuple(sorted(found[0].indices.tolist()))) % 10**9
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak, "log_det": gain, "set": chosen}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 1)))
    parser.add_argument("--draw", action="store_true", help="only the figure, from what was measured")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.width, options.budget)))
        return
    if options.draw:
        found = json.loads((RESULTS / "select_pool.json").read_text())
        draw(found["ways"], found["settings"], RESULTS / "select_pool.png")
        return
    about = {"width": options.width, "budget": options.budget, "threads": options.threads}
    results = _before(about)
    for way in WAYS:
        for size in options.sizes:
            if size <= LARGEST.get(way, size):
                results[way][str(size)] = _in_a_process(way, size, options)
                print(f"{way:>24} {size:>9,}: {_shown(results[way][str(size)])}", flush=True)
                RESULTS.mkdir(exist_ok=True)
                results[way] = dict(sorted(results[way].items(), key=lambda cell: int(cell[0])))
                text = json.dumps({"settings": about, "ways": results}, indent=1)
                (RESULTS / "select_pool.json").write_text(text)
    draw(results, about, RESULTS / "select_pool.png")


def points(cells: Mapping[str, Mapping[str, float]]) -> tuple[list[int], list[float]]:
    """Sizes and seconds of CPU, rising; measurements that failed are left out."""
    done = sorted((int(size), cell["cpu_seconds"]) for size, cell in cells.items() if "cpu_seconds" in cell)
    return [size for size, _ in done], [seconds for _, seconds in done]


def draw(ways: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any], path: Path) -> None:
    """Seconds of CPU against pairs, both logarithmic; a dotted line of slope 1 to compare with."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(14, 5), sharex=True, sharey=True, layout="constrained")
    for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
        for name in (name for name in names if points(ways.get(name, {}))[0]):
            style = "--" if name in RIVALS else "-"
            axis.loglog(*points(ways[name]), style, marker="o", markersize=4, label=name)
        axis.loglog([1e4, 1e6], [0.02, 2], ":", color="grey", linewidth=1, label="in proportion to n")
        axis.set(title=title, xlabel="pairs n")
        axis.grid(which="major", alpha=0.3)
        axis.set_ylim(top=30_000)  # room for the legend
        axis.legend(fontsize=8, loc="upper left")
    axes[0].set_ylabel("seconds of CPU")
    figure.suptitle(f"{about['budget']} of n pairs, {about['width']} features, {about['threads']} thread")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _before(about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Earlier measurements with the same settings."""
    path = RESULTS / "select_pool.json"
    found = json.loads(path.read_text()) if path.is_file() else {"settings": None, "ways": {}}
    kept = found["ways"] if found["settings"] == about else {}
    return {way: kept.get(way, {}) for way in WAYS}


def _in_a_process(way: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--width", str(options.width), "--budget", str(options.budget),
               "--one", way, str(size)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _shown(numbers: dict[str, Any]) -> str:
    if "failed" in numbers:
        return str(numbers["failed"])
    return (f"{numbers['seconds']:8.2f} s ({numbers['cpu_seconds']:.2f} s of CPU), {numbers['peak_mb']:7.0f} MB, "
            f"log-det {numbers['log_det']:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
