"""Temperature scaling of an overconfident reward model, single and ensemble: many worlds, intervals over worlds.

    python benchmarks/temperature.py [--worlds 20] [--votes 600] [--noise 0.1] [--steps 400]

Trained on few votes for many steps, a reward model is sure of what it has learned by heart. One temperature, fitted on
400 other votes (rlhf.judge.calibration), is measured on 4,000 fresh ones. Expected (Guo et al. 2017): a large fall of
the calibration error, the accuracy unchanged to the last digit. Writes results/temperature.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from feature_world import WIDTH, Floats, World, train
from overoptimisation import MEMBERS, ratio
from scipy.special import expit

from rlhf.judge.agreement import credit
from rlhf.judge.calibration import ece, fit_temperature, nll

RESULTS = Path(__file__).parent / "results"
HELD, FRESH = 400, 4000
SHARPNESS = 2.0
"""Votes are Bradley-Terry, P(i beats j) = σ(2 (gold_i - gold_j)), before some are flipped."""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--votes", type=int, default=600)
    parser.add_argument("--noise", type=float, default=0.1, help="share of votes that is flipped")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [one(seed, options.votes, options.noise, options.steps) for seed in range(options.worlds)]
    found = {key: ratio(np.array([row[key] for row in rows])) for key in rows[0]}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "temperature.json").write_text(json.dumps({**vars(options), "found": found}, indent=2) + "\n")
    for key, (mean, low, high) in found.items():
        print(f"{key:32} {mean:7.3f} [{low:.3f}, {high:.3f}]")


def one(seed: int, votes: int, noise: float, steps: int) -> dict[str, float]:
    """One world: the single model and the mean of the members, before and after."""
    world, rng = World.draw(seed), np.random.default_rng((seed, votes))
    model = train(
        *world.votes(votes, noise, rng, sharpness=SHARPNESS), members=MEMBERS + 1, steps=steps, seed=seed
    )
    held, fresh = (world.votes(n, noise, rng, sharpness=SHARPNESS) for n in (HELD, FRESH))
    out: dict[str, float] = {}
    for name, rows in (("single", slice(0, 1)), ("ensemble", slice(1, None))):
        lead, win = difference(model.rewards(held[0].reshape(-1, WIDTH))[rows]), held[1]
        temperature = fit_temperature(lead, win)
        lead, win = difference(model.rewards(fresh[0].reshape(-1, WIDTH))[rows]), fresh[1]
        out[f"{name}/accuracy"] = float(credit(lead, win).mean())
        out[f"{name}/temperature"] = temperature
        for when, t in (("before", 1.0), ("after", temperature)):
            p = expit(lead / t)
            out[f"{name}/ece/{when}"] = ece(p, win)
            out[f"{name}/nll/{when}"] = float(nll(lead / t, win).mean())
            out[f"{name}/brier/{when}"] = float(((p - win) ** 2).mean())
    for key in ("accuracy", "nll/after", "brier/after", "ece/before", "ece/after"):
        out[f"ensemble less single/{key}"] = out[f"ensemble/{key}"] - out[f"single/{key}"]
    return out


def difference(members: Floats) -> Floats:
    """Reward of the first of every pair less that of the second, the mean over members."""
    pairs = members.mean(0).reshape(-1, 2)
    return pairs[:, 0] - pairs[:, 1]


if __name__ == "__main__":
    main()
