"""`annotator=label_studio`, `argilla`: tasks and votes as files of the two, there and back. Neither package is needed.

Label Studio: pairs as two texts with a choice A / tie / B, because its own Pairwise tag has no tie. Argilla: a ranking
question per record. Ids travel in the data, sources do not: annotators stay blind.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

from rlhf.annotate.job import Job, written
from rlhf.records import Comparison, RecordError, Vote, prompt_text, read

SAME = "give the tasks= file that was exported"

LABEL_STUDIO_CONFIG = """<View>
  <Header value="Prompt"/><Text name="prompt" value="$prompt"/>
  <Header value="A"/><Text name="a" value="$a"/>
  <Header value="B"/><Text name="b" value="$b"/>
  <Choices name="better" toName="prompt" choice="single" required="true" showInline="true">
    <Choice value="A" hotkey="1"/><Choice value="tie" hotkey="0"/><Choice value="B" hotkey="2"/>
  </Choices>
</View>
"""
"""Labelling interface of the project that imports `to_label_studio`."""


def label_studio(job: Job, *, answers: str | None) -> None:
    """Without answers: `out` is Label Studio's import, the interface beside it. With answers: `out` gets the votes."""
    _exchanged(job, answers, to_label_studio, from_label_studio)
    if answers is None:
        written(Path(f"{job.out}.interface.xml"), LABEL_STUDIO_CONFIG)


def argilla(job: Job, *, answers: str | None) -> None:
    """Without answers: `out` is a JSON of Argilla records. With answers: `out` gets the votes."""
    _exchanged(job, answers, to_argilla, from_argilla)


def _exchanged(job: Job, answers: str | None, export: Callable[..., Any], import_votes: Callable[..., Any]) -> None:
    if answers is None:
        written(job.out, json.dumps(list(export(read(job.task_file()))), ensure_ascii=False, indent=1))
        return
    found = json.loads(Path(answers).read_text(encoding="utf-8"))
    job.add_votes(lambda records: import_votes(records, found))


def task_keys(records: Sequence[Comparison]) -> list[str]:
    """One name per record that no other has: its prompt_id, with its number where several share that."""
    number = Counter(r.prompt_id for r in records)
    named = enumerate((r.prompt_id for r in records), 1)
    return [name if number[name] == 1 else f"{name}#{n}" for n, name in named]


def to_label_studio(records: Iterable[Comparison]) -> Iterator[dict[str, Any]]:
    """One task per pair of completions; sides swap with every second pair."""
    ours, number = list(records), 0
    for key, record in zip(task_keys(ours), ours, strict=True):
        for pair in combinations(record.completions, 2):
            a, b = pair if number % 2 == 0 else pair[::-1]
            number += 1
            data = {"prompt": prompt_text(record.prompt), "a": a.text, "b": b.text}
            yield {"data": data | {"prompt_id": record.prompt_id, "task": key, "pair": [a.id, b.id]}}


def from_label_studio(records: Iterable[Comparison], tasks: Iterable[Mapping[str, Any]]) -> Iterator[Comparison]:
    """The records with the votes of a Label Studio export (JSON), skipped annotations left out.

    Raises:
        RecordError: a task of another project, or an annotation that names no side.
    """
    ours = list(records)
    keys = task_keys(ours)
    known = {key: {c.id for c in r.completions} for key, r in zip(keys, ours, strict=True)}
    given: dict[str, list[Vote]] = {}
    for number, task in enumerate(tasks):
        place = f"task {task.get('id', number)}"
        data = task.get("data", {})
        if "prompt_id" not in data or "pair" not in data:
            raise RecordError("has no prompt_id and pair", key="data", place=place, remedy="import what we exported")
        (a, b), key = data["pair"], data.get("task", data["prompt_id"])
        if not {a, b} <= known.get(key, set()):
            raise RecordError(f"is about {a} and {b} of {key}, which tasks= does not hold", place=place, remedy=SAME)
        for annotation in task.get("annotations", []):
            if not annotation.get("was_cancelled"):
                given.setdefault(key, []).append(_choice(annotation, a, b, place))
    return _with_votes(ours, keys, given)


