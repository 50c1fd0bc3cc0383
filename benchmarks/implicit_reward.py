"""A reward model against the implicit reward of a DPO policy: same data, same start, one report per seed.

    python benchmarks/implicit_reward.py [--seeds 3] [--size 1500] [--epochs 3] [--runs runs/implicit_reward]

Per seed: a policy from demonstrations (task=sft), and from its weights a reward model and a DPO policy on the same
preferences; `evaluate.py run=<reward model> against=[<implicit reward>]` puts both into one report. Intervals are
95 %, Student's t over seeds; differences are paired. Cost is the CPU time of training, and the parameters that scoring
needs. Finished runs found in the folder are used again. Writes results/implicit_reward.json.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
from pathlib import Path

from length_bias_toy import interval
from safetensors import safe_open

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
METRICS = ("pair_accuracy", "nll", "brier", "ece")
PLAIN = ("logger=csv", "threads=1")


def main() -> None:
    """Train, evaluate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1500, help="records")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "implicit_reward")
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        shared = (f"seed={seed}", f"data.size={options.size}", f"epochs={options.epochs}")
        rows.append(one(options.runs.resolve() / str(seed), shared))
        print(seed, {k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
    found = {key: interval([row[key] for row in rows]) for key in rows[0]}
    found |= {
        f"dpo less reward model/{key}": interval([row[f"dpo/{key}"] - row[f"reward/{key}"] for row in rows])
        for key in (*METRICS, "cpu_seconds", "parameters")
    }
    about = {"seeds": options.seeds, "size": options.size, "epochs": options.epochs}
    (RESULTS / "implicit_reward.json").write_text(json.dumps({**about, "found": found}, indent=2) + "\n")
    for key, (mean, low, high) in found.items():
        print(f"{key:40} {mean:.3f} [{low:.3f}, {high:.3f}]")


def one(folder: Path, shared: tuple[str, ...]) -> dict[str, float]:
    """Train the three, evaluate the two."""
    train = ["train.py", "experiment=implicit_reward", "trainer.enable_progress_bar=false", *shared, *PLAIN]
    start = ("model=local", f"model.path={folder}/sft/model")
    seconds = {
        "sft": run([*train, "task=sft"], folder / "sft"),
        "reward": run([*train, *start], folder / "reward"),
        "dpo": run([*train, *start, "task=dpo"], folder / "dpo"),
    }
    implicit = (
        "{_target_:rlhf.optimise.direct.implicit_reward.load_implicit,"
        f"policy:{folder}/dpo,reference:{folder}/sft,name:dpo,max_length:512}}"
    )
    run(["evaluate.py", f"run={folder}/reward", f"against=[{implicit}]", *PLAIN], folder / "report", "report.json")
    report = json.loads((folder / "report" / "report.json").read_text())
    sizes = {name: parameters(folder / name / "model") for name in ("reward", "dpo", "sft")}
    return {
        **{f"reward/{key}": report[f"model/reward/{key}"] for key in METRICS},
        **{f"dpo/{key}": report[f"model/dpo/{key}"] for key in METRICS},
        "longer answer/pair_accuracy": report["baseline/length"],
        "reward/cpu_seconds": seconds["reward"], "dpo/cpu_seconds": seconds["dpo"],
        "reward/parameters": sizes["reward"], "dpo/parameters": sizes["dpo"] + sizes["sft"],
    }  # fmt: skip


def run(command: list[str], folder: Path, result: str = "metrics.json") -> float:
    """CPU seconds of a command that fills the folder; those of the first time where it is full already."""
    note = folder / "cpu_seconds"
    if not (folder / result).is_file():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        full = [sys.executable, *command, f"hydra.run.dir={folder}"]
        subprocess.run(full, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        note.write_text(str(after.ru_utime - before.ru_utime))
    return float(note.read_text())


def parameters(model: Path) -> int:
    """Numbers in a model's weight files."""
    total = 0
    for path in model.glob("model*.safetensors"):
        with safe_open(path, "numpy") as file:
            total += sum(math.prod(file.get_slice(key).get_shape()) for key in list(file.keys()))
    return total


if __name__ == "__main__":
    main()
