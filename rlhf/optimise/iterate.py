"""Iterated RLHF: policy -> sample -> filter -> select -> vote -> reward model -> policy, generation by generation.

Every generation leaves `generation-<n>/`: `trace.csv`, `policy.pt`, the blinded task file of its oversight and the
votes on it, `records.jsonl` (what the next reward model learns from). A loop that is started again goes on after the
last generation that is whole. Without a voter it stops after writing the tasks, and goes on once people have voted.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhf.collect.decoding import Decoding, Same
from rlhf.collect.filtering import Filtering
from rlhf.collect.prompts import Task
from rlhf.collect.sampling import Completer
from rlhf.data.prompt_key import prompt_hash
from rlhf.optimise.figures import draw_traces
from rlhf.optimise.oversight import read_votes, win_rates, write_tasks
from rlhf.optimise.policy import Gold, Judges, PolicyModule, Trace, averages
from rlhf.optimise.policy_training import write_traces
from rlhf.optimise.proxy import Judge
from rlhf.optimise.shaper import Shaper
from rlhf.optimise.speaking import SpeakerPolicy, aside
from rlhf.optimise.tuning import write_json
from rlhf.optimise.warning import EarlyWarning
from rlhf.record_types import Comparison
from rlhf.records import read, write

Teach = Callable[[Sequence[Comparison], int], Judge]
"""`(records with votes, seed) -> reward model`."""
Choose = Callable[[Sequence[Comparison], int, np.random.Generator], list[Comparison]]
"""`(records without votes, how many, rng) -> which to vote on`."""
Voter = Callable[[Iterable[Comparison]], Iterable[Comparison]]


def at_random(records: Sequence[Comparison], number: int, rng: np.random.Generator) -> list[Comparison]:
    """So many of the records, each as likely as the next."""
    return [records[i] for i in sorted(rng.permutation(len(records))[:number].tolist())]


@dataclass(frozen=True)
class Plan:
    """The numbers of a loop.

    Args:
        generations: policies trained one after the other.
        steps: of RLOO per generation. prompts, completions: per step.
        samples: prompts that a generation's policy answers for the next reward model; k: completions of each.
        labelled: of these, how many are voted on.
        update_reward: False trains every generation on the first reward model.
        reference_samples: completions that set the scale of the reward.
        judged: prompts behind the numbers at the end, and oversight: prompts of the task file for people.
    """

    generations: int = 3
    steps: int = 80
    prompts: int = 16
    completions: int = 4
    samples: int = 150
    k: int = 3
    labelled: int = 100
    update_reward: bool = True
    reference_samples: int = 256
    judged: int = 300
    oversight: int = 30


@dataclass
class Loop:
    """Everything the loop needs.

    Args:
        folder: of the run.
        speaker: policy and (fixed) reference.
        start: records with votes, from the reference.
        tasks: prompts to train on; held_out: prompts to judge and to oversee with.
        teach: records to a reward model.
        shaper: fresh, its controller at the start; it goes on through the generations.
        trainer: `(steps) -> Trainer`.
        optimizing: options of `PolicyModule`: optimizer, schedule, weight decay.
        gold: true rewards, where known.
        filtering: of sampled completions.
        choose: which sampled records are voted on.
        voter: casts the votes; None = people do.
        warning: early warning inside a generation; None = never.
        seed: of everything.
    """

    folder: Path
    speaker: Any
    start: Sequence[Comparison]
    tasks: Sequence[Task]
    held_out: Sequence[Task]
    teach: Teach
    shaper: Shaper
    trainer: Callable[[int], Any]
    optimizing: dict[str, Any]
    plan: Plan
    gold: Gold | None = None
    filtering: Callable[[], Filtering] = Filtering
    choose: Choose = at_random
    voter: Voter | None = None
    warning: EarlyWarning | None = None
    seed: int = 0
    trace: list[Trace] = field(default_factory=list, init=False)
    starts: list[int] = field(default_factory=list, init=False)
    stopped: list[int] = field(default_factory=list, init=False)


def iterate(loop: Loop) -> dict[str, float]:
    """Run all generations that are not there yet; leaves traces.csv, traces.png, metrics.json.

    Returns:
        Means over held-out prompts after the last generation, `peak_gold` over the steps, `generation/<n>/gold`, ...
    """
    records = list(loop.start)
    judges = _judges(loop, records)
    metrics: dict[str, float] = {}
    for number in range(loop.plan.generations):
        folder = loop.folder / f"generation-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        before = loop.speaker.snapshot()
        if not _load(loop, folder):
            _optimise(loop, judges, folder, number)
        final = _judged(loop, judges, number)
        metrics |= {f"generation/{number}/{name}": value for name, value in final.items()} | final
        new = _label(loop, folder, before, number)
        if new is None:
            print(_ask(folder))
            break
        if loop.plan.update_reward:
            records += new
            judges = _judges(loop, records)
    write_traces(loop.folder / "traces.csv", loop.trace)
    ends = [*loop.starts[1:], len(loop.trace)]
    votes = dict(zip(ends, _votes(loop), strict=False))
    draw_traces(loop.folder / "traces.png", loop.trace, votes, generations=loop.starts, stopped=loop.stopped)
    if loop.trace and "gold" in loop.trace[0]:
        metrics["peak_gold"] = max(
            averages(loop.trace[i : i + 10])["gold"] for i in range(0, len(loop.trace), 10)
        )
    metrics |= {"steps": float(len(loop.trace)), "warnings": float(len(loop.stopped))}
    write_json(loop.folder / "metrics.json", metrics)
    return metrics


def _judges(loop: Loop, records: Sequence[Comparison]) -> Judges:
    """Two reward models on disjoint halves of the prompts: one is optimised, the other watched."""
    halves: tuple[list[Comparison], list[Comparison]] = ([], [])
    for record in records:
        halves[int(prompt_hash(record.prompt), 16) % 2].append(record)
    proxy, watch = (loop.teach(half, loop.seed + i) for i, half in enumerate(halves))
    return Judges(proxy, watch, loop.gold)


def _module(loop: Loop, judges: Judges, number: int) -> PolicyModule:
    module = PolicyModule(
        loop.speaker,
        judges,
        loop.shaper,
        completions=loop.plan.completions,
        warning=loop.warning,
        **loop.optimizing,
    )
    tasks = [loop.tasks[i % len(loop.tasks)] for i in range(loop.plan.reference_samples)]
    module.settle(tasks, loop.seed + number)
    return module


def _optimise(loop: Loop, judges: Judges, folder: Path, number: int) -> None:
    """One generation of RLOO, its trace and its policy."""
    module = _module(loop, judges, number)
    rng = np.random.default_rng((loop.seed, 7, number))
    size = min(loop.plan.prompts, len(loop.tasks))
    batches = [
        [loop.tasks[i] for i in rng.permutation(len(loop.tasks))[:size].tolist()]
        for _ in range(loop.plan.steps)
    ]
    torch.manual_seed(loop.seed * 1009 + number)
    trainer = loop.trainer(loop.plan.steps)
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=list))  # type: ignore[arg-type]
    write_traces(folder / "trace.csv", module.trace)
    _extend(loop, module.trace, warned=module.warned is not None)
    state = {
        "speaker": loop.speaker.state_dict(),
        "controller": loop.shaper.controller.state_dict(),
        "warned": module.warned is not None,
    }
    torch.save(state, folder / "policy.pt")


def _extend(loop: Loop, trace: Sequence[Trace], *, warned: bool) -> None:
    start = len(loop.trace)
    loop.starts.append(start)
    loop.trace += [row | {"step": float(start + i)} for i, row in enumerate(trace)]
    if warned:
        loop.stopped.append(len(loop.trace))


def _load(loop: Loop, folder: Path) -> bool:
    """Take a finished generation's policy and trace; False where there is none."""
    if not (folder / "policy.pt").is_file():
        return False
    state = torch.load(folder / "policy.pt", weights_only=True)
    loop.speaker.load_state_dict(state["speaker"])
    loop.shaper.controller.load_state_dict(state["controller"])
    with (folder / "trace.csv").open(encoding="utf-8") as file:
        trace = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    _extend(loop, trace, warned=state["warned"])
    return True


