"""`annotator=label_studio`, `argilla`, `page`: tasks out to another tool, and its answers back in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.annotate.exchange import (
    LABEL_STUDIO_CONFIG,
    from_argilla,
    from_label_studio,
    to_argilla,
    to_label_studio,
)
from rlhf.annotate.items import check_form
from rlhf.annotate.job import Job
from rlhf.annotate.offline_page import offline_page, votes_from_page
from rlhf.annotate.serve import GUIDELINES
from rlhf.records import lines, read


def label_studio(job: Job, *, answers: str | None) -> None:
    """Without answers: `out` is Label Studio's import, the interface beside it. With answers: `out` gets the votes."""
    if answers is not None:
        tasks = _json(answers)
        job.add_votes(lambda records: from_label_studio(records, tasks))
        return
    _write(job.out, json.dumps(list(to_label_studio(read(job.task_file()))), ensure_ascii=False, indent=1))
    _write(Path(f"{job.out}.interface.xml"), LABEL_STUDIO_CONFIG)


def argilla(job: Job, *, answers: str | None) -> None:
    """Without answers: `out` is a JSON of Argilla records. With answers: `out` gets the votes."""
    if answers is not None:
        rows = _json(answers)
        job.add_votes(lambda records: from_argilla(records, rows))
        return
    _write(job.out, json.dumps(list(to_argilla(read(job.task_file()))), ensure_ascii=False, indent=1))


@dataclass(frozen=True)
class Page:
    """A self-contained HTML page: `out` is the page; with the answers' files, `out` gets the votes.

    Args:
        answers: files that annotators downloaded from the page.
        form, criteria, scale, seed: as in `rlhf.annotate.session.AnnotationPlan`; the same both times.
        guidelines: text file shown beside every task.
    """

    answers: Sequence[str] = ()
    form: str = "pair"
    criteria: Sequence[str] = ("helpfulness", "harmlessness", "honesty")
    scale: Sequence[int] = (1, 5)
    seed: int = 0
    guidelines: str | None = None

    def __call__(self, job: Job) -> None:
        """Write the page, or the votes."""
        low, high = self.scale
        how: dict[str, Any] = {
            "form": check_form(self.form), "criteria": tuple(self.criteria), "scale": (low, high), "seed": self.seed
        }  # fmt: skip
        if self.answers:
            given = [value for file in self.answers for _, value in lines(file)]
            job.add_votes(lambda records: votes_from_page(records, given, **how))
            return
        text = GUIDELINES if self.guidelines is None else Path(self.guidelines).read_text(encoding="utf-8")
        _write(job.out, offline_page(read(job.task_file()), guidelines=text, **how))


def _json(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"written: {path}")
