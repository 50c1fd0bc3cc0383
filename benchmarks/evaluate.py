"""How long judging cached scores takes, and how memory grows: `rlhf.judge.judging` without a model.

    python benchmarks/evaluate.py [--pairs 100000] [--rounds 3]

Rewards of a made-up model lie in an array (the cache); everything else is what evaluate.py does: records are read,
votes become labels, numbers are kept, every section of conf/evaluate.yaml that needs no model is computed with 1,000
resamples, and report.json, report.html, figures and examples.parquet are written. The bar is 10 s for 100,000
comparisons. Memory is the rise of the resident set, for growing numbers of records and for texts of 20 times the
length. Linux only. Writes results/evaluate.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from memory import peak_during

from rlhf.annotate.aggregation import soft
from rlhf.judge.calibration import Calibration
from rlhf.judge.judging import Judging, SectionMaker
from rlhf.judge.score_source import Scores
from rlhf.judge.sections.accuracy import headline, parts
from rlhf.judge.sections.best_of_n import best_of_n
from rlhf.judge.sections.biases import bias
from rlhf.judge.sections.calibrated import calibration, selective
from rlhf.judge.sections.members import comparison
from rlhf.judge.sections.mistakes import mistakes
from rlhf.judge.sections.rankings import rankings, rewards
from rlhf.record_types import Comparison, Completion, Vote

RESULTS = Path(__file__).parent / "results"
BAR = 10.0
"""Seconds for 100,000 comparisons."""
PER_PROMPT = 5
"""Comparisons of a prompt: the cluster that intervals resample."""
VOTES = 3
SECTIONS: dict[str, SectionMaker] = {
    "headline": headline, "parts": parts, "rankings": rankings, "calibration": calibration, "selective": selective,
    "comparison": comparison, "bias": bias, "rewards": rewards, "best_of_n": best_of_n, "mistakes": mistakes,
}  # fmt: skip


@dataclass(frozen=True)
class Cached:
    """Comparisons with three votes each, and the rewards that a model once gave: both follow from the number.

    pairs   how many
    reward  [2 · pairs]
    length  factor on the 40 to 400 characters of an answer
    """

    pairs: int
    reward: np.ndarray
    length: int = 1
    name: str = "cached"
    calibration: Calibration | None = None

    @classmethod
    def draw(cls, pairs: int, length: int = 1) -> Cached:
        """Rewards drawn from a normal distribution."""
        return cls(pairs, np.random.default_rng(0).normal(size=2 * pairs), length)

    def records(self) -> Iterator[Comparison]:
        """Votes are Bradley-Terry of the rewards, as far as a table of 997 uniform numbers goes."""
        rng = np.random.default_rng(1)
        chance, sizes = rng.random(997), rng.integers(40, 400, 991) * self.length
        win = 1 / (1 + np.exp(self.reward[1::2] - self.reward[::2]))
        text = "x" * (400 * self.length)
        for i in range(self.pairs):
            answers = tuple(
                Completion(f"c{k}", text[: sizes[(2 * i + k) % 991]], {"model": "ab"[k]}) for k in (0, 1)
            )
            votes = tuple(
                Vote(
                    f"w{v}",
                    pair=("c0", "c1"),
                    choice="c0" if chance[(i * VOTES + v) % 997] < win[i] else "c1",
                )
                for v in range(VOTES)
            )
            yield Comparison(
                f"p{i}", f"prompt {i // PER_PROMPT}", answers, votes, f"domain {i % 7}", {"number": i}
            )

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Looked up."""
        return [Scores.plain(self.reward[2 * r.meta["number"] :][:2]) for r in records]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    judge(1000)  # imports and font caches
    wall, cpu = zip(*(timed(options.pairs) for _ in range(options.rounds)), strict=True)
    rows = {n: megabytes(n) for n in (options.pairs // 10, options.pairs // 3, options.pairs)}
    long = megabytes(options.pairs // 3, length=20)
    slope = (rows[options.pairs] - rows[options.pairs // 10]) / (0.9 * options.pairs) * 1e6
    found = {
        "pairs": options.pairs, "seconds": min(wall), "seconds_cpu": min(cpu), "seconds_every": wall, "bar": BAR,
        "peak_mb": rows, "bytes_per_pair": slope, f"peak_mb_of_{options.pairs // 3}_with_20_times_the_text": long,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "evaluate.json").write_text(json.dumps(found, indent=2) + "\n")
    print(f"{options.pairs} comparisons: {min(wall):.1f} s, {min(cpu):.1f} s of CPU (bar: {BAR:.0f} s)")
    for n, peak in rows.items():
        print(f"{n:8} pairs: {peak:6.0f} MB over the start")
    print(f"20 times the text: {long:.0f} MB at {options.pairs // 3}; {slope:.0f} bytes for one more pair")


def timed(pairs: int) -> tuple[float, float]:
    """Seconds, by the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    judge(pairs)
    return time.perf_counter() - wall, time.process_time() - cpu


def megabytes(pairs: int, length: int = 1) -> float:
    """Rise of the resident set while judging."""
    return peak_during(lambda: judge(pairs, length))


def judge(pairs: int, length: int = 1) -> None:
    """One whole report."""
    cached = Cached.draw(pairs, length)
    with tempfile.TemporaryDirectory() as folder:
        Judging(
            Path(folder), cached, cached, soft, ("cached",), SECTIONS, about="cached scores", part="all"
        )()


if __name__ == "__main__":
    main()
