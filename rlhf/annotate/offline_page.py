"""A self-contained HTML page of tasks for collection without a server: votes are downloaded as a file and read back.

The page holds the tasks as JSON and the same forms as the web app; it needs no network. Answers stay in the browser's
storage until they are downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.annotate.items import LETTERS, Form, Item, items_of, votes_of
from rlhf.record_types import Comparison, RecordError, Vote, prompt_text

PAGE = Path(__file__).parent / "page"


def offline_page(
    records: Iterable[Comparison], *, form: Form, criteria: tuple[str, ...], scale: tuple[int, int],
    guidelines: str, seed: int,
) -> str:  # fmt: skip
    """The page as text: sides are drawn per item; ids of completions are replaced by their places.

    Args:
        records: the tasks.
        form, criteria, scale: as in `rlhf.annotate.session.Plan`.
        guidelines: shown beside the task.
        seed: of the sides; `votes_from_page` needs the same.
    """
    tasks = [
        {
            "assignment": number, "form": form, "prompt": prompt_text(record.prompt),
            "slots": [{"slot": LETTERS[k], "text": text[i]} for k, i in enumerate(order)],
            "criteria": list(criteria) if form == "likert" else [], "scale": list(scale),
        }
        for number, (record, _, order) in enumerate(_ordered(records, form, seed))
        for text in [{c.id: c.text for c in record.completions}]
    ]  # fmt: skip
    data = json.dumps({"tasks": tasks, "guidelines": guidelines}, ensure_ascii=True).replace("<", "\\u003c")
    parts = {
        name: (PAGE / name).read_text(encoding="utf-8") for name in ("parts.js", "forms.js", "offline.js")
    }
    script = "\n".join(_inlined(parts[name]) for name in parts)
    page = (PAGE / "task.html").read_text(encoding="utf-8")
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    page = page.replace('<link rel="stylesheet" href="/page/style.css">', f"<style>{style}</style>")
    tags = (
        f'<script type="application/json" id="data">{data}</script>\n<script type="module">{script}</script>'
    )
    return page.replace('<script type="module" src="/page/task.js"></script>', tags)


def votes_from_page(
    records: Iterable[Comparison], answers: Iterable[Mapping[str, Any]], *, form: Form, criteria: tuple[str, ...],
    scale: tuple[int, int], seed: int,
) -> Iterator[Comparison]:  # fmt: skip
    """The records with the votes of a downloaded file (one answer per line); arguments as for the page.

    Raises:
        RecordError: an answer to a task that the page did not have.
        AnswerError: an answer that does not fit its task.
    """
    tasks = list(_ordered(records, form, seed))
    votes: dict[int, list[Vote]] = {}
    for answer in answers:
        number = answer.get("assignment")
        if not isinstance(number, int) or not 0 <= number < len(tasks):
            raise RecordError(f"is {number!r}", key="assignment", remedy="the file belongs to another page")
        record, item, order = tasks[number]
        votes.setdefault(id(record), []).extend(
            votes_of(
                answer["answer"], item, order, annotator=str(answer["annotator"]), seconds=float(answer["seconds"]),
                criteria=criteria, scale=scale, comment=str(answer.get("comment") or ""),
                flagged=bool(answer.get("flagged")),
            )
        )  # fmt: skip
    own = {id(record): record for record, _, _ in tasks}
    for key, record in own.items():
        yield replace(record, votes=record.votes + tuple(votes.get(key, [])))


def _ordered(
    records: Iterable[Comparison], form: Form, seed: int
) -> Iterator[tuple[Comparison, Item, list[str]]]:
    number = 0
    for record in records:
        for item in items_of(record, form):
            rng = np.random.default_rng((seed, number))
            yield record, item, [item.completions[i] for i in rng.permutation(len(item.completions))]
            number += 1


def _inlined(script: str) -> str:
    """A module without its imports and exports: all parts stand in one script."""
    lines = [line.removeprefix("export ") for line in script.splitlines() if not line.startswith("import ")]
    return "\n".join(lines)
