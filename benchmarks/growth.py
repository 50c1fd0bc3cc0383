"""How the cost of a training step grows with prompt length, completions per prompt, model width and batch.

    python benchmarks/growth.py [--rounds 3] [--threads 2]

Time is fitted as c * x^e on log-log axes; e = 1 is linear. Peak memory is measured in processes of their own:
against tokens per batch (it should be linear) and against records in the store (it should be flat).
Writes results/growth.json and results/growth.png.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import peak_during
from train_step import quiet
from workload import Workload, llama

from rlhf.data.collate import collate
from rlhf.data.order import TokenOrder
from rlhf.data.token_layout import shared
from rlhf.models.backbone import Backbone

RESULTS = Path(__file__).parent / "results"
LENGTHS = (50, 100, 200, 400, 800)
COMPLETIONS = (1, 2, 4, 8, 16)
WIDTHS = (128, 256, 512, 1024)
BUDGETS = (2_000, 4_000, 8_000, 16_000)
RECORDS = (1_000, 10_000, 100_000)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", nargs=2, type=int, metavar=("BUDGET", "RECORDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet()
    if options.memory:
        print(peak_memory(*options.memory))
        return
    base = {"groups": 8, "k": 4}
    curves = {
        "prompt tokens (median)": curve(LENGTHS, lambda x: (256, Workload(**base, prompt_median=x)), options.rounds),
        "completions per prompt": curve(COMPLETIONS, lambda x: (256, Workload(8, x)), options.rounds),
        "model width": curve(WIDTHS, lambda x: (x, Workload(4, 4)), options.rounds),
    }
    memory = {
        "tokens per batch": {b: in_a_process(b, 1_000, options.threads) for b in BUDGETS},
        "records in the store": {r: in_a_process(4_000, r, options.threads) for r in RECORDS},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "growth.json").write_text(json.dumps({"seconds": curves, "peak_mb": memory}, indent=2))
    for name, found in curves.items():
        print(f"{name}: seconds ~ x^{found['exponent']:.2f}, unique tokens ~ x^{found['token_exponent']:.2f}")
    for name, sizes in memory.items():
        print(f"peak MB above the start by {name}: " + ", ".join(f"{x}: {mb:.0f}" for x, mb in sizes.items()))
    plot(curves, memory, RESULTS / "growth.png")


def curve(values: tuple[int, ...], case: Any, rounds: int) -> dict[str, Any]:
    """Best seconds of a step at each value, interleaved, and the exponents of the fits."""
    cases = [case(v) for v in values]
    steps = [(Backbone(llama(width)), shared(work.prompts, work.responses)) for width, work in cases]
    seconds = [float("inf")] * len(values)
    for _ in range(rounds + 1):
        for i, (backbone, tokens) in enumerate(steps):
            seconds[i] = min(seconds[i], step(backbone, tokens))
    sizes = [work.unique_tokens for _, work in cases]
    slope, token_slope = (float(np.polyfit(np.log(values), np.log(y), 1)[0]) for y in (seconds, sizes))
    return {
        "x": list(values),
        "seconds": seconds,
        "unique_tokens": sizes,
        "exponent": slope,
        "token_exponent": token_slope,
    }


def step(backbone: Backbone, tokens: Any) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    backbone(tokens).square().mean().backward()
    backbone.zero_grad()
    return time.perf_counter() - start


def in_a_process(budget: int, records: int, threads: int) -> float:
    """Peak memory of an epoch of steps in a process of its own, in MB above its start."""
    command = [sys.executable, __file__, "--threads", str(threads), "--memory", str(budget), str(records)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def peak_memory(budget: int, records: int) -> float:
    """The same, in this process: 12 steps spread over a store of `records` records."""
    backbone = Backbone(llama())
    with tempfile.TemporaryDirectory() as folder:
        few = Workload(1_000, 4)
        rows = repeat(few, records, Path(folder))
        step(backbone, shared(few.prompts[:1], few.responses[:1]))

        def epoch() -> None:
            order = TokenOrder(rows.tokens(), budget=budget, seed=0)
            for i, numbers in enumerate(order):
                if i % max(1, len(order) // 12) == 0:
                    step(backbone, collate(rows[numbers], layout=shared, denominator=1.0).tokens)

        return peak_during(epoch)


def repeat(work: Workload, records: int, folder: Path) -> Any:
    """A store of `records` rows."""
    from rlhf.data.store import SPLITS, Rows, write_store

    base = work.store(folder / "base")
    rows = base[list(range(len(base)))]
    names = [n for n in rows if n != "row"]

    def stream() -> Any:
        for i in range(records):
            yield SPLITS[0], {n: rows[n][i % len(base)] for n in names}

    write_store(folder / "many", stream(), dict)
    return Rows(folder / "many" / "train.arrow")


def plot(curves: dict[str, Any], memory: dict[str, Any], path: Path) -> None:
    """One panel per curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(curves) + len(memory), figsize=(18, 3.4))
    for axis, (name, found) in zip(axes, curves.items(), strict=False):
        axis.loglog(found["x"], found["seconds"], "o-", color="#2b6cb0")
        axis.set(xlabel=name, ylabel="seconds of a step", title=f"exponent {found['exponent']:.2f}")
    for axis, (name, sizes) in zip(axes[len(curves) :], memory.items(), strict=True):
        axis.plot(list(sizes), list(sizes.values()), "o-", color="#2b6cb0")
        axis.set(xlabel=name, ylabel="peak MB above the start", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
