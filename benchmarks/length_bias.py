"""Length bias with and without length control: frozen states, known quality, votes that pay for length.

    python benchmarks/length_bias.py [--worlds 24] [--votes 400] [--paid 1.5]

Votes are Bradley-Terry on quality + paid · length; quality and length are independent cues, mixed into the states that
a head reads. Compared: head=linear, head=length_controlled, the same without its penalty, and ODIN's penalty
|ρ(quality, length)| with a free length head. Intervals are 95 % over worlds. Writes results/length_bias.json.
The same on trained transformers: length_bias_toy.py.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from rlhf.models.heads import LinearHead
from rlhf.models.length_head import LengthControlledHead, log_length, within_slope
from rlhf.stats.bootstrap import cluster_bootstrap

Floats = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results"
STATE = 6


class Odin(LinearHead):
    """Two free heads: |ρ(quality, length)| - ρ(length head, length) + |cos(w, v)|, after Chen et al. (2024)."""

    def __init__(self, hidden_size: int, *, seed: int = 0) -> None:
        super().__init__(hidden_size, seed=seed, rows=2)

    def explained(self, output: Tensor, length: Tensor) -> Tensor:
        return output.sum(0)

    def combine(self, reward: Tensor) -> Tensor:
        return reward[0]

    def penalty(self, output: Tensor, length: Tensor, group: Tensor) -> Tensor:
        cue = log_length(length, output)
        quality, other = (within_slope(row, cue, group) / spread(row, group) for row in output)
        return quality.abs() - other + F.cosine_similarity(self.weight[0], self.weight[1], dim=0).abs()


def spread(row: Tensor, group: Tensor) -> Tensor:
    """Standard deviation within pairs."""
    pairs = row.unflatten(0, (-1, 2))
    return (pairs - pairs.mean(1, keepdim=True)).square().mean().sqrt().clamp(min=1e-6)


HEADS: dict[str, Any] = {
    "linear": LinearHead,
    "length_controlled": LengthControlledHead,
    "length_controlled, no penalty": partial(LengthControlledHead, decorrelation=0.0),
    "two heads, ODIN's penalty": Odin,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=24)
    parser.add_argument("--votes", type=int, default=400)
    parser.add_argument("--paid", type=float, default=1.5, help="log-odds per standard deviation of log length")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [one(seed, options.votes, options.paid, options.steps) for seed in range(options.worlds)]
    found = {head: {key: ratio(np.array([row[head][key] for row in rows])) for key in rows[0][head]} for head in HEADS}
    flipped = {head: sum(row[head]["correlation with quality"] < 0 for row in rows) for head in HEADS}
    RESULTS.mkdir(exist_ok=True)
    content = {**vars(options), "found": found, "worlds with quality upside down": flipped}
    (RESULTS / "length_bias.json").write_text(json.dumps(content, indent=2) + "\n")
    for head, table in found.items():
        print(f"{head}: quality upside down in {flipped[head]} of {options.worlds} worlds")
        for key, (mean, low, high) in table.items():
            print(f"  {key:36} {mean:6.3f} [{low:.3f}, {high:.3f}]")


def one(seed: int, votes: int, paid: float, steps: int) -> dict[str, dict[str, float]]:
    """Every head in one world, measured on fresh pairs."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(2, STATE))
    cues, states, length = answers(2 * votes, mixing, rng)
    odds = pairs_of(cues @ np.array([1.0, paid]))
    win = torch.tensor(rng.random(votes) < expit(odds)).float()
    fresh, fresh_states, _ = answers(20_000, mixing, rng)
    out = {}
    for name, make in HEADS.items():
        head = make(STATE, seed=seed)
        fit(head, states, length, win, steps)
        with torch.inference_mode():
            reward = head.combine(head(fresh_states)).double().numpy()
        out[name] = measured(reward, fresh)
        if isinstance(head, LengthControlledHead):
            out[name]["paid for length, per sd"] = float(head.gamma.detach()) * 0.5
    return out


def ratio(values: Floats) -> list[float]:
    """Mean over worlds and its 95 % interval."""
    column = values[:, None]
    low, high = cluster_bootstrap(column, np.ones_like(column), samples=2000, seed=0)
    return [round(float(x), 4) for x in (values.mean(), low[0], high[0])]


def answers(count: int, mixing: Floats, rng: np.random.Generator) -> tuple[Floats, Tensor, Tensor]:
    """Cues [count, 2] (quality, standardised log length), states, and lengths in characters."""
    cues = rng.normal(size=(count, 2))
    states = torch.tensor(cues @ mixing + 0.05 * rng.normal(size=(count, STATE))).float()
    return cues, states, torch.tensor(np.round(np.exp(5 + 0.5 * cues[:, 1]))).long()


def fit(head: LinearHead, states: Tensor, length: Tensor, win: Tensor, steps: int) -> None:
    """Bradley-Terry on neighbouring answers, with the head's penalty."""
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    group = torch.arange(len(states)) // 2
    for _ in range(steps):
        output = head(states)
        pairs = head.explained(output, length).unflatten(0, (-1, 2))
        loss = F.binary_cross_entropy_with_logits(pairs[:, 0] - pairs[:, 1], win)
        penalty = head.penalty(output, length, group)
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()


def measured(reward: Floats, cues: Floats) -> dict[str, float]:
    """Agreement with quality, which is gold, and with length."""
    lead, quality, longer = (pairs_of(column) for column in (reward, cues[:, 0], cues[:, 1]))
    right = (lead > 0) == (quality > 0)
    shorter = (quality > 0) != (longer > 0)
    return {
        "gold accuracy": float(right.mean()),
        "gold accuracy, shorter better": float(right[shorter].mean()),
        "gold accuracy, longer better": float(right[~shorter].mean()),
        "correlation with quality": float(np.corrcoef(reward, cues[:, 0])[0, 1]),
        "correlation with length": float(np.corrcoef(reward, cues[:, 1])[0, 1]),
    }


def pairs_of(values: Floats) -> Floats:
    """First less second of neighbours."""
    two = values.reshape(-1, 2)
    return two[:, 0] - two[:, 1]


if __name__ == "__main__":
    main()