def _judged(loop: Loop, judges: Judges, number: int) -> Trace:
    """The columns of the trace on held-out prompts."""
    module = _module(loop, judges, number)
    tasks = list(loop.held_out[: loop.plan.judged])
    with aside(loop.seed + 1):
        rollout = loop.speaker.speak(tasks, 1)
    _, row = module.judge(rollout, tasks, loop.speaker.logp(rollout).detach())
    return row


def _label(loop: Loop, folder: Path, before: Any, number: int) -> list[Comparison] | None:
    """The generation's records with votes, its oversight's among them; None where people have not voted yet."""
    votes = folder / f"step-{number:06d}.votes.jsonl"
    tasks = folder / f"step-{number:06d}.tasks.jsonl"
    done = folder / "records.jsonl"
    if not tasks.is_file():
        _write_oversight(loop, folder, before, number)
        rng = np.random.default_rng((loop.seed, 11, number))
        write(folder / "unlabelled.jsonl", loop.choose(_sampled(loop, number, rng), loop.plan.labelled, rng))
    if loop.voter is not None and not votes.is_file():
        write(votes, loop.voter(read(tasks)))
        write(done, loop.voter(read(folder / "unlabelled.jsonl")))
    if not votes.is_file() or not done.is_file():
        return None
    overseen = [r for _, records in read_votes(folder) for r in records]
    return [*read(done), *overseen]


