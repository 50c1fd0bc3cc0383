"""Training speed against TRL's RewardTrainer: same model, data, optimizer and comparisons, interleaved rounds.

    python benchmarks/train_step.py [--rounds 5] [--threads 2] [--models llama minilm] [--k 2 4]

A round is one epoch of every contestant in turn; ratios are taken within a round and given as minimum, median and
maximum over rounds, so that a machine that slows down slows all of them. Absolute times mean nothing elsewhere.
Writes results/train_step.json and results/train_step.png.
"""

import argparse
import contextlib
import io
import json
import logging
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from contestants import BATCH, CONTESTANTS, Contestant
from memory import peak_during
from workload import Workload, llama, minilm

from rlhf.data.token_layout import packed, padded, shared
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead
from rlhf.models.reward_model import RewardModel

RESULTS = Path(__file__).parent / "results"
MODELS: dict[str, Callable[[], Any]] = {"llama": llama, "minilm": minilm}
GROUPS = {("llama", 2): 32, ("llama", 4): 16, ("minilm", 2): 16, ("minilm", 4): 4}
"""Prompts of one epoch: a few seconds for us."""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--k", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet()
    if options.memory_of:
        print(json.dumps(peak_memory(options.memory_of, options.models[0], options.k[0])))
        return
    results: dict[str, Any] = {"machine": machine(options.threads), "batch": BATCH, "cases": {}}
    for name in options.models:
        for k in options.k:
            work = Workload(GROUPS[name, k], k)
            case = measure(name, work, options.rounds)
            case["memory_mb"] = {c.name: memory_in_a_process(c.name, name, k, options.threads) for c in CONTESTANTS}
            results["cases"][f"{name} k={k}"] = case
            print(table(f"{name}, k={k}", case, results["machine"]["matmul_gflops"]), flush=True)
    for name in options.models:
        results |= step_ratio(name, results)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "train_step.json").write_text(json.dumps(results, indent=2))
    plot(results, RESULTS / "train_step.png")


def quiet() -> None:
    """Neither trainer's chatter."""
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def machine(threads: int) -> dict[str, Any]:
    """What ran, and its matrix-product peak."""
    versions = {m: sys.modules[m].__version__ for m in ("torch", "transformers", "pytorch_lightning")}
    import trl

    peaks = {str(d).removeprefix("torch."): matmul_peak(d) for d in (torch.float32, torch.bfloat16)}
    cpu = platform.processor() or platform.machine()
    return {"cpu": cpu, "threads": threads, **versions, "trl": trl.__version__, "matmul_gflops": peaks}


def matmul_peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Best of ten products of two size x size matrices, in GFLOP/s."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def epoch(contestant: Contestant, name: str, work: Workload) -> float:
    """Seconds of one epoch from the same initial weights."""
    with contextlib.redirect_stdout(io.StringIO()):
        return contestant.epoch(MODELS[name](), work)


def measure(name: str, work: Workload, rounds: int) -> dict[str, Any]:
    """Seconds of every contestant and round, and what they mean."""
    warm = Workload(BATCH, 2, seed=9, prompt_median=20)
    for contestant in CONTESTANTS:
        epoch(contestant, name, warm)
    seconds: dict[str, list[float]] = {c.name: [] for c in CONTESTANTS}
    for _ in range(rounds):
        for contestant in CONTESTANTS:
            seconds[contestant.name].append(epoch(contestant, name, work))
    return {
        "groups": work.groups,
        "comparisons": work.comparisons,
        "sequence_tokens": work.sequence_tokens,
        "unique_tokens": work.unique_tokens,
        "linear_gflop_per_1000_tokens": linear_flop(name) / 1e6,
        "waste": waste(work),
        "seconds": seconds,
        "ratios": ratios(seconds),
        "comparisons_per_s": {n: work.comparisons / float(np.median(s)) for n, s in seconds.items()},
    }


def linear_flop(name: str) -> float:
    """Forward and backward FLOP of one token in the linear layers (6 per weight); attention is not counted."""
    model = MODELS[name]()
    linear = (m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.out_features > 1)
    return 6.0 * sum(m.weight.numel() for m in linear)


def waste(work: Workload) -> dict[str, float]:
    """Tokens that each layout computes, over the tokens of all completions with every prompt once."""
    unique, starts = work.unique_tokens, range(0, work.groups, BATCH)
    batches = [(work.prompts[s : s + BATCH], work.responses[s : s + BATCH]) for s in starts]
    rows = work.pairs()
    trl = 0
    for s in range(0, work.comparisons, BATCH):
        block = rows["chosen_ids"][s : s + BATCH] + rows["rejected_ids"][s : s + BATCH]
        trl += len(block) * max(map(len, block))
    return {
        "TRL: padded pairs": trl / unique,
        "padded": sum(padded(p, r, pad_id=0).input_ids.numel() for p, r in batches) / unique,
        "packed": sum(packed(p, r).input_ids.numel() for p, r in batches) / unique,
        "shared": sum(shared(p, r).input_ids.numel() for p, r in batches) / unique,
    }


