"""Training options against shifts and probes: variations of training records, a held-out domain, red-team votes.

    python benchmarks/generalisation.py [--seeds 3] [--fresh 200] [--runs runs/generalisation] [--paraphraser <model>]

Per seed one toy world and these models of experiment=generalisation:

    plain             600 records
    augment=rules     every training record once more, varied by rules; half the epochs, so as many steps
    augment=model     the same with prompts in the words of the model in the folder `--paraphraser`, which follows
                      instructions; left out without one
    split=by_domain   validation is a domain of its own
    red team          and the votes on the red-team set of `plain` (evaluate.py red_team=), by simulated annotators
    as many votes     and as many votes by the same annotators on new ordinary pairs; as many epochs as `red team`

Measured on prompts behind the training data: accuracy, ECE (the run's own temperature) and accuracy on shifts (a domain
never seen, another sampler, truncated, shuffled, long); what changes of style do to the reward, in log-odds, in size;
Spearman of reward and length. Intervals are 95 %, Student's t over seeds; differences are paired by seed. Finished runs
and measurements found in the folder are used again. Writes results/generalisation.json.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

from length_bias_toy import interval

import rlhf
from rlhf import records
from rlhf.evaluation import perturbations
from rlhf.evaluation.metrics.bias import probe
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.metrics.scored import Results
from rlhf.evaluation.score_pass import Pass, results_from
from rlhf.labels.aggregation import soft
from rlhf.records import Comparison
from rlhf.reward.scoring.score_source import RunSource
from rlhf.toy.world import ToyWorld, gold_reward

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
SIZE = 600
"""As in conf/experiment/generalisation.yaml: fresh prompts are the records behind these."""
BEHIND = 10_000
"""Where the new ordinary pairs begin: behind everything that is measured."""
CONDITIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "augment=rules": ("augment=rules", "epochs=2"),
    "split=by_domain": ("split=by_domain",),
}
VOTED = ("red team", "as many votes")
LESS = {"as many votes": "red team"}
"""What is compared with each other besides everything with plain."""
INSTRUCTION = """Rewrite the request in other words. Do not answer it.

Request: For Tina: How far is it from Bonn to Ulm?
Rewrite: Tina wants to know: what is the distance between Bonn and Ulm?

Request: Note 7 from Karl: Tell Rita that the party is at noon.
Rewrite: Note 7 from Karl: Let Rita know that the party will be at noon.

Request: {}
Rewrite:"""
"""Examples help small models; nothing in them is of the toy world."""
SHIFTS = {"truncated": perturbations.truncated, "shuffled": perturbations.shuffled, "long": perturbations.long}
PROBES = {
    "filler": perturbations.filler,
    "flattery": perturbations.flattery,
    "markdown": perturbations.markdown,
    "repetition": perturbations.repetition,
    "refusal": perturbations.refusal,
    "truncated_end": perturbations.truncated_end,
    "swapped": perturbations.swapped,
}


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fresh", type=int, default=200, help="records to measure on")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "generalisation")
    parser.add_argument("--paraphraser", type=Path, help="folder of a model that follows instructions")
    options = parser.parse_args()
    conditions = CONDITIONS | ({"augment=model": paraphrased(options.paraphraser)} if options.paraphraser else {})
    rows: dict[str, list[dict[str, float]]] = {condition: [] for condition in (*conditions, *VOTED)}
    for seed in range(options.seeds):
        folder = options.runs.resolve() / f"seed-{seed}"
        runs = {
            condition: trained(folder / condition.replace("=", "-"), words, seed)
            for condition, words in conditions.items()
        }
        for condition, files in voted(folder, seed).items():
            data = f"data.path=[{','.join(map(str, files))}]"
            runs[condition] = trained(
                folder / condition.replace(" ", "-"), ("data=jsonl", data, "~data.size", "~data.seed"), seed
            )
        for condition, run in runs.items():
            rows[condition].append(measured(run, seed, options.fresh))
            print(condition, seed, {k: round(v, 3) for k, v in rows[condition][-1].items()}, flush=True)
    found = {key: compared({condition: [row[key] for row in several] for condition, several in rows.items()})
             for key in rows["plain"][0]}  # fmt: skip
    about = {"seeds": options.seeds, "fresh": options.fresh, "found": found}
    (RESULTS / "generalisation.json").write_text(json.dumps(about, indent=2) + "\n")
    for key, row in found.items():
        cells = "   ".join(f"{name} {m:.3f} [{low:.3f}, {high:.3f}]" for name, (m, low, high) in row.items())
        print(f"{key:24} {cells}")


def compared(values: dict[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """Mean and interval of every condition's values over seeds, and of the differences."""
    pairs = [(condition, "plain") for condition in values if condition != "plain"] + [(b, a) for a, b in LESS.items()]
    return {condition: interval(several) for condition, several in values.items()} | {
        f"{b} less {a}": interval([y - x for x, y in zip(values[a], values[b], strict=True)]) for b, a in pairs
    }


