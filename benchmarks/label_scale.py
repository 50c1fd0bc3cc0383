"""How labels change the scale of a learned reward, and with it calibration: a linear reward with a known truth.

    python benchmarks/label_scale.py [--pairs 20000] [--seeds 5]

Every row is one way from votes to labels to a loss, fitted with this project's aggregations and losses. `scale` is
|w_hat| / |w| and `cosine` the direction: 1 and 1 are right. `ece` is measured on new pairs against the true
probability that a single annotator prefers the first, before and after a temperature fitted on single votes.
All rows recover the direction; the scale is where labels differ. Writes results/label_scale.json.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlhf.data.batch import Target
from rlhf.evaluation.metrics.calibration import ece, fit_temperature
from rlhf.labels.aggregation import discard, majority, soft
from rlhf.labels.dawid_skene import DawidSkene
from rlhf.labels.label import Label
from rlhf.records import Comparison, Completion, Vote
from rlhf.reward.losses import LearnedDavidson, LearnedRaoKupper, Loss, plackett_luce, ranking, soft_label
from rlhf.reward.ties import davidson_log_probabilities, rao_kupper_log_probabilities

RESULTS = Path(__file__).parent / "results"
WIDTH = 8
PAIR = (Completion("a", "x"), Completion("b", "y"))
Array = np.ndarray[Any, Any]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for world in WORLDS:
            for name, found in world(options.pairs, np.random.default_rng(seed)).items():
                rows.setdefault(name, []).append(found)
    table = {name: {key: spread([r[key] for r in seeds]) for key in seeds[0]} for name, seeds in rows.items()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "label_scale.json").write_text(json.dumps(table, indent=2) + "\n")
    for name, numbers in table.items():
        print(f"{name:44}" + "  ".join(f"{k} {v[0]:.3f} ±{v[1]:.3f}" for k, v in numbers.items()))


def spread(values: list[float]) -> list[float]:
    """Mean, and standard error over the seeds."""
    return [float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)]


def truth(rng: np.random.Generator) -> Array:
    """True weights [D] of length 1.5."""
    weights = rng.normal(size=WIDTH)
    return np.asarray(1.5 * weights / np.linalg.norm(weights))


def of_votes(annotators: int, pairs: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Bradley-Terry votes of `annotators` per pair, aggregated in every way, learned with loss=soft_label."""
    weights, items = truth(rng), rng.normal(size=(pairs, 2, WIDTH)) / np.sqrt(2)
    wins = rng.binomial(annotators, 1 / (1 + np.exp(-(items[:, 0] - items[:, 1]) @ weights)))
    records = [voted(n, int(w), annotators) for n, w in enumerate(wins)]
    ways: dict[str, Callable[[Comparison], Label]] = {
        "soft": soft,
        "majority": majority,
        "discard below 0.8": partial(discard, min_agreement=0.8),
        "dawid_skene": DawidSkene().fit(records),
    }
    found = {}
    for name, way in ways.items():
        labels = [way(record) for record in records]
        target = pair_target(
            np.array([label.win_prob[0, 1] for label in labels]),
            observed=np.array([label.observed[0, 1] for label in labels]),
        )
        found[f"{annotators} annotators: {name}"] = measured(fitted(soft_label, items, target), weights, rng)
    return found