def ratios(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Minimum, median, maximum over rounds of (their seconds / our seconds)."""
    ours = ("ours, fp32", "ours, bf16")
    found = {}
    for mine in ours:
        for theirs in (n for n in seconds if n != mine):
            each = np.array(seconds[theirs]) / np.array(seconds[mine])
            found[f"{mine} over {theirs}"] = [float(f(each)) for f in (np.min, np.median, np.max)]
    return found


def step_ratio(name: str, results: dict[str, Any]) -> dict[str, float]:
    """Flat keys: medians of the ratios to TRL's defaults of the same precision and to its best, and two checks.

    `gradient_error` is of the shared (encoders: packed) layout against one sequence at a time; `matmul_peak_share` is
    of our float32 step at k = 4. Keys of other models than the Llama begin with their name.
    """
    prefix = "" if name == "llama" else f"{name}/"
    cases = {k: results["cases"].get(f"{name} k={k}") for k in (2, 4)}
    defaults = {"fp32": "TRL defaults, fp32", "bf16": "TRL as shipped (bf16)"}
    flat = {}
    for k, case in cases.items():
        for precision, default in defaults.items():
            for key, theirs in (("trl_default", default), ("trl_best", "TRL best (bf16, by length)")):
                if case is not None:
                    ratio = case["ratios"][f"ours, {precision} over {theirs}"][1]
                    flat[f"{prefix}ratio/k{k}/{precision}/{key}"] = ratio
    flat[f"{prefix}gradient_error"] = gradient_error(name)
    if cases[4] is not None:
        seconds = float(np.median(cases[4]["seconds"]["ours, fp32"]))
        gflops = cases[4]["unique_tokens"] / seconds * cases[4]["linear_gflop_per_1000_tokens"] / 1000
        flat[f"{prefix}matmul_peak_share"] = gflops / results["machine"]["matmul_gflops"]["float32"]
    return flat


def gradient_error(name: str) -> float:
    """Relative error of the global gradient of a pairwise loss over 4 prompts with 4 completions, in float32."""
    work = Workload(4, 4, seed=5)
    layout = packed if MODELS[name]().config.model_type == "bert" else shared
    whole = _gradient(name, [layout(work.prompts, work.responses)])
    rows = [padded([p], [[r]], pad_id=0) for p, rs in zip(work.prompts, work.responses, strict=True) for r in rs]
    alone = _gradient(name, rows)
    return float((whole - alone).norm() / alone.norm())


def _gradient(name: str, parts: list[Any]) -> torch.Tensor:
    torch.manual_seed(0)
    model = RewardModel(Backbone(MODELS[name]()), LinearHead(256 if name == "llama" else 384))
    reward = torch.cat([model(part) for part in parts]).reshape(-1, 4)
    gaps = (reward[:, :, None] - reward[:, None, :])[:, *torch.triu_indices(4, 4, 1)]
    torch.nn.functional.softplus(-gaps).mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def memory_in_a_process(contestant: str, name: str, k: int, threads: int) -> float:
    """Peak resident memory above the start, in MB, of one epoch in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", contestant, "--models", name, "--k", str(k)]
    done = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak_memory(contestant: str, name: str, k: int) -> float:
    """The same, in this process: the kernel's high-water mark is reset after a small epoch."""
    work = Workload(GROUPS[name, k], k)
    chosen = next(c for c in CONTESTANTS if c.name == contestant)
    epoch(chosen, name, Workload(2, 2, seed=9, prompt_median=10))
    return peak_during(lambda: epoch(chosen, name, work))


def table(title: str, case: dict[str, Any], peaks: dict[str, float]) -> str:
    """One case as text. Tokens and FLOP are those needed (linear layers, every prompt once), whoever computes more."""

    def peak(name: str) -> float:
        return peaks["bfloat16" if "bf16" in name else "float32"]

    lines = [
        f"\n{title}: {case['groups']} prompts, {case['comparisons']} comparisons, "
        f"{case['sequence_tokens']} tokens of completions with prompts, {case['unique_tokens']} with prompts once",
        "tokens computed / tokens needed: " + ", ".join(f"{n} {v:.2f}" for n, v in case["waste"].items()),
        f"{'':30}{'comparisons/s':>14}{'tokens/s':>10}{'useful GFLOP/s':>16}{'of peak':>9}{'peak MB':>9}",
    ]
    for name, seconds in case["seconds"].items():
        median = float(np.median(seconds))
        rate = case["unique_tokens"] / median
        gflops = rate * case["linear_gflop_per_1000_tokens"] / 1000
        lines.append(
            f"{name:30}{case['comparisons'] / median:14.2f}{rate:10.0f}{gflops:16.1f}"
            f"{gflops / peak(name):9.0%}{case['memory_mb'][name]:9.0f}"
        )
    lines.append("ratios of seconds, minimum / median / maximum over rounds:")
    lines += [f"  {n:55}" + " / ".join(f"{v:.2f}" for v in r) for n, r in case["ratios"].items()]
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Comparisons per second, one panel per case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cases = results["cases"]
    figure, axes = plt.subplots(1, len(cases), figsize=(4.2 * len(cases), 3.4), squeeze=False)
    for axis, (title, case) in zip(axes[0], cases.items(), strict=True):
        names = list(case["seconds"])
        rates = [case["comparisons"] / np.array(case["seconds"][n]) for n in names]
        middle = [float(np.median(r)) for r in rates]
        spread = [[m - r.min() for m, r in zip(middle, rates, strict=True)],
                  [r.max() - m for m, r in zip(middle, rates, strict=True)]]  # fmt: skip
        colours = ["#2b6cb0" if n.startswith("ours") else "#a0aec0" for n in names]
        axis.barh(names, middle, xerr=spread, color=colours)
        axis.invert_yaxis()
        axis.set(title=title, xlabel="comparisons per second")
        if axis is not axes[0][0]:
            axis.set_yticklabels([])
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
