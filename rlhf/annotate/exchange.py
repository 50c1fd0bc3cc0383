"""Tasks and votes as files of Label Studio and Argilla, there and back. Neither package is needed.

Label Studio: pairs as two texts with a choice A / tie / B, because its own Pairwise tag has no tie. Argilla: a ranking
question per record. Ids travel in the data, sources do not: annotators stay blind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from rlhf.record_types import Comparison, RecordError, Vote, prompt_text

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


def to_label_studio(records: Iterable[Comparison]) -> Iterator[dict[str, Any]]:
    """One task per pair of completions; sides swap with every second pair."""
    number = 0
    for record in records:
        for pair in combinations(record.completions, 2):
            a, b = pair if number % 2 == 0 else pair[::-1]
            number += 1
            data = {"prompt": prompt_text(record.prompt), "a": a.text, "b": b.text}
            yield {"data": data | {"prompt_id": record.prompt_id, "pair": [a.id, b.id]}}


def from_label_studio(
    records: Iterable[Comparison], tasks: Iterable[Mapping[str, Any]]
) -> Iterator[Comparison]:
    """The records with the votes of a Label Studio export (JSON), skipped annotations left out.

    Raises:
        RecordError: a task of another project, or an annotation that names no side.
    """
    ours = list(records)
    known = {r.prompt_id: {c.id for c in r.completions} for r in ours}
    given: dict[str, list[Vote]] = {}
    for number, task in enumerate(tasks):
        place = f"task {task.get('id', number)}"
        data = task.get("data", {})
        if "prompt_id" not in data or "pair" not in data:
            raise RecordError(
                "has no prompt_id and pair", key="data", place=place, remedy="import what we exported"
            )
        a, b = data["pair"]
        if not {a, b} <= known.get(data["prompt_id"], set()):
            raise RecordError(
                f"is about {a} and {b} of {data['prompt_id']}, which tasks= does not hold",
                place=place,
                remedy=SAME,
            )
        for annotation in task.get("annotations", []):
            if annotation.get("was_cancelled"):
                continue
            choices = [
                r["value"]["choices"] for r in annotation.get("result", []) if "choices" in r.get("value", {})
            ]
            if len(choices) != 1 or choices[0][0] not in ("A", "tie", "B"):
                raise RecordError("names none of A, tie, B", key="annotations.result", place=place)
            choice = {"A": a, "B": b, "tie": "tie"}[choices[0][0]]
            vote = Vote(
                _who(annotation.get("completed_by")), seconds=annotation.get("lead_time"),
                pair=(a, b), choice=choice, meta={"first": a},
            )  # fmt: skip
            given.setdefault(data["prompt_id"], []).append(vote)
    return (replace(r, votes=r.votes + tuple(given.get(r.prompt_id, []))) for r in ours)


def _who(completed_by: Any) -> str:
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or completed_by.get("id"))
    return str(completed_by)


def to_argilla(records: Iterable[Comparison]) -> Iterator[dict[str, Any]]:
    """One record per prompt: fields `prompt` and `answer-1`..`answer-K`, for a ranking question named `ranking`."""
    for record in records:
        answers = {f"answer-{n}": c.text for n, c in enumerate(record.completions, start=1)}
        ids = [c.id for c in record.completions]
        yield {
            "id": record.prompt_id,
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
        RecordError: a response without ranks.
    """
    given: dict[str, list[Vote]] = {}
    tasks = list(records)
    known = {r.prompt_id: [c.id for c in r.completions] for r in tasks}
    for row in rows:
        for response in row.get("responses", {}).get("ranking", []):
            if response.get("status", "submitted") != "submitted":
                continue
            value, place = response.get("value"), f"record {row.get('id')}"
            if not isinstance(value, list) or not all(isinstance(v, Mapping) and "rank" in v for v in value):
                raise RecordError(
                    "has no ranks", key="responses.ranking.value", place=place, remedy="argilla#5712"
                )
            names = {f"answer-{n}": i for n, i in enumerate(known.get(str(row.get("id")), ()), start=1)}
            groups: dict[int, list[str]] = {}
            for v in value:
                if v["value"] not in names:
                    raise RecordError(
                        f"ranks {v['value']}, which tasks= does not hold", place=place, remedy=SAME
                    )
                groups.setdefault(int(v["rank"]), []).append(names[v["value"]])
            ranking = tuple(tuple(groups[rank]) for rank in sorted(groups))
            given.setdefault(str(row["id"]), []).append(Vote(str(response.get("user_id")), ranking=ranking))
    return (replace(r, votes=r.votes + tuple(given.get(r.prompt_id, []))) for r in tasks)