def of_rankings(k: int, pairs: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Plackett-Luce rankings of k: learned whole, or broken into pairs in different ways."""
    weights, items = truth(rng), rng.normal(size=(pairs // 4, k, WIDTH)) / np.sqrt(2)
    order = np.argsort(-(items @ weights + rng.gumbel(size=items.shape[:2])), axis=1)
    items = np.take_along_axis(items, order[:, :, None], axis=1)
    step = np.arange(k)[None] - np.arange(k)[:, None]
    ways: dict[str, tuple[Loss, Array]] = {
        "plackett_luce": (plackett_luce, step > 0),
        "ranking (all pairs)": (ranking, step > 0),
        "adjacent pairs": (ranking, step == 1),
        "best against worst": (ranking, step == k - 1),
    }
    return {
        f"rankings of {k}: {name}": measured(fitted(loss, items, ranked_target(len(items), kept)), weights, rng)
        for name, (loss, kept) in ways.items()
    }


def of_ties(name: str, model: Callable[[Tensor], Any], pairs: int, rng: np.random.Generator) -> dict[str, Any]:
    """Votes with ties from a known tie model; ties dropped, halved, or learned with either tie loss."""
    weights, items = truth(rng), rng.normal(size=(pairs, 2, WIDTH)) / np.sqrt(2)
    gaps = torch.as_tensor((items[:, 0] - items[:, 1]) @ weights)
    chances = torch.stack(model(gaps), 1).exp().numpy().cumsum(1)
    verdict = (rng.random((pairs, 1)) > chances[:, :2]).sum(1)
    p, tie = 1 - verdict / 2, verdict == 1
    ways: dict[str, tuple[Loss, Target]] = {
        "dropped": (soft_label, pair_target(p, observed=~tie)),
        "one half": (soft_label, pair_target(p)),
        "davidson": (LearnedDavidson().double(), pair_target(p, tie=tie)),
        "rao_kupper": (LearnedRaoKupper().double(), pair_target(p, tie=tie)),
    }
    return {
        f"{name} ties: {way}": measured(fitted(loss, items, target), weights, rng)
        for way, (loss, target) in ways.items()
    }


WORLDS: tuple[Callable[[int, np.random.Generator], dict[str, dict[str, float]]], ...] = (
    partial(of_votes, 3),
    partial(of_votes, 5),
    partial(of_rankings, 4),
    partial(of_rankings, 7),
    partial(of_ties, "Davidson", partial(davidson_log_probabilities, log_nu=0.0)),
    partial(of_ties, "Rao-Kupper", partial(rao_kupper_log_probabilities, width=0.75)),
)


def voted(number: int, wins: int, annotators: int) -> Comparison:
    """One pair with its votes."""
    votes = [Vote(f"w{a}", pair=("a", "b"), choice="a" if a < wins else "b") for a in range(annotators)]
    return Comparison(str(number), str(number), PAIR, tuple(votes))


def pair_target(p: Array, *, observed: Array | None = None, tie: Array | None = None) -> Target:
    """Targets of pairs from P(first wins) [B], ties counting half."""
    seen = np.ones(len(p), dtype=bool) if observed is None else observed
    tied = np.zeros(len(p)) if tie is None else tie.astype(float)
    both = np.array([[False, True], [True, False]])
    square = np.stack([np.stack([0 * p, p], 1), np.stack([1 - p, 0 * p], 1)], 1)
    see = torch.as_tensor(seen[:, None, None] & both)
    rank = torch.as_tensor(np.stack([p < 0.5, p > 0.5], 1).astype(np.int64))
    return target(torch.as_tensor(square) * see, torch.as_tensor(tied[:, None, None] * both) * see, see, rank)


def ranked_target(groups: int, kept: Array) -> Target:
    """Targets of groups stored best first, of which the pairs `kept` [K, K] (i before j) are looked at."""
    k = len(kept)
    win = torch.as_tensor(kept).double().expand(groups, k, k)
    see = torch.as_tensor(kept | kept.T).expand(groups, k, k)
    return target(win, 0 * win, see, torch.arange(k).expand(groups, k))


def target(win: Tensor, tie: Tensor, observed: Tensor, rank: Tensor) -> Target:
    """The rest of the fields as they are where nothing else was said."""
    groups, k = rank.shape
    return Target(
        win, tie, observed, 0 * win, rank, torch.empty(groups, k, 0),
        torch.ones(groups, k, dtype=torch.bool), torch.ones(groups),
    )  # fmt: skip


def fitted(loss: Loss, items: Array, labels: Target) -> Array:
    """Weights [D] at the minimum of the mean loss, by L-BFGS; a tie loss learns its parameter beside them."""
    x = torch.as_tensor(items)
    w = torch.zeros(WIDTH, dtype=torch.float64, requires_grad=True)
    learned = list(loss.parameters()) if isinstance(loss, nn.Module) else []
    optimizer = torch.optim.LBFGS([w, *learned], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(x @ w, labels).mean()
        value.backward()
        return value

    optimizer.step(closure)
    return np.asarray(w.detach().numpy())


def measured(found: Array, weights: Array, rng: np.random.Generator) -> dict[str, float]:
    """Scale, cosine, and calibration error against single annotators on new pairs."""
    gaps = rng.normal(size=(20_000, WIDTH))
    p = 1 / (1 + np.exp(-gaps @ weights))
    difference, half = gaps @ found, len(gaps) // 2
    temperature = fit_temperature(difference[:half], (rng.random(half) < p[:half]).astype(float))
    sizes = np.linalg.norm(found), np.linalg.norm(weights)
    return {
        "scale": float(sizes[0] / sizes[1]),
        "cosine": float(found @ weights / (sizes[0] * sizes[1])),
        "ece": ece(1 / (1 + np.exp(-difference[half:])), p[half:]),
        "temperature": temperature,
        "ece_calibrated": ece(1 / (1 + np.exp(-difference[half:] / temperature)), p[half:]),
    }


if __name__ == "__main__":
    main()
