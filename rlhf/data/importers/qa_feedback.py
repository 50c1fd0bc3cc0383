"""QA-Feedback (FineGrainedRLHF, Wu et al. 2023): four answers to a question, all six pairs voted on, ties allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from rlhf.data.importers.labels import winner
from rlhf.data.importers.raw import listed
from rlhf.data.source import Rows, each
from rlhf.records import Comparison, OnBad, RecordError, parse

ANNOTATOR = "unnamed"
"""The source does not say who voted."""


def qa_feedback(rows: Rows, on_bad: OnBad, *, shuffle_seed: int | None = 0) -> Iterator[Comparison]:
    """One record per question; completion `r0` is the source's first answer, and so on.

    The first answer comes from the main model and wins 60 % of its comparisons, so completions are put in
    another order, drawn per question: whatever prefers the first of equals would look better than it is.

    Args:
        rows: raw rows.
        on_bad: gets the errors of bad rows.
        shuffle_seed: seed of the order of completions; None keeps the source's order.
    """
    yield from each(rows, on_bad, lambda row: [_question(row, shuffle_seed)])


def _question(row: Mapping[str, Any], seed: int | None) -> Comparison:
    responses, comparisons = listed(row, "responses"), listed(row, "comparisons")
    ids = [f"r{n}" for n in range(len(responses))]
    order = sorted(ids, key=lambda i: sha256(f"{seed}:{row.get('prompt_id')}:{i}".encode()).digest())
    order = ids if seed is None else order
    raw = {
        "prompt_id": row.get("prompt_id"),
        "prompt": row.get("prompt"),
        "domain": "question_answering",
        "completions": [{"id": i, "text": responses[ids.index(i)]} for i in order],
        "votes": [_vote(comparison, ids, order) for comparison in comparisons],
    }
    return parse(raw)


def _vote(comparison: Any, ids: list[str], order: list[str]) -> dict[str, Any]:
    try:
        a, b = ids[comparison["a"]], ids[comparison["b"]]
        choice = winner(comparison["label"], a, b, "comparisons")
    except (KeyError, IndexError, TypeError) as error:
        remedy = f"places 0..{len(ids) - 1} of two answers and a label"
        raise RecordError(f"is {comparison!r}", key="comparisons", remedy=remedy) from error
    return {"annotator": ANNOTATOR, "pair": sorted((a, b), key=order.index), "choice": choice}
