"""A self-contained HTML page of tasks for collection without a server: votes are downloaded as a file and read back.

The page holds the tasks as JSON and the same desk as the web app; it needs no network, and its content security policy
allows none. Answers stay in the browser's storage; any part of them can be downloaded at any time, also more than once.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlhf.annotate.items import AnswerError, Item, Questions, items_of, shown, votes_of
from rlhf.annotate.job import Job, written
from rlhf.annotate.page import PAGE, html
from rlhf.annotate.serve import guidelines_of
from rlhf.records import Comparison, RecordError, Vote, lines, read

SCRIPTS = ("parts.js", "texts.js", "drag.js", "ranking.js", "forms.js", "desk.js", "offline.js")
SAME = "the tasks=, form=, criteria=, scale= and seed= must be those of the page"


@dataclass(frozen=True)
class Page(Questions):
    """`annotator=page`: `out` is a self-contained HTML page; with the answers' files, `out` gets the votes.

    Args:
        answers: files that annotators downloaded from the page.
        form, strengths, criteria, scale, seed: what people are asked; the same both times.
        guidelines: text file shown beside every task.
    """

    answers: Sequence[str] = ()
    guidelines: str | None = None

    def __call__(self, job: Job) -> None:
        """Write the page, or the votes."""
        if self.answers:
            given = [value for file in self.answers for _, value in lines(file)]
            job.add_votes(lambda records: votes_from_page(records, given, self))
            return
        text = guidelines_of(self.guidelines)
        written(job.out, offline_page(read(job.task_file()), self, guidelines=text))


def offline_page(records: Iterable[Comparison], asked: Questions, *, guidelines: str) -> str:
    """The page as text: sides are drawn per item; ids of completions are replaced by their places.

    Args:
        records: the tasks.
        asked: what people are asked; `votes_from_page` needs the same.
        guidelines: shown beside the task.
    """
    tasks = _shown(_ordered(records, asked), asked)
    data = {"tasks": tasks, "guidelines": guidelines, "key": _key(tasks)}
    text = json.dumps(data).replace("<", "\\u003c")
    script = "\n".join(_inlined((PAGE / name).read_text(encoding="utf-8")) for name in SCRIPTS)
    return html("offline.html", data=text, script=script, style=(PAGE / "style.css").read_text(encoding="utf-8"))


def votes_from_page(
    records: Iterable[Comparison], answers: Iterable[Mapping[str, Any]], asked: Questions
) -> Iterator[Comparison]:
    """The records with the votes of downloaded files (one answer per line); `asked` as for the page.

    Somebody's last word on a task counts, by the time `at` of the answer: files of one person may overlap, because the
    page can be downloaded more than once. A task that was skipped in the end has no vote.

    Raises:
        RecordError: an answer of another page, or one that does not fit its task.
    """
    ours = list(records)
    tasks = list(_ordered(ours, asked))
    key = _key(_shown(tasks, asked))
    votes: dict[int, list[Vote]] = {}
    for place, answer in _last_words(answers, len(tasks), key):
        record, item, order = tasks[answer["assignment"]]
        if answer.get("skipped"):
            continue
        try:
            given = votes_of(
                answer["answer"], item, order, asked, annotator=str(answer["annotator"]),
                seconds=float(answer["seconds"]), comment=str(answer.get("comment") or ""),
                flagged=bool(answer.get("flagged")),
            )  # fmt: skip
        except (AnswerError, KeyError, TypeError, ValueError) as error:
            raise RecordError(f"does not fit: {error}", key="answer", place=place, remedy=SAME) from None
        votes.setdefault(id(record), []).extend(given)
    for record in ours:
        yield replace(record, votes=record.votes + tuple(votes.get(id(record), [])))


def _last_words(answers: Iterable[Mapping[str, Any]], tasks: int, key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The newest answer of every (annotator, task) with its place, in the order of answering."""
    newest: dict[tuple[str, int], tuple[float, str, Mapping[str, Any]]] = {}
    for line, answer in enumerate(answers, start=1):
        place, number, who = f"answer {line}", answer.get("assignment"), answer.get("annotator")
        if answer.get("page", key) != key:
            raise RecordError("is of another page", key="page", place=place, remedy=SAME)
        if not isinstance(number, int) or not 0 <= number < tasks:
            raise RecordError(f"is {number!r}", key="assignment", place=place, remedy=SAME)
        if not isinstance(who, str) or not who:
            raise RecordError(f"is {who!r}", key="annotator", place=place, remedy="the name of who answered")
        at = float(answer.get("at") or 0.0)
        if (who, number) not in newest or newest[who, number][0] <= at:
            newest[who, number] = at, place, answer
    return [(place, answer) for _, place, answer in sorted(newest.values(), key=lambda found: found[0])]


def _shown(ordered: Iterable[tuple[Comparison, Item, list[str]]], asked: Questions) -> list[dict[str, Any]]:
    """The tasks as the page has them: no ids, no sources."""
    return [{"assignment": number, **shown(record, order, asked)} for number, (record, _, order) in enumerate(ordered)]


def _key(tasks: list[dict[str, Any]]) -> str:
    """Tells pages with other tasks, sides, forms or scales apart."""
    return hashlib.sha256(json.dumps([_content(task) for task in tasks]).encode()).hexdigest()[:16]


def _content(task: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked, without how it is rendered: pages that were mailed before rendering keep their keys."""
    parts = {
        "turns": [{"role": turn["role"], "content": turn["text"]} for turn in task["turns"] if turn["role"]],
        "slots": [{"slot": each["slot"], "text": each["text"]} for each in task["slots"]],
    }
    return {key: parts.get(key, value) for key, value in task.items() if key != "strengths" or value}


def _ordered(records: Iterable[Comparison], asked: Questions) -> Iterator[tuple[Comparison, Item, list[str]]]:
    number = 0
    for record in records:
        for item in items_of(record, asked.form):
            rng = np.random.default_rng((asked.seed, number))
            yield record, item, [item.completions[i] for i in rng.permutation(len(item.completions))]
            number += 1


def _inlined(script: str) -> str:
    """A module without its imports and exports: all parts stand in one script."""
    lines = [line.removeprefix("export ") for line in script.splitlines() if not line.startswith("import ")]
    return "\n".join(lines)
