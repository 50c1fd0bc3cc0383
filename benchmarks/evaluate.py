"""How long a report on cached scores takes: python benchmarks/evaluate.py [--pairs 100000]

Synthetic scores (no model runs): prompts with 2 to 4 answers, five members, two detectors, another model, and 500
changed records for every shift and probe. Prints seconds per section, for the figures and files, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from hydra.utils import get_object
from omegaconf import OmegaConf

from rlhf.assemble import CONF
from rlhf.judge.evidence import Evidence, Judged
from rlhf.judge.metrics import evaluate
from rlhf.judge.report import write_report
from rlhf.judge.table import Scored, ScoredGroup


def world(pairs: int, seed: int = 0) -> Evidence:
    rng = np.random.default_rng(seed)
    groups, count = [], 0
    while count < pairs:
        k = int(rng.integers(2, 5))
        length = rng.integers(20, 400, k)
        truth = rng.normal(size=k) + length / 400
        share = np.round(5 / (1 + np.exp(truth[None, :] - truth[:, None]))) / 5
        share = np.triu(share, 1) + np.tril(1 - np.triu(share, 1).T, -1)
        observed = ~np.eye(k, dtype=bool)
        name = f"prompt{len(groups)}"
        reward = truth + rng.normal(size=k)
        rank = np.argsort(np.argsort(-truth))
        groups.append(
            ScoredGroup(
                name,
                f"domain{len(groups) % 6}",
                reward,
                length,
                rank,
                share,
                0 * share,
                observed,
                5.0 * observed,
            )
        )
        count += k * (k - 1) // 2
    scored = Scored.from_groups(groups)
    n, g = len(scored.reward), len(groups)
    starts = np.searchsorted(scored.group, np.arange(g))
    return Evidence(
        scored=scored, record=np.arange(g), place=np.arange(n) - starts[scored.group],
        prompt_id=[x.prompt for x in groups], completion_id=[f"c{i}" for i in range(n)],
        prompt_hash=[x.prompt for x in groups], source=rng.integers(0, 3, n), sources=("a", "b", "c"),
        annotators=np.zeros(g, int), annotator_sets=(("ann", "ben"),), tokens=scored.length.astype(float),
        trimmed=np.zeros(g, bool), finished=np.ones(n, bool), gold=np.full(n, np.nan),
        members=scored.reward + 0.5 * rng.normal(size=(5, n)), member_names=tuple(f"member {i}" for i in range(5)),
        strange={name: rng.chisquare(32, n) for name in ("mahalanobis", "laplace")},
        others={"bag of words": scored.reward + rng.normal(size=n)}, counts={"records": g},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)  # for `make bench`; nothing here uses them
    pairs = parser.parse_args().pairs
    seconds: dict[str, float] = {}
    everything, small = world(pairs), world(2000, seed=1)
    config = OmegaConf.load(CONF / "evaluate.yaml")
    begun = last = time.perf_counter()
    worked = time.process_time()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[name], last = now - last, now

    judged = Judged("synthetic", everything, 1.3, evaluate(everything.scored, temperature=1.3))
    lap("metrics of the contract")
    probes = dict.fromkeys(config.probes, replace(small, record=everything.record[: len(small.record)]))
    judged = replace(judged, shifts=dict.fromkeys(config.shifts, small), probes=probes)
    sections = []
    for name, section in config.sections.items():
        made = get_object(section._target_)(judged)
        sections += [made] if made is not None else []
        lap(name)
    with tempfile.TemporaryDirectory() as folder:
        report = write_report(Path(folder), judged, sections, "synthetic")
        lap("figures and files")
    result = {
        "pairs": len(everything.scored.first),
        "keys": len(report.metrics),
        "seconds": round(time.perf_counter() - begun, 2),
        "cpu_seconds": round(time.process_time() - worked, 2),
        "seconds_of": {name: round(value, 2) for name, value in seconds.items()},
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    out = Path(__file__).parent / "results" / "evaluate.json"
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
