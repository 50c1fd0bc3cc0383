"""People look at a policy in training: blinded tasks out, votes back, into the figure and into the next reward model.

`step-000050.tasks.jsonl` holds records with one completion each of the policy, of the reference and, where there is
one, of the previous generation, in random order under neutral ids and without their sources. `step-000050.key.json`
says who is who, `step-000050.gold.json` the true rewards where they are known; neither is for annotators. Of
equal answers one is shown; a prompt that all answer alike is left out. Votes are cast by

    python annotate.py annotator=web tasks=<folder>/step-000050.tasks.jsonl out=<folder>/step-000050.votes.jsonl

`task=policy` asks about prompts of every split (`shares`), so that these votes have something to train, to validate
and to test the next reward model with, and a prompt that was held out before stays so.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np

from rlhf.collect.prompts import Task
from rlhf.labels.aggregation import soft
from rlhf.records import Comparison, Completion, Prompt, RecordError, read, write
from rlhf.stats.bootstrap import SHARE, cluster_bootstrap

Said = Mapping[str, Sequence[str]]
"""Who -> one text per task."""


@dataclass(frozen=True)
class Oversight:
    """When and how much.

    Args:
        every: steps between two task files.
        prompts: per file.
        seed: of the order of completions.
    """

    every: int = 50
    prompts: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in {"every": self.every, "prompts": self.prompts}.items():
            if not isinstance(value, int) or value < 1:
                raise RecordError(
                    f"{value} must be a whole number, 1 or more", key=f"task.oversight.{name}",
                    remedy="task.oversight=null asks nobody",
                )  # fmt: skip


def shares(tasks: Mapping[str, Sequence[Task]], number: int) -> list[Task]:
    """So many prompts of train, val and test: as many of each as its share of all, of val and test two at least.

    Below six prompts val and test get a third each, rounded down. Fewer where a split has fewer.
    """
    every = sum(map(len, tasks.values()))
    asked = {split: max(round(number * len(tasks[split]) / every), min(2, number // 3)) for split in ("val", "test")}
    asked["train"] = max(number - sum(asked.values()), 0)
    return [task for split in ("train", "val", "test") for task in tasks[split][: asked[split]]]


def write_tasks(
    folder: Path, step: int, tasks: Sequence[Task], said: Said, *, seed: int,
    gold: Callable[[Sequence[Prompt], Sequence[str]], list[float]] | None = None,
) -> Path | None:  # fmt: skip
    """One blinded task file and its key; None, and no files, where all answer alike: there is nothing to prefer.

    Args:
        folder: is created.
        step: of the training.
        tasks: the prompts.
        said: what each of the compared policies answered.
        seed: of the order.
        gold: true rewards, for simulated annotators: into a file of their own that people do not see.
    """
    rng = np.random.default_rng((seed, step))
    records, key, truth = [], {}, {}
    for number, task in enumerate(tasks):
        who = [name for name in rng.permutation(list(said)).tolist()]
        first = {said[name][number]: name for name in reversed(who)}
        who = [name for name in who if name in first.values()]  # of equal answers one
        if len(who) < 2:
            continue
        texts = [said[name][number] for name in who]
        completions = tuple(Completion(f"c{i}", text) for i, text in enumerate(texts))
        name = f"oversight-{step}-{number}"
        if gold is not None:
            values = gold([task.prompt] * len(texts), texts)
            truth[name] = {f"c{i}": value for i, value in enumerate(values)}
        records.append(Comparison(name, task.prompt, completions, domain=task.domain))
        key[name] = {f"c{i}": w for i, w in enumerate(who)}
    if not records:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.tasks.jsonl"
    write(path, records)
    (folder / f"step-{step:06d}.key.json").write_text(json.dumps(key, indent=1))
    if gold is not None:
        (folder / f"step-{step:06d}.gold.json").write_text(json.dumps(truth, indent=1))
    return path


def with_gold(records: Iterable[Comparison], path: Path) -> Iterator[Comparison]:
    """Task records with the true rewards of their `gold.json` as `meta.gold`; as they are without that file."""
    truth = json.loads(path.read_text()) if path.is_file() else {}
    for record in records:
        values = truth.get(record.prompt_id, {})
        said = (replace(c, meta={**c.meta, "gold": values[c.id]}) if c.id in values else c for c in record.completions)
        yield replace(record, completions=tuple(said))


def read_votes(folder: Path) -> Iterator[tuple[int, list[Comparison]]]:
    """Every file of votes that has come back, as (step, records whose completions have their sources again).

    Raises:
        RecordError: no task file or key of that step; records, ids or texts that are not those of the task file;
            nobody has voted.
    """
    for path in sorted(folder.glob("step-*.votes.jsonl")):
        stem = path.name.removesuffix(".votes.jsonl")
        key = _key(folder / f"{stem}.key.json", path)
        asked = {record.prompt_id: record for record in read(_beside(folder / f"{stem}.tasks.jsonl", path))}
        records = [_unblinded(record, key, asked, path) for record in read(path)]
        if not any(record.votes for record in records):
            raise RecordError(
                f"{len(records)} records, and no vote on any", place=str(path), key="votes",
                remedy=f"annotate.py writes it: tasks={stem}.tasks.jsonl out=<it>; or take the file away",
            )  # fmt: skip
        yield int(stem.removeprefix("step-")), records


def win_rates(records: Sequence[Comparison], *, samples: int = 1000, seed: int = 0) -> dict[str, float]:
    """How often each policy was preferred to each other, ties counting one half, with 95% intervals over prompts.

    Returns:
        `policy/reference`, `.../ci_low`, `.../ci_high`, `.../prompts` for every ordered pair that was voted on. Where
        all prompts agree the interval is the exact binomial one, for one prompt 0 to 1.
    """
    found: dict[str, list[float]] = {}
    for record in records:
        label = soft(record)
        who = [str(c.source.get("who")) for c in record.completions]
        for i, j in permutations(range(len(who)), 2):
            if label.observed[i, j]:
                found.setdefault(f"{who[i]}/{who[j]}", []).append(float(label.win_prob[i, j]))
    out: dict[str, float] = {}
    for name, shares in found.items():
        values = np.array(shares)
        ones = np.ones((len(values), 1))
        ends = cluster_bootstrap(values[:, None], ones, samples=samples, seed=seed, within=SHARE)
        low, high = (float(end[0]) for end in ends) if len(values) > 1 else SHARE
        out |= {name: float(values.mean()), f"{name}/ci_low": low, f"{name}/ci_high": high}
        out[f"{name}/prompts"] = len(values)
    return out


def _beside(path: Path, votes: Path) -> Path:
    if not path.is_file() or not path.name.removeprefix("step-").split(".")[0].isdigit():
        raise RecordError(
            f"no {path.name} beside it", place=str(votes),
            remedy="step-<n>.votes.jsonl lies where step-<n>.tasks.jsonl and step-<n>.key.json were written, "
            "under their name",
        )  # fmt: skip
    return path


def _key(path: Path, votes: Path) -> Mapping[str, Mapping[str, str]]:
    try:
        key: Mapping[str, Mapping[str, str]] = json.loads(_beside(path, votes).read_text())
    except json.JSONDecodeError as error:
        raise RecordError(
            f"is not JSON: {error}", place=str(path), remedy="put back the file that the training wrote"
        ) from error
    return key


def _unblinded(
    record: Comparison, key: Mapping[str, Mapping[str, str]], asked: Mapping[str, Comparison], path: Path
) -> Comparison:
    name, remedy = record.prompt_id, "votes must be on the task file of the same step"
    if name not in key or name not in asked:
        missing = "key" if name not in key else "task file"
        raise RecordError(f"record {name} is not in the {missing}", place=str(path), key="prompt_id", remedy=remedy)
    who, task = key[name], asked[name]
    wrong = sorted({c.id for c in record.completions} ^ who.keys())
    if wrong:
        raise RecordError(
            f"record {name}: {', '.join(wrong)} not both here and in the key", place=str(path),
            key="completions.id", remedy=remedy,
        )  # fmt: skip
    texts = {c.id: c.text for c in task.completions}
    changed = [c.id for c in record.completions if texts.get(c.id) != c.text]
    if changed or record.prompt != task.prompt:
        raise RecordError(
            f"record {name}: {', '.join(changed) or 'the prompt'} has another text than in the task file",
            place=str(path), key="completions.text" if changed else "prompt", remedy=remedy,
        )  # fmt: skip
    completions = tuple(replace(c, source={"who": who[c.id]}) for c in record.completions)
    return replace(record, completions=completions)
