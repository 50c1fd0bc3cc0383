"""Intervals of an active-learning comparison that resample seeds and prompts together.

    python benchmarks/select_intervals.py <run> [<run> ...] [--by prompt|domain|none] [--level 0.95]

The table of a run has intervals over seeds alone. Seeds of one data set share prompts, so this draws seeds and prompts
(or domains, where whole domains were held out) independently with replacement (the pigeonhole bootstrap, Owen 2007),
for mean NLL over rounds less random's and for the labels saved at equal NLL: expanded percentile intervals for the
smaller of both numbers; `--by none` draws seeds alone, and the interval of the NLL is then a t interval. Reads
arms/*/journal.jsonl of runs.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlhf.select.loop.learning_curve import BASELINE, saved
from rlhf.stats.t_interval import caution, expanded, t_interval

Floats = NDArray[np.floating]
Table = dict[str, dict[int, list[dict[str, tuple[int, float]]]]]
"""Selector -> seed -> round -> cluster -> (pairs, mean NLL)."""


def read(runs: list[Path], by: str) -> tuple[Table, list[float]]:
    """Losses of all selectors' runs, and the votes obtained by each round."""
    table: Table = defaultdict(dict)
    labels: list[float] = []
    for path in sorted(p for run in runs for p in run.glob("arms/*/journal.jsonl")):
        results = [e for e in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if e["event"] == "result"]
        rounds = []
        for event in results:
            sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
            for prompt, (domain, pairs, loss) in event["by_prompt"].items():
                cell = sums[{"prompt": prompt, "domain": str(domain), "none": "all"}[by]]
                cell[0] += pairs
                cell[1] += pairs * loss
            rounds.append({name: (int(n), total / n) for name, (n, total) in sums.items()})
        table[results[0]["selector"]][results[0]["seed"]] = rounds
        labels = [float(e["labels"]) for e in results]
    return table, labels


def arrays(per_seed: dict[int, list[dict[str, tuple[int, float]]]], clusters: list[str], seeds: list[int]) -> Floats:
    """Pairs and summed NLL [2, seeds, rounds, clusters]; 0 where a cluster is not in a seed's test."""
    cells = [[[row.get(c, (0, 0.0)) for c in clusters] for row in per_seed[s]] for s in seeds]
    pairs, loss = np.moveaxis(np.array(cells, float), -1, 0)
    return np.stack([pairs, pairs * loss])


def curve(counts: Floats, seeds: Floats, clusters: Floats) -> Floats:
    """Mean NLL [rounds] with seeds and clusters weighted; a seed without any drawn cluster does not count."""
    pairs, total = counts @ clusters
    there = pairs[:, 0] > 0
    return np.asarray(np.average(total[there] / pairs[there], axis=0, weights=seeds[there]))


def compare(
    table: Table, labels: list[float], name: str, level: float, resamples: int = 2000
) -> dict[str, list[float]]:
    """NLL difference and labels saved against random: estimate, low, high."""
    seeds = sorted(set(table[name]) & set(table[BASELINE]))
    clusters = sorted({c for s in seeds for c in table[BASELINE][s][0]})
    own, base = (arrays(table[key], clusters, seeds) for key in (name, BASELINE))
    rng = np.random.default_rng(0)

    def measure(of_seeds: Floats, of_clusters: Floats) -> tuple[float, float]:
        a, b = (curve(x, of_seeds, of_clusters) for x in (own, base))
        return float((a - b).mean()), saved(-a, -b, np.array(labels))

    s, c = len(seeds), len(clusters)
    drawn = []
    while len(drawn) < resamples:
        of_seeds, of_clusters = rng.multinomial(s, np.full(s, 1 / s)), rng.multinomial(c, np.full(c, 1 / c))
        if (own[0, of_seeds > 0, 0] @ of_clusters).any():
            drawn.append(measure(of_seeds.astype(float), of_clusters.astype(float)))
    here = measure(np.ones(s), np.ones(c))
    low, high = expanded(np.array(drawn), s if c == 1 else min(s, c), level)
    if c == 1:  # seeds alone: the difference is a mean over them
        own_nll, base_nll = (x[1, :, :, 0] / x[0, :, :, 0] for x in (own, base))
        low[0], high[0] = t_interval((own_nll - base_nll).mean(1), level)
    return {key: [here[i], float(low[i]), float(high[i])] for i, key in enumerate(("nll_difference", "labels_saved"))}


def main() -> None:
    """Read, resample, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--by", choices=("prompt", "domain", "none"), default="prompt")
    parser.add_argument("--level", type=float, default=0.95)
    options = parser.parse_args()
    table, labels = read(options.runs, options.by)
    print(caution({name: len(set(table[name]) & set(table[BASELINE])) for name in set(table) - {BASELINE}}))
    for name in sorted(set(table) - {BASELINE}):
        found = compare(table, labels, name, options.level)
        nll, share = found["nll_difference"], found["labels_saved"]
        print(f"{name:>20}  NLL less random {nll[0]:+.4f} [{nll[1]:+.4f}, {nll[2]:+.4f}]   "
              f"labels saved {share[0]:+.0%} [{share[1]:+.0%}, {share[2]:+.0%}]")  # fmt: skip


if __name__ == "__main__":
    main()
