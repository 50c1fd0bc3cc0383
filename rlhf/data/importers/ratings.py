"""Ratings: UltraFeedback and HelpSteer. Likert votes, one per criterion; a missing rating leaves its answer out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rlhf.data.importers.raw import Row, completions, hard_pair, listed, messages, need, number, record, text
from rlhf.data.source import Rows, each
from rlhf.records import Comparison, OnBad, RecordError

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ULTRAFEEDBACK_SCALE = (0.0, 10.0)


def likert(ratings: Mapping[str, list[float | None]], annotator: str, kind: str) -> list[dict[str, Any]]:
    """One vote per criterion over the answers c0, c1, ... that were rated on it."""
    votes = []
    for criterion, values in ratings.items():
        rated = {f"c{i}": v for i, v in enumerate(values) if v is not None}
        if rated:
            votes.append({"annotator": annotator, "kind": kind, "criterion": criterion, "likert": rated})
    return votes


def ultrafeedback(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """UltraFeedback, raw (instruction and completions with GPT-4 ratings per aspect) or binarized (two chats)."""
    yield from each(rows, on_bad, lambda row: [_rated(row) if "completions" in row else _binarized(row)])


def _rated(row: Row) -> Comparison:
    answers = listed(row, "completions")
    aspects = {name: None for a in answers for name in (a.get("annotations") or {})}
    ratings = {
        name.replace("-", "_"): [_aspect((a.get("annotations") or {}).get(name), name) for a in answers]
        for name in aspects
    }
    overall = [number(a.get("overall_score"), "completions.overall_score") for a in answers]
    votes = likert(ratings | {"overall": overall}, "gpt-4", "ai")
    sources = [{"model": a["model"]} if a.get("model") else {} for a in answers]
    texts = [text(a, "response") for a in answers]
    domain = row.get("source")
    return record(
        text(row, "instruction"), completions(texts, sources), votes, scale=ULTRAFEEDBACK_SCALE, domain=domain
    )


def _aspect(annotation: Any, name: str) -> float | None:
    """The rating of one aspect; some are lists of one per fact, which count by their mean."""
    if isinstance(annotation, list):
        values = [v for a in annotation if (v := _aspect(a, name)) is not None]
        return sum(values) / len(values) if values else None
    return number((annotation or {}).get("Rating"), f"completions.annotations.{name}.Rating")


def _binarized(row: Row) -> Comparison:
    chosen, rejected = messages(need(row, "chosen"), "chosen"), messages(need(row, "rejected"), "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise RecordError("the chats part before their last message", key="chosen, rejected")
    scores = [number(row.get(k), k) for k in ("score_chosen", "score_rejected")]
    texts = [chosen[-1]["content"], rejected[-1]["content"]]
    if None in scores:
        return hard_pair(chosen[:-1], texts[0], texts[1], kind="ai")
    votes = likert({"overall": scores}, "gpt-4", "ai")
    return record(chosen[:-1], completions(texts), votes, scale=ULTRAFEEDBACK_SCALE)


def helpsteer(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """HelpSteer: `prompt`, `response` and five attributes 0..4; consecutive rows of one prompt are one record."""

    def prompt_of(item: tuple[str, Row]) -> Any:
        return item[1].get("prompt") if isinstance(item[1], Mapping) else item[0]

    groups = ((place_rows[0][0], {"rows": [r for _, r in place_rows]})
              for _, members in groupby(rows, prompt_of) for place_rows in [list(members)])  # fmt: skip
    yield from each(groups, on_bad, lambda row: [_attributes(row["rows"])])


def _attributes(rows: list[Row]) -> Comparison:
    if not all(isinstance(r, Mapping) for r in rows):
        raise RecordError("a row must be an object")
    ratings = {a: [number(r.get(a), a) for r in rows] for a in HELPSTEER}
    answers = completions([text(r, "response") for r in rows])
    votes = likert(ratings, "helpsteer", "human")
    return record(text(rows[0], "prompt"), answers, votes, scale=(0.0, 4.0))