def paraphrased(model: Path) -> tuple[str, ...]:
    """Overrides of augment=model: a small model is shown how, as plain text, and stops at the end of the line."""
    one = "augment.prompts.0"
    instruction = json.dumps(INSTRUCTION)
    return (
        "augment=model", "epochs=2", f"{one}.policy.path={model.resolve()}", f"{one}.policy.max_new_tokens=32",
        f"{one}.instruction={instruction}", f"{one}.temperature=0.6", f"{one}.tries=1",
        f"{one}.policy.template='{{{{ messages[-1].content }}}}'", f'{one}.policy.stop=["\\n"]',
    )  # fmt: skip


def voted(folder: Path, seed: int) -> dict[str, tuple[Path, Path]]:
    """Files of records of the conditions with more votes: of the red-team set, and as many others."""
    own, tasks, other = (folder / f"{name}.jsonl" for name in ("records", "red-team", "ordinary"))
    world = ToyWorld(size=SIZE, seed=seed)
    if not other.is_file():
        records.write(own, world.records())
        command(
            "evaluate.py",
            f"run={folder / 'plain'}",
            "part=all",
            f"red_team={tasks}",
            "red_team_size=20",
            "logger=csv",
            "trainer.threads=1",
            "bootstrap=10",
            f"hydra.run.dir={folder / 'report'}",
        )
        hard = [annotated(task) for task in records.read(tasks)]
        records.write(tasks, hard)
        new = (world.record(BEHIND + i) for i in range(len(hard)))
        records.write(other, (replace(r, completions=r.completions[:2], votes=()) for r in new))
    for file in (tasks, other):
        out = file.with_suffix(".votes.jsonl")
        if not out.is_file():
            command("annotate.py", "annotator=simulated", f"tasks={file}", f"out={out}", f"seed={seed}")
    return {condition: (own, f.with_suffix(".votes.jsonl")) for condition, f in zip(VOTED, (tasks, other), strict=True)}


def annotated(task: Comparison) -> Comparison:
    """A red-team task whose changed answer has the gold reward of its new qualities."""
    change = task.meta["red_team"].get("change")
    answers = []
    for c in task.completions:
        q = dict(c.meta["qualities"])
        if change and c.id.endswith(f"+{change}"):
            q["repetitive"] = max(q["repetitive"], float(change == "repetition"))
            q["verbose"] += change == "filler"
            if change == "refusal":
                q = dict.fromkeys(q, 0.0) | {"correct": float(task.domain == "safety")}
        gold = gold_reward(q, task.domain or "")
        answers.append(replace(c, meta=dict(c.meta) | {"qualities": q, "gold": gold}))
    return replace(task, completions=tuple(answers))


def command(*words: str) -> None:
    """Run one of the project's commands."""
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def trained(folder: Path, words: tuple[str, ...], seed: int) -> Path:
    """The run in this folder, trained where it is not there yet."""
    if not (folder / "metrics.json").is_file():
        quiet = ("logger=csv", "trainer.threads=1", "trainer.enable_progress_bar=false", "bootstrap=10")
        command("train.py", "experiment=generalisation", f"seed={seed}", *words, *quiet, f"hydra.run.dir={folder}")
    return folder


def measured(run: Path, seed: int, fresh: int) -> dict[str, float]:
    """What `measure` finds, kept beside the run."""
    kept = run / f"measured-{fresh}.json"
    if not kept.is_file():
        kept.write_text(json.dumps(measure(run, seed, fresh), indent=2) + "\n")
    found: dict[str, float] = json.loads(kept.read_text())
    return found


def measure(run: Path, seed: int, fresh: int) -> dict[str, float]:
    """Accuracy, calibration and the effects of changes on records that no condition was trained on."""
    scorer = rlhf.load(run)
    source = RunSource(run.name, scorer)
    scoring = Pass(source, soft, perturbations={**SHIFTS, **PROBES}, perturbed_records=fresh)
    world = ToyWorld(size=SIZE + fresh, seed=seed)
    entries = list(scoring.entries(islice(world.records(), SIZE, None), fresh))
    sets = {name: results_from([e for e in entries if e.name == name], ("one",)) for name in ("", *SHIFTS, *PROBES)}
    for name, shifted in world.shifts().items():
        sets[name] = results_from(scoring.entries(islice(shifted.records(), fresh)), ("one",))
    t = scorer.calibration.temperature
    found: dict[str, float] = {}
    for name in ("", *SHIFTS, *world.shifts()):
        m = evaluate(sets[name].scored, temperature=t, bootstrap=0)
        found |= {f"{name or 'ordinary'}/{key}": m[key] for key in ("pair_accuracy", "ece")}
    found["length/spearman"] = evaluate(sets[""].scored, bootstrap=0)["length/spearman"]
    return found | {f"probe/{name}": size(sets[""], sets[name], t) for name in PROBES}


def size(before: Results, after: Results, temperature: float) -> float:
    """|mean change of the reward| in log-odds."""
    found = probe(before, after, temperature, samples=0, seed=0)
    if found is None:
        raise SystemExit("no answer was scored before and after a change")
    return abs(found.effect.value)


if __name__ == "__main__":
    main()