def _choice(annotation: Mapping[str, Any], a: str, b: str, place: str) -> Vote:
    """The vote of one annotation of Label Studio."""
    values = (result.get("value", {}) for result in annotation.get("result", []))
    choices = [value["choices"] for value in values if "choices" in value]
    if len(choices) != 1 or choices[0][0] not in ("A", "tie", "B"):
        raise RecordError("names none of A, tie, B", key="annotations.result", place=place)
    who = annotation.get("completed_by")
    who = who.get("email") or who.get("id") if isinstance(who, Mapping) else who
    choice = {"A": a, "B": b, "tie": "tie"}[choices[0][0]]
    return Vote(str(who), seconds=annotation.get("lead_time"), pair=(a, b), choice=choice, meta={"first": a})


def _with_votes(
    records: Sequence[Comparison], keys: Sequence[str], given: Mapping[str, Sequence[Vote]]
) -> Iterator[Comparison]:
    return (replace(r, votes=(*r.votes, *given.get(key, ()))) for key, r in zip(keys, records, strict=True))


def shown_order(record: Comparison, key: str) -> list[str]:
    """The ids of the completions in the order in which Argilla shows them: shuffled, the same at every call."""
    return sorted((c.id for c in record.completions), key=lambda i: sha256(f"{key}:{i}".encode()).digest())


def to_argilla(records: Iterable[Comparison]) -> Iterator[dict[str, Any]]:
    """One record each: fields `prompt` and `answer-1`..`answer-K` in `shown_order`, for a question named `ranking`."""
    ours = list(records)
    for key, record in zip(task_keys(ours), ours, strict=True):
        text = {c.id: c.text for c in record.completions}
        ids = shown_order(record, key)
        answers = {f"answer-{n}": text[i] for n, i in enumerate(ids, start=1)}
        yield {
            "id": key,
            "fields": {"prompt": prompt_text(record.prompt), **answers},
            "metadata": {"completions": " ".join(ids)},
            "suggestions": {},
            "responses": {},
        }


def from_argilla(records: Iterable[Comparison], rows: Iterable[Mapping[str, Any]]) -> Iterator[Comparison]:
    """The records with the submitted rankings of an Argilla export (`dataset.records.to_list()` or `.to_json`).

    A value is a list of {"value": "answer-2", "rank": 1}; equal ranks are ties. A list of names, as some versions
    store it whatever was ranked (argilla#5712), is refused rather than believed.

    Raises:
        RecordError: a response without ranks, about other answers, or that leaves some out or names one twice.
    """
    tasks = list(records)
    keys = task_keys(tasks)
    shown = {key: shown_order(r, key) for key, r in zip(keys, tasks, strict=True)}
    given: dict[str, list[Vote]] = {}
    for row in rows:
        key = str(row.get("id"))
        for response in row.get("responses", {}).get("ranking", []):
            if response.get("status", "submitted") == "submitted":
                ranking = _ranking(response.get("value"), shown.get(key, []), f"record {key}")
                given.setdefault(key, []).append(Vote(str(response.get("user_id")), ranking=ranking))
    return _with_votes(tasks, keys, given)


def _ranking(value: Any, ids: Sequence[str], place: str) -> tuple[tuple[str, ...], ...]:
    """Groups of ids, best first, from a response of Argilla."""
    if not isinstance(value, list) or not all(isinstance(v, Mapping) and "rank" in v for v in value):
        raise RecordError("has no ranks", key="responses.ranking.value", place=place, remedy="argilla#5712")
    names = {f"answer-{n}": i for n, i in enumerate(ids, start=1)}
    for v in value:
        if v["value"] not in names:
            raise RecordError(f"ranks {v['value']}, which tasks= does not hold", place=place, remedy=SAME)
    if sorted(v["value"] for v in value) != sorted(names):
        named = ", ".join(v["value"] for v in value)
        problem, remedy = f"ranks {named} of {len(names)} answers", "every answer needs one rank"
        raise RecordError(problem, key="responses.ranking.value", place=place, remedy=remedy)
    groups: dict[int, list[str]] = {}
    for v in value:
        groups.setdefault(int(v["rank"]), []).append(names[v["value"]])
    return tuple(tuple(groups[rank]) for rank in sorted(groups))
