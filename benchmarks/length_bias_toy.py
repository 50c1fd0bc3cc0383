"""Length bias before and after a length-controlled head: the toy world, where gold is known and length earns nothing.

    python benchmarks/length_bias_toy.py [--seeds 4] [--fresh 400] [--runs runs/length_bias]

Trains experiment=length_bias with head=linear and head=length_controlled in one world per seed, and scores answers to
fresh prompts. Intervals are 95 %, Student's t over seeds; differences are paired by seed. Finished runs found in the
folder are used again. Writes results/length_bias_toy.json.
"""

import argparse
import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, spearmanr
from scipy.stats import t as student

import rlhf
from rlhf.toy.world import ToyWorld

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
HEADS = ("linear", "length_controlled")
SIZE, BIAS = 1500, 1.5
"""As in conf/experiment/length_bias.yaml: fresh prompts are the records behind these."""


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--fresh", type=int, default=400, help="records to measure on")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "length_bias")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {head: [] for head in HEADS}
    for seed in range(options.seeds):
        for head in HEADS:
            run = trained(options.runs.resolve() / f"{head}-{seed}", head, seed)
            found[head].append(measured(run, ToyWorld(size=SIZE + options.fresh, seed=seed, length_bias=BIAS), SIZE))
            print(head, seed, {k: round(v, 3) for k, v in found[head][-1].items()}, flush=True)
    table = {
        key: {head: interval([row[key] for row in rows]) for head, rows in found.items()}
        | {"difference": interval([b[key] - a[key] for a, b in zip(*found.values(), strict=True)])}
        for key in found[HEADS[0]][0]
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "length_bias_toy.json").write_text(json.dumps({"seeds": options.seeds, "found": table}, indent=2) + "\n")
    for key, row in table.items():
        cells = "   ".join(f"{name} {m:.3f} [{low:.3f}, {high:.3f}]" for name, (m, low, high) in row.items())
        print(f"{key:32} {cells}")


def trained(folder: Path, head: str, seed: int) -> Path:
    """A finished run in the folder."""
    if not (folder / "metrics.json").is_file():
        command = [
            sys.executable, "train.py", "experiment=length_bias", f"head={head}", f"seed={seed}", "logger=csv",
            f"hydra.run.dir={folder}", "trainer.enable_progress_bar=false", "threads=1",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


def measured(run: Path, world: ToyWorld, start: int) -> dict[str, float]:
    """How far the reward agrees with gold, and with length, on the records from `start`."""
    scorer = rlhf.load(run)
    right: dict[str, list[float]] = {"all": [], "shorter": [], "longer": []}
    with_length, with_gold = [], []
    for index in range(start, world.size):
        record = world.record(index)
        reward = np.array(scorer.score(record.prompt, [c.text for c in record.completions]))
        gold, length = np.array(world.gold(record)), np.array([len(c.text) for c in record.completions])
        for values, other in ((with_length, length), (with_gold, gold)):
            if len(np.unique(other)) > 1 and len(np.unique(rankdata(reward))) > 1:
                values.append(float(spearmanr(reward, other).statistic))
        for i, j in combinations(range(len(gold)), 2):
            better, worse = (i, j) if gold[i] > gold[j] else (j, i)
            if gold[i] == gold[j]:
                continue
            point = float(np.sign(reward[better] - reward[worse]) / 2 + 0.5)
            right["all"].append(point)
            if length[i] != length[j]:
                right["shorter" if length[better] < length[worse] else "longer"].append(point)
    metrics = json.loads((run / "metrics.json").read_text())
    return {
        "gold accuracy": float(np.mean(right["all"])),
        "gold accuracy, shorter better": float(np.mean(right["shorter"])),
        "gold accuracy, longer better": float(np.mean(right["longer"])),
        "spearman with gold": float(np.mean(with_gold)),
        "spearman with length": float(np.mean(with_length)),
        "accuracy against votes": metrics["test/pair_accuracy"],
        "votes, longer answer": metrics["test/baseline/length"],
        "NLL against votes": metrics["test/nll"],
    }


def interval(values: list[float]) -> list[float]:
    """Mean and its 95 % interval by Student's t."""
    mean, n = float(np.mean(values)), len(values)
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return [round(x, 4) for x in (mean, mean - half, mean + half)]


if __name__ == "__main__":
    main()
