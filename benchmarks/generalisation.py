"""Training options against shifts and probes: variations of training records, validation on a held-out domain.

    python benchmarks/generalisation.py [--seeds 3] [--fresh 200] [--runs runs/generalisation]

Per seed one toy world and three models of experiment=generalisation: plain, augment=rules (half the epochs, so as many
steps) and split=by_domain. Measured on prompts behind the training data: accuracy, ECE (the run's own temperature) and
accuracy on shifts (a domain never seen, another sampler, truncated, shuffled, long); what changes of style do to the
reward, in log-odds, in size; Spearman of reward and length. Intervals are 95 %, Student's t over seeds; differences are
paired by seed. Finished runs found in the folder are used again. Writes results/generalisation.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

from length_bias_toy import interval

import rlhf
from rlhf.annotate.aggregation import soft
from rlhf.data.toy import ToyWorld
from rlhf.judge import changes
from rlhf.judge.bias import probe
from rlhf.judge.collect import Pass, evidence
from rlhf.judge.evidence import Evidence
from rlhf.judge.metrics import evaluate
from rlhf.reward.run_source import RunSource

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
SIZE = 600
"""As in conf/experiment/generalisation.yaml: fresh prompts are the records behind these."""
ARMS = {
    "plain": (),
    "augment=rules": ("augment=rules", "epochs=2"),
    "split=by_domain": ("split=by_domain",),
}
SHIFTS = {"truncated": changes.truncated, "shuffled": changes.shuffled, "long": changes.long}
PROBES = {
    "filler": changes.filler, "flattery": changes.flattery, "markdown": changes.markdown,
    "repetition": changes.repetition,
}  # fmt: skip


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fresh", type=int, default=200, help="records to measure on")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "generalisation")
    options = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(options.seeds):
        for arm, words in ARMS.items():
            run = trained(options.runs.resolve() / f"{arm.replace('=', '-')}-{seed}", words, seed)
            rows[arm].append(measured(run, seed, options.fresh))
            print(arm, seed, {k: round(v, 3) for k, v in rows[arm][-1].items()}, flush=True)
    found = {
        key: {arm: interval([row[key] for row in several]) for arm, several in rows.items()}
        | {
            f"{arm} less plain": interval(
                [b[key] - a[key] for a, b in zip(rows["plain"], rows[arm], strict=True)]
            )
            for arm in list(ARMS)[1:]
        }
        for key in rows["plain"][0]
    }
    about = {"seeds": options.seeds, "fresh": options.fresh, "found": found}
    (RESULTS / "generalisation.json").write_text(json.dumps(about, indent=2) + "\n")
    for key, row in found.items():
        cells = "   ".join(f"{name} {m:.3f} [{low:.3f}, {high:.3f}]" for name, (m, low, high) in row.items())
        print(f"{key:24} {cells}")


def trained(folder: Path, words: tuple[str, ...], seed: int) -> Path:
    """The run in this folder, trained where it is not there yet."""
    if not (folder / "metrics.json").is_file():
        quiet = ("logger=csv", "threads=1", "trainer.enable_progress_bar=false", "bootstrap=10")
        command = ["train.py", "experiment=generalisation", f"seed={seed}", *words, *quiet]
        command = [sys.executable, *command, f"hydra.run.dir={folder}"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


def measured(run: Path, seed: int, fresh: int) -> dict[str, float]:
    """Accuracy, calibration and the effects of changes on records that no arm was trained on."""
    scorer = rlhf.load(run)
    source = RunSource(run.name, scorer)
    judge = Pass(source, soft, changes={**SHIFTS, **PROBES}, changed=fresh)
    world = ToyWorld(size=SIZE + fresh, seed=seed)
    entries = list(judge.entries(islice(world.records(), SIZE, None), fresh))
    sets = {
        name: evidence([e for e in entries if e.name == name], ("one",)) for name in ("", *SHIFTS, *PROBES)
    }
    for name, shifted in world.shifts().items():
        sets[name] = evidence(judge.entries(islice(shifted.records(), fresh)), ("one",))
    t = scorer.calibration.temperature
    found: dict[str, float] = {}
    for name in ("", *SHIFTS, *world.shifts()):
        m = evaluate(sets[name].scored, temperature=t, bootstrap=0)
        found |= {f"{name or 'ordinary'}/{key}": m[key] for key in ("pair_accuracy", "ece")}
    found["length/spearman"] = evaluate(sets[""].scored, bootstrap=0)["length/spearman"]
    return found | {f"probe/{name}": size(sets[""], sets[name], t) for name in PROBES}


def size(before: Evidence, after: Evidence, temperature: float) -> float:
    """|mean change of the reward| in log-odds."""
    found = probe(before, after, temperature, samples=0, seed=0)
    if found is None:
        raise SystemExit("no answer was scored before and after a change")
    return abs(found.effect.value)


if __name__ == "__main__":
    main()
