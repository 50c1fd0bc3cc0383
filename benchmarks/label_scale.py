"""How labels change the scale of a learned reward: a linear reward, known truth, fitted with this project's losses.

    python benchmarks/label_scale.py [--prompts 20000] [--seeds 3]

Prints |w_hat| / |w| and cos(w_hat, w) per way from votes to labels: 1 and 1 are right. All recover the direction;
the scale is where labels differ, and what temperature scaling on raw votes has to put right.
Writes results/label_scale.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rlhf.annotate.aggregation import discard, majority, soft
from rlhf.annotate.annotator_models import DawidSkene
from rlhf.annotate.label import Label
from rlhf.record_types import Comparison, Completion, Vote

RESULTS = Path(__file__).parent / "results"
WIDTH = 8
PAIR = (Completion("a", "x"), Completion("b", "y"))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(options.seeds):
        for annotators in (3, 5):
            for name, value in votes_to_scale(annotators, options.prompts, seed).items():
                found.setdefault(f"{annotators} annotators, {name}", []).append(value)
        for name, value in rankings_to_scale(4, options.prompts, seed).items():
            found.setdefault(f"rankings of 4, {name}", []).append(value)
    table = {name: [float(x) for x in np.mean(values, axis=0)] for name, values in found.items()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "label_scale.json").write_text(json.dumps(table, indent=2) + "\n")
    for name, (scale, cosine) in table.items():
        print(f"{name:44} scale {scale:5.2f}  cosine {cosine:.3f}")


def votes_to_scale(annotators: int, prompts: int, seed: int) -> dict[str, tuple[float, float]]:
    """Bradley-Terry votes of `annotators` per pair, aggregated in every way."""
    rng = np.random.default_rng(seed)
    truth, gaps = world(prompts, rng)
    wins = rng.binomial(annotators, 1 / (1 + np.exp(-gaps @ truth)))
    records = [_record(n, int(w), annotators) for n, w in enumerate(wins)]
    ways: dict[str, Callable[[Comparison], Label]] = {
        "soft": soft,
        "majority": majority,
        "discard below 0.8": lambda r: discard(r, min_agreement=0.8),
        "dawid_skene": DawidSkene().fit(records),
    }
    found = {}
    for name, way in ways.items():
        labels = [way(record) for record in records]
        p = np.array([label.win_prob[0, 1] for label in labels])
        seen = np.array([label.observed[0, 1] for label in labels])
        found[name] = compared(fitted(gaps[seen], p[seen]), truth)
    return found


def rankings_to_scale(k: int, prompts: int, seed: int) -> dict[str, tuple[float, float]]:
    """Plackett-Luce rankings of k, broken into pairs in different ways."""
    rng = np.random.default_rng(seed)
    truth, _ = world(1, rng)
    items = rng.normal(size=(prompts // 4, k, WIDTH)) / np.sqrt(2)
    noisy = items @ truth + rng.gumbel(size=items.shape[:2])
    ordered = np.take_along_axis(items, np.argsort(-noisy, axis=1)[:, :, None], axis=1)
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    ways = {
        "all pairs": pairs,
        "adjacent pairs": [(i, i + 1) for i in range(k - 1)],
        "best against worst": [(0, k - 1)],
    }
    found = {}
    for name, chosen in ways.items():
        gaps = np.concatenate([ordered[:, i] - ordered[:, j] for i, j in chosen])
        found[name] = compared(fitted(gaps, np.ones(len(gaps))), truth)
    found["Plackett-Luce"] = compared(plackett_luce_fit(ordered), truth)
    return found


def world(pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True weights [D] and feature differences [P, D]."""
    truth = rng.normal(size=WIDTH)
    return 1.5 * truth / np.linalg.norm(truth), rng.normal(size=(pairs, WIDTH))


def _record(number: int, wins: int, annotators: int) -> Comparison:
    votes = [Vote(f"w{a}", pair=("a", "b"), choice="a" if a < wins else "b") for a in range(annotators)]
    return Comparison(str(number), str(number), PAIR, tuple(votes))


def fitted(gaps: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Weights of the soft-label loss, mean of BCE(σ(gap · w), p)."""
    x, y = torch.as_tensor(gaps), torch.as_tensor(p)
    return minimised(lambda w: torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y))


def plackett_luce_fit(ordered: np.ndarray) -> np.ndarray:
    """Weights of the Plackett-Luce likelihood of the whole rankings."""
    x = torch.as_tensor(ordered)

    def loss(w: torch.Tensor) -> torch.Tensor:
        score = x @ w
        rest = torch.logcumsumexp(score.flip(1), 1).flip(1)
        return (rest - score)[:, :-1].sum(1).mean()

    return minimised(loss)


def minimised(loss: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """The minimum by L-BFGS."""
    w = torch.zeros(WIDTH, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(w)
        value.backward()
        return value

    optimizer.step(closure)
    return w.detach().numpy()


def compared(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """|w_hat| / |w| and the cosine."""
    sizes = np.linalg.norm(found), np.linalg.norm(truth)
    return float(sizes[0] / sizes[1]), float(found @ truth / (sizes[0] * sizes[1]))


if __name__ == "__main__":
    main()
