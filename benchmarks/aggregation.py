"""Who predicts the votes that were held out: models of annotators on preference votes.

    python benchmarks/aggregation.py [--pairs <ukpconvarg pairs> --texts <ukpconvarg responses>] [--splits 5]

Without files the toy world's annotators vote. A fifth of the votes is held out at random, the rest is fitted.
crowd-kit's models know no ties: they are fitted on the votes that decide, and all are compared on held-out votes that
decide, P(first) / (P(first) + P(second)). Ours are compared with each other on all three verdicts too.
Writes results/aggregation_<data>.json.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from crowdkit.aggregation import BradleyTerry, NoisyBradleyTerry
from scipy.special import logit

from rlhf.data.importers import ukpconvarg
from rlhf.data.source import Source
from rlhf.labels.annotator_bradley_terry import as_shown, fit
from rlhf.labels.vote_table import VoteTable, collect
from rlhf.toy.world import ToyWorld

RESULTS = Path(__file__).parent / "results"
Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""P(first), P(tie), P(second) [V, 3] of votes on (first, second) by annotators."""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs")
    parser.add_argument("--texts")
    parser.add_argument("--splits", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    real = Source(partial(ukpconvarg, responses_path=options.texts), path=options.pairs)
    source = real if options.pairs else ToyWorld()
    vote_table = collect(source.records()).vote_table()
    rows = [split(vote_table, seed) for seed in range(options.splits)]
    found = {model: {key: spread([row[model][key] for row in rows]) for key in rows[0][model]} for model in rows[0]}
    votes = {"data": "ukpconvarg" if options.pairs else "toy", "votes": len(vote_table.unit)}
    found = {**votes, "splits": options.splits, "models": found}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"aggregation_{found['data']}.json").write_text(json.dumps(found, indent=2) + "\n")
    for model, numbers in found["models"].items():
        print(f"{model:46}" + "  ".join(f"{k} {v[0]:.4f} ±{v[1]:.4f}" for k, v in numbers.items()))


def spread(values: list[float]) -> list[float]:
    """Mean, and standard error over the splits."""
    return [float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)]


def split(vote_table: VoteTable, seed: int) -> dict[str, dict[str, float]]:
    """Scores of all models on one split."""
    verdict, first, second = as_shown(vote_table)
    test = np.random.default_rng(seed).random(len(verdict)) < 0.2
    columns = [c[~test] for c in (verdict, first, second, vote_table.annotator)]
    held = [c[test] for c in (verdict, first, second, vote_table.annotator)]
    sizes = {"items": len(vote_table.items), "annotators": len(vote_table.annotators)}
    models: dict[str, Callable[[], Predict]] = {
        "share of each verdict": lambda: marginal(columns),
        "Bradley-Terry (crowd-kit)": lambda: crowd_kit(columns, noisy=False),
        "noisy Bradley-Terry (crowd-kit)": lambda: crowd_kit(columns, noisy=True),
        "Bradley-Terry with ties, all alike (ours)": lambda: ours(columns, sizes, alike=True),
        "annotator_bt: with reliabilities (ours)": lambda: ours(columns, sizes, alike=False),
    }
    return {name: measured(make, held) for name, make in models.items()}


def measured(make: Callable[[], Predict], held: list[np.ndarray]) -> dict[str, float]:
    """Seconds to fit, NLL and accuracy on deciding votes, NLL on all verdicts where the model knows ties."""
    start = time.perf_counter()
    predict = make()
    seconds = time.perf_counter() - start
    verdict, *rest = held
    p = predict(*rest)
    decided = verdict != 1
    sides = p[decided][:, [0, 2]]
    sides = sides / sides.sum(1, keepdims=True)
    chosen = sides[np.arange(len(sides)), verdict[decided] // 2]
    found = {"decided_nll": float(-np.log(chosen).mean()), "decided_accuracy": float((chosen > 0.5).mean())}
    if (p[:, 1] > 0).all():
        found["nll"] = float(-np.log(p[np.arange(len(p)), verdict]).mean())
    return found | {"seconds": seconds}


def marginal(columns: list[np.ndarray]) -> Predict:
    """What everybody says on average."""
    share = np.bincount(columns[0], minlength=3) / len(columns[0])
    return lambda first, second, annotator: np.tile(share, (len(first), 1))


def ours(columns: list[np.ndarray], sizes: dict[str, int], *, alike: bool) -> Predict:
    """Our model, with one reliability per annotator or one for all."""
    verdict, first, second, annotator = columns
    who = np.zeros_like(annotator) if alike else annotator
    found = fit(verdict, first, second, who, items=sizes["items"], annotators=1 if alike else sizes["annotators"])
    return lambda i, j, a: found.predict(i, j, np.zeros_like(a) if alike else a)


def crowd_kit(columns: list[np.ndarray], *, noisy: bool) -> Predict:
    """crowd-kit's models on the votes that decide; annotators it has not seen vote as the average one."""
    verdict, first, second, annotator = (c[columns[0] != 1] for c in columns)
    label = np.where(verdict == 0, first, second)
    data = pd.DataFrame({"worker": annotator, "left": first, "right": second, "label": label})
    model: Any = NoisyBradleyTerry(n_iter=30) if noisy else BradleyTerry(n_iter=100)
    model.fit(data)

    def predict(i: np.ndarray, j: np.ndarray, a: np.ndarray) -> np.ndarray:
        score = model.scores_
        middle = float(score.median())
        left, right = (np.clip(score.reindex(x).fillna(middle).to_numpy(), 1e-9, 1 - 1e-9) for x in (i, j))
        if not noisy:
            p = left / (left + right)
        else:
            skill = model.skills_.reindex(a).fillna(float(model.skills_.mean())).to_numpy()
            bias = model.biases_.reindex(a).fillna(0.5).to_numpy()
            p = skill / (1 + np.exp(logit(right) - logit(left))) + (1 - skill) * bias
        p = np.clip(p, 1e-6, 1 - 1e-6)
        return np.stack([p, np.zeros_like(p), 1 - p], axis=1)

    return predict


if __name__ == "__main__":
    main()
