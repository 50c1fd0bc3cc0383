"""How long evaluating cached scores takes, and how memory grows: without a model.

    python benchmarks/evaluation.py [--pairs 100000]

Two ways. `live`: what evaluate.py does with a model, whose rewards here lie in an array: records are read, votes become
labels, numbers are kept, every section of conf/evaluate.yaml that needs no model is computed with 1,000 resamples, and
report.json, report.html, figures and examples.parquet are written. `scores`: the command `python evaluate.py
scores=<examples.parquet>` on what the live way left, from the start of the interpreter to its end; both reports must
hold the same numbers. The bar is 10 s for 100,000 comparisons, in CPU time of one core. Memory of the live way is the
rise of the resident set, for growing numbers of records and for texts of 20 times the length; of the command its peak.
Linux only. Writes results/evaluate.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from memory import peak_during

from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.report.section import Evaluation
from rlhf.evaluation.report.sections.accuracy import accuracy, slices
from rlhf.evaluation.report.sections.best_of_n import best_of_n
from rlhf.evaluation.report.sections.bias import bias
from rlhf.evaluation.report.sections.calibration import calibration, selective
from rlhf.evaluation.report.sections.ensemble_members import comparison
from rlhf.evaluation.report.sections.mistakes import mistakes
from rlhf.evaluation.report.sections.rankings import rankings, rewards
from rlhf.evaluation.run import EvaluationRun, SectionFunction
from rlhf.evaluation.score_pass import Pass
from rlhf.evaluation.score_source import Scores
from rlhf.labels.aggregation import soft
from rlhf.records import Comparison, Completion, Vote
from rlhf.stats.arrays import Floats

RESULTS = Path(__file__).parent / "results"
BAR = 10.0
"""Seconds for 100,000 comparisons."""
PER_PROMPT = 5
"""Comparisons of a prompt: the cluster that intervals resample."""
VOTES = 3
SECTIONS: dict[str, SectionFunction] = {
    "accuracy": accuracy, "slices": slices, "rankings": rankings, "calibration": calibration, "selective": selective,
    "comparison": comparison, "bias": bias, "rewards": rewards, "best_of_n": best_of_n, "mistakes": mistakes,
}  # fmt: skip


@dataclass
class Cached:
    """Comparisons with three votes each, and the rewards that a model once gave: both follow from the number.

    pairs   how many
    reward  [2 · pairs]
    length  factor on the 40 to 400 characters of an answer
    """

    pairs: int
    reward: Floats
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
            answers = tuple(Completion(f"c{k}", text[: sizes[(2 * i + k) % 991]], {"model": "ab"[k]}) for k in (0, 1))
            votes = tuple(
                Vote(f"w{v}", pair=("c0", "c1"), choice="c0" if chance[(i * VOTES + v) % 997] < win[i] else "c1")
                for v in range(VOTES)
            )
            yield Comparison(f"p{i}", f"prompt {i // PER_PROMPT}", answers, votes, f"domain {i % 7}", {"number": i})

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Looked up."""
        return [Scores.plain(self.reward[2 * r.meta["number"] :][:2].tolist()) for r in records]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    options = parser.parse_args()
    tenth = options.pairs // 10
    with tempfile.TemporaryDirectory() as folder:
        sizes = {str(n): (n, 1) for n in (tenth, options.pairs)} | {f"{tenth}, 20 times the text": (tenth, 20)}
        live = {name: apart(n, length, Path(folder) / name) for name, (n, length) in sizes.items()}
        scores = {str(n): command(Path(folder) / str(n)) for n in (tenth, options.pairs)}
    more = live[str(options.pairs)]["peak_mb"] - live[str(tenth)]["peak_mb"]
    found = {"bar": BAR, "bytes_per_pair": more / (options.pairs - tenth) * 1e6, "live": live, "scores": scores}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "evaluate.json").write_text(json.dumps(found, indent=2) + "\n")
    for way, rows in (("live", live), ("scores", scores)):
        for name, row in rows.items():
            print(f"{way:7} {name:26} " + "  ".join(f"{key} {value:.1f}" for key, value in row.items()))
    print(f"{found['bytes_per_pair']:.0f} bytes for one more pair; the bar is {BAR:.0f} s for 100000")


def command(live: Path) -> dict[str, float]:
    """CPU seconds, seconds by the clock and peak memory in MB of evaluating the scores of a live report again."""
    again = live / "again"
    script = Path(__file__).parent.parent / "evaluate.py"
    words = [f"scores={live / 'examples.parquet'}", "logger=csv", f"hydra.run.dir={again}"]
    wall = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(script), *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - wall
    one, two = (json.loads((folder / "report.json").read_text()) for folder in (live, again))
    if status or one != two:
        raise SystemExit("the report of the scores is not the report they come from")
    return {"cpu": used.ru_utime + used.ru_stime, "clock": wall, "peak_mb": used.ru_maxrss / 1024}


def apart(pairs: int, length: int, folder: Path) -> dict[str, float]:
    """`measured` in a process of its own: memory that one run leaves behind would hide that of the next."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measured, pairs, length, folder).result()


def measured(pairs: int, length: int, folder: Path) -> dict[str, float]:
    """CPU seconds of every stage of a report, seconds by the clock, and the rise of the resident set in MB."""
    with tempfile.TemporaryDirectory() as other:
        evaluate_cached(100, 1, Path(other))  # imports and font caches
    found: dict[str, float] = {}
    wall = time.perf_counter()
    peak = peak_during(lambda: found.update(evaluate_cached(pairs, length, folder)))
    return found | {"clock": time.perf_counter() - wall, "peak_mb": peak}


def evaluate_cached(pairs: int, length: int, folder: Path) -> dict[str, float]:
    """One whole report; CPU seconds until the scores are columns, of the numbers, and of the files."""
    marks = [time.process_time()]

    def mark(evaluation: Evaluation) -> None:
        marks.append(time.process_time())

    cached = Cached.draw(pairs, length)
    made = {"start": mark, **SECTIONS, "end": mark}
    scoring = Pass(cached, soft)
    EvaluationRun(folder, scoring, cached, ("cached",), made, about="cached scores", part="all")()
    marks.append(time.process_time())
    columns, numbers, files = np.diff(marks).tolist()
    return {"columns": columns, "sections": numbers, "files": files, "cpu": marks[-1] - marks[0]}


if __name__ == "__main__":
    main()
