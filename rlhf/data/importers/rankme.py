"""RankME (Novikova et al. 2018): texts of several systems for one meaning, rated 1..6 on three criteria."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf.data.importers.raw import listed, text
from rlhf.data.source import Rows
from rlhf.records import Comparison, OnBad, RecordError, parse

CRITERIA = ("informativeness", "naturalness", "quality")

SCALE = (1.0, 6.0)
"""Lowest and highest rating; hand it to `rlhf.records.write` as `likert` when writing these records."""


def rankme(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """One record per prompt, with the texts of all its systems; completion ids are the systems' names.

    A Likert vote holds the ratings one annotator gave to all the texts of the prompt under one criterion.
    The rows of a prompt may lie anywhere in the file, so all are read before the first record comes out.
    """
    grouped: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for place, row in rows:
        try:
            _check(row)
        except RecordError as error:
            on_bad(error.at(place))
        else:
            grouped.setdefault(row["prompt_id"], []).append((place, row))
    for members in grouped.values():
        try:
            record = _group([row for _, row in members])
        except RecordError as error:
            on_bad(error.at(members[0][0]))
        else:
            yield record


def _check(row: Any) -> None:
    if not isinstance(row, Mapping):
        raise RecordError(f"a row must be an object, got {type(row).__name__}")
    for key in ("prompt_id", "prompt", "system", "response"):
        text(row, key)
    if not all(isinstance(rating, Mapping) and "annotator" in rating for rating in listed(row, "ratings")):
        raise RecordError("must be ratings", key="ratings", remedy=f"{{annotator, {', '.join(CRITERIA)}}}")


def _group(rows: list[Mapping[str, Any]]) -> Comparison:
    """The record of one prompt from the rows of its systems."""
    ratings: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["prompt"] != rows[0]["prompt"]:
            raise RecordError(f"{row['prompt_id']!r} names two different prompts", key="prompt_id")
        for rating in row["ratings"]:
            for criterion in CRITERIA:
                if criterion in rating:
                    vote = ratings.setdefault((rating["annotator"], criterion), {})
                    vote[row["system"]] = rating[criterion]
    raw = {
        "prompt_id": rows[0]["prompt_id"],
        "prompt": rows[0]["prompt"],
        "domain": "data_to_text",
        "completions": [
            {"id": row["system"], "text": row["response"], "source": {"model": row["system"]}} for row in rows
        ],
        "votes": [
            {"annotator": annotator, "criterion": criterion, "likert": likert}
            for (annotator, criterion), likert in ratings.items()
        ],
    }
    return parse(raw, SCALE)
