"""Iterated RLHF: policy -> sample -> filter -> select -> vote -> reward model -> policy, generation by generation.

Every generation leaves `generation-<n>/`: `trace.csv`, `policy.pt`, the blinded task file of its oversight and the
votes on it, `unlabelled.jsonl` (what is voted on; its true rewards, where known, lie apart in `unlabelled.gold.json`),
`records.jsonl` (the same with votes: what the next reward model learns from). A loop that is started again goes on
after the last generation that is whole. Without a label source it stops after writing the tasks, and goes on once
people have voted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.collect.sampling import Completer
from rlhf.optimise.iterate.generation import Loop, evaluated, load, module_of, optimise, reward_sources_of, save
from rlhf.optimise.iterate.progress import Progress
from rlhf.optimise.policy.figures import draw_traces
from rlhf.optimise.policy.module import Gold, RewardSources, Trace
from rlhf.optimise.policy.oversight import read_votes, win_rates, with_gold, write_tasks
from rlhf.optimise.policy.prompts import count_trimmed
from rlhf.optimise.policy.rollout import CollectPolicy, isolated_seed
from rlhf.optimise.policy.train import write_traces
from rlhf.records import Comparison, RecordError, read, write
from rlhf.records.tables import write_csv
from rlhf.reward.files import log_end, write_json

WHO = ("policy", "reference", "previous")


@dataclass(frozen=True)
class IterateRun:
    """The task `iterate`: a loop, and the trainer whose loggers get its numbers."""

    loop: Loop
    trainer: Any

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.loop.folder


def run_iterate(run: IterateRun) -> dict[str, float]:
    """What `iterate` does, with every step in the loggers and a row per generation on the console."""
    loggers = run.trainer.loggers
    progress = run.loop.progress = Progress(loggers)
    metrics = iterate(run.loop)
    print("\n" + "\n".join(progress.rows))
    log_end(loggers, metrics, run.folder, step=int(metrics.get("steps", 0)))
    return metrics


def iterate(loop: Loop) -> dict[str, float]:
    """Run all generations that are not there yet; leaves traces.csv, traces.png, generations.csv, metrics.json.

    Returns:
        Means over held-out prompts after the last generation, `peak_gold` over the steps, `generation/<n>/gold`, ...,
        and `reference/gold`, ... before the first; `prompts/train/trimmed` of `prompts/train/count`, ...
        Where the policy's mean gold is known without sampling also `exact_gold` after the last step, on the same
        prompts, and `exact_peak_gold`, its highest value at any step: their difference is a fall.
    """
    asked = {"train": loop.tasks, "evaluated": loop.eval_tasks, "oversight": loop.overseen}
    metrics = count_trimmed(loop.policy, asked, key="policy.max_new_tokens")
    records = list(loop.start)
    reward_sources = reward_sources_of(loop, records)
    rows: dict[str, Trace] = {}
    for number in range(loop.plan.generations):
        folder = loop.folder / f"generation-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        previous = _answers(loop, "previous") if number and loop.overseen else None
        module = module_of(loop, reward_sources, number)
        new = not (folder / "policy.pt").is_file()
        if number == 0:
            rows["reference"] = evaluated(loop, module, reference=True)
            loop.progress.generation("reference", rows["reference"], 0, new=new)
        if not load(loop, folder):
            optimise(loop, module, number)
            save(loop, module, folder)
        rows[str(number)] = final = evaluated(loop, module)
        loop.progress.generation(str(number), final, len(loop.trace), warned=loop.stop_reasons[-1], new=new)
        metrics |= {f"generation/{number}/{name}": value for name, value in final.items()} | final
        voted = _label(loop, folder, records, reward_sources, previous, number)
        if voted is None:
            print(_ask(folder, number))
            break
        if loop.plan.update_reward and number + 1 < loop.plan.generations:
            records += voted
            reward_sources = reward_sources_of(loop, records)
    metrics |= {f"reference/{name}": value for name, value in rows["reference"].items()}
    write_traces(loop.folder / "traces.csv", loop.trace)
    table = [{"generation": name} | row for name, row in rows.items()]
    write_csv(loop.folder / "generations.csv", table, ["generation", *rows["reference"]])
    folders = (loop.folder / f"generation-{n}" for n in range(loop.plan.generations))
    rates = [win_rates(voted) for folder in folders for _, voted in read_votes(folder)]
    votes = dict(zip([*loop.starts[1:], len(loop.trace)], rates, strict=False))
    draw_traces(loop.folder / "traces.png", loop.trace, votes, generations=loop.starts, stopped=loop.stopped)
    if loop.trace and "gold" in loop.trace[0]:
        blocks = (loop.trace[i : i + 10] for i in range(0, len(loop.trace), 10))
        metrics["peak_gold"] = max(sum(row["gold"] for row in block) / len(block) for block in blocks)
    if loop.trace and all("exact_gold" in row for row in loop.trace):
        metrics["exact_peak_gold"] = max(metrics["exact_gold"], *(row["exact_gold"] for row in loop.trace))
    metrics |= {"steps": float(len(loop.trace)), "warnings": float(len(loop.stopped))}
    write_json(loop.folder / "metrics.json", metrics)
    return metrics


def _answers(loop: Loop, who: str) -> list[str]:
    """What the policy (or its reference) says to the prompts of the oversight now.

    Everyone draws with random numbers of their own: with the same ones, a policy that is its reference says the same.
    """
    with isolated_seed(loop.seed + 2 + 1_000_003 * WHO.index(who)):
        return list(loop.policy.rollout(loop.overseen, 1, reference=who == "reference").completions.texts)


def _label(
    loop: Loop, folder: Path, known: Sequence[Comparison], reward_sources: RewardSources, previous: list[str] | None,
    number: int,
) -> list[Comparison] | None:  # fmt: skip
    """The generation's records with votes, its oversight's among them; None where people have not voted yet."""
    votes = folder / f"step-{number:06d}.votes.jsonl"
    tasks = folder / f"step-{number:06d}.tasks.jsonl"
    done, waiting, truth = (folder / n for n in ("records.jsonl", "unlabelled.jsonl", "unlabelled.gold.json"))
    if not waiting.is_file():
        if loop.overseen:
            said = {who: _answers(loop, who) for who in ("policy", "reference")}
            said |= {"previous": previous} if previous is not None else {}
            if write_tasks(folder, number, loop.overseen, said, seed=loop.seed, gold=loop.gold) is None:
                print(f"generation {number}: all answers are alike, its oversight has nothing to vote on")
        rng = np.random.default_rng((loop.seed, 11, number))
        new = _sampled(loop, number, rng)
        chosen = list(loop.pair_selection(new, known, reward_sources.proxy, loop.plan.labelled, rng))
        if loop.gold is not None:
            write_json(truth, {r.prompt_id: _true_rewards(r, loop.gold) for r in chosen})
        write(waiting, chosen)
    if loop.label_source is not None and not done.is_file():
        if _any(tasks):
            write(votes, loop.label_source(with_gold(read(tasks), folder / f"step-{number:06d}.gold.json")))
        write(done, loop.label_source(with_gold(read(waiting), truth)))
    if (_any(tasks) and not votes.is_file()) or not done.is_file():
        return None
    return [*read(done), *(r for _, records in read_votes(folder) for r in records)]


def _any(tasks: Path) -> bool:
    """Is there something to vote on?"""
    return tasks.is_file() and tasks.stat().st_size > 0


def _sampled(loop: Loop, number: int, rng: np.random.Generator) -> list[Comparison]:
    """Answers of the policy to training prompts, filtered."""
    chosen = [loop.tasks[i] for i in rng.permutation(len(loop.tasks))[: loop.plan.samples].tolist()]
    policy = CollectPolicy(loop.policy, "policy", f"generation-{number}")
    completer = Completer([policy], loop.sampler, k=loop.plan.k, min_distance=0.0, attempts=1, seed=loop.seed)
    filtering = loop.filtering()
    drafts = (completer(replace(task, prompt_id=f"g{number}-{task.prompt_id}")) for task in chosen)
    records = list(filtering(drafts))
    if not records:
        raise RecordError(
            f"generation {number}: the filters left none of {len(chosen)} records", key="task.filter",
            remedy="loosen them, or look at what the policy says (generation-*/trace.csv: length, ended)",
        )  # fmt: skip
    return records


def _true_rewards(record: Comparison, gold: Gold) -> dict[str, float]:
    values = gold([record.prompt] * len(record.completions), [c.text for c in record.completions])
    return {c.id: value for c, value in zip(record.completions, values, strict=True)}


def _ask(folder: Path, number: int) -> str:
    step = f"step-{number:06d}"
    pairs = [("unlabelled.jsonl", "records.jsonl")]
    if _any(folder / f"{step}.tasks.jsonl"):
        pairs.insert(0, (f"{step}.tasks.jsonl", f"{step}.votes.jsonl"))
    return "votes are needed; then start the loop again with the same folder:" + "".join(
        f"\n  python annotate.py annotator=web tasks={folder / tasks} out={folder / out}"
        for tasks, out in pairs
        if not (folder / out).is_file()
    )