def _write_oversight(loop: Loop, folder: Path, before: Any, number: int) -> None:
    tasks = list(loop.held_out[-loop.plan.oversight :])
    with aside(loop.seed + 2 + number):
        said = {
            "policy": loop.speaker.speak(tasks, 1).spoken.texts,
            "reference": loop.speaker.speak(tasks, 1, reference=True).spoken.texts,
        }
        if number > 0:
            said["previous"] = before.speak(tasks, 1).spoken.texts
    write_tasks(folder, number, tasks, said, seed=loop.seed, gold=loop.gold)


def _sampled(loop: Loop, number: int, rng: np.random.Generator) -> list[Comparison]:
    """Answers of the policy to training prompts, filtered, with their true rewards where known."""
    chosen = [loop.tasks[i] for i in rng.permutation(len(loop.tasks))[: loop.plan.samples].tolist()]
    policy = SpeakerPolicy(loop.speaker, "policy", f"generation-{number}")
    sampler = Same(Decoding(temperature=1.0, top_p=1.0))
    completer = Completer([policy], sampler, k=loop.plan.k, min_distance=0.0, attempts=1, seed=loop.seed)
    records = list(
        loop.filtering()(completer(replace(task, prompt_id=f"g{number}-{task.prompt_id}")) for task in chosen)
    )
    return records if loop.gold is None else [_with_gold(record, loop.gold) for record in records]


def _with_gold(record: Comparison, gold: Gold) -> Comparison:
    values = gold([record.prompt] * len(record.completions), [c.text for c in record.completions])
    pairs = zip(record.completions, values, strict=True)
    return replace(record, completions=tuple(replace(c, meta={**c.meta, "gold": v}) for c, v in pairs))


def _votes(loop: Loop) -> list[dict[str, float]]:
    folders = (loop.folder / f"generation-{n}" for n in range(loop.plan.generations))
    return [win_rates(records) for folder in folders for _, records in read_votes(folder)]


def _ask(folder: Path) -> str:
    tasks = next(folder.glob("step-*.tasks.jsonl"))
    votes = tasks.name.replace(".tasks.", ".votes.")
    return (
        f"votes are needed; then start the loop again with the same folder:\n"
        f"  python annotate.py annotator=web tasks={tasks} out={folder / votes}\n"
        f"  python annotate.py annotator=web tasks={folder / 'unlabelled.jsonl'} out={folder / 'records.jsonl'}"
    )
