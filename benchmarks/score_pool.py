"""Scoring a pool of texts: `rlhf.reward.scoring.pool.score_pool` against a plain transformers pipeline.

    python benchmarks/score_pool.py [--completions 2000] [--rounds 5] [--threads 2] [--stream 100000]

Both start from the same texts (k = 4 completions of a prompt) and end with a score each: tokenising, collating and
the forward pass are in the time. The pipeline gets its best batch size, found first. Both run in float32 and with
bfloat16 products, in turns. `--stream n` only scores n completions with us, to show that memory stays flat.
Writes results/score_pool.json, or results/score_pool_stream.json.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import peak_during
from train_step import quiet
from transformers import pipeline
from workload import Workload, llama

from rlhf.data.render import Renderer
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead
from rlhf.models.pretrained import Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.records import Comparison, Completion
from rlhf.reward.scoring.pool import score_pool
from rlhf.reward.scoring.scorer import Scorer

RESULTS = Path(__file__).parent / "results"
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
K = 4
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
"""Products in float32, or in bfloat16 by autocast on both sides."""


@dataclass(frozen=True)
class Texts:
    """A stream of prompts with K completions; `size` completions in all, drawn from a fixed set of 250 prompts."""

    size: int

    def records(self) -> Iterator[Comparison]:
        """The records from the start."""
        work = Workload(250, K)
        letters = np.array(list("abcdefgh ijklmnop.qrstuvwxyz"))

        def text(ids: list[int]) -> str:
            return "".join(letters[np.array(ids) % len(letters)])

        for i in range(self.size // K):
            prompt, responses = work.prompts[i % 250], work.responses[i % 250]
            completions = tuple(Completion(str(j), text(r)) for j, r in enumerate(responses))
            yield Comparison(str(i), text(prompt), completions, ())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--stream", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet()
    RESULTS.mkdir(exist_ok=True)
    name, found = ("score_pool_stream", stream(options.stream)) if options.stream else ("score_pool", race(options))
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=2))
    print(json.dumps(found, indent=2))


def race(options: argparse.Namespace) -> dict[str, Any]:
    """All four in turns; ratios are of the seconds of one round."""
    texts, few = Texts(options.completions), Texts(200)
    best = {p: min(BATCH_SIZES, key=lambda size, p=p: theirs(few, size, p)) for p in PRECISIONS}
    seconds: dict[str, list[float]] = {f"{who} {p}": [] for p in PRECISIONS for who in ("pipeline", "ours")}
    for _ in range(options.rounds):
        for precision in PRECISIONS:
            seconds[f"pipeline {precision}"].append(theirs(texts, best[precision], precision))
            seconds[f"ours {precision}"].append(ours(texts, precision))
    pairs = [(a, b) for a in seconds for b in seconds if a.startswith("ours") and b.startswith("pipeline")]
    return {
        "completions": options.completions,
        "threads": options.threads,
        "pipeline_batch_size": best,
        "completions_per_s": {name: options.completions / float(np.median(s)) for name, s in seconds.items()},
        "ratio_min_median_max": {f"{a} over {b}": _spread(seconds[b], seconds[a]) for a, b in pairs},
    }


def _spread(slow: list[float], fast: list[float]) -> list[float]:
    ratio = np.array(slow) / np.array(fast)
    return [float(f(ratio)) for f in (np.min, np.median, np.max)]


def stream(completions: int) -> dict[str, Any]:
    """Peak memory of scoring a tenth of the completions, and all of them."""
    seconds: list[float] = []
    sizes = (completions // 10, completions)
    peaks = {n: peak_during(partial(_timed, Texts(n), seconds)) for n in sizes}
    return {"completions": completions, "seconds": seconds[-1], "peak_mb": peaks}


def _timed(texts: Texts, seconds: list[float]) -> None:
    seconds.append(ours(texts, "float32"))


def ours(texts: Texts, precision: str) -> float:
    """Seconds to score all texts."""
    backbone = Backbone(llama())
    model = RewardModel(backbone, LinearHead(backbone.hidden_size))
    renderer = Renderer(Tiny().tokenizer(), max_length=1500)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        scorer = Scorer(model, renderer, Calibration.identity(), precision=PRECISIONS[precision])
        table = score_pool(scorer, texts, folder)
        seconds = time.perf_counter() - start
    assert len(table) == texts.size // K * K
    return seconds


def theirs(texts: Texts, batch_size: int, precision: str) -> float:
    """Seconds of a text-classification pipeline on the rendered texts."""
    tokenizer = Tiny().tokenizer()
    renderer = Renderer(tokenizer, max_length=1500)
    scorer = pipeline("text-classification", model=llama().eval(), tokenizer=tokenizer, device=-1)
    rendered = [renderer.text(r.prompt, c.text) for r in texts.records() for c in r.completions]
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        scores = list(scorer(rendered, batch_size=batch_size, function_to_apply="none"))
    assert len(scores) == len(rendered)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
