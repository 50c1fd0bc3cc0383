"""Ratings: UltraFeedback and HelpSteer. Likert votes, one per criterion; a missing rating leaves its answer out."""

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf.data.file_formats import Rows
from rlhf.data.importers import raw
from rlhf.data.importers.raw import Row
from rlhf.data.source import each
from rlhf.records import Comparison, OnBad, RecordError

HELPSTEER_SCALE = (0.0, 4.0)
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


@raw.per_row
def ultrafeedback(row: Row) -> Comparison:
    """UltraFeedback, raw (instruction and completions with GPT-4 ratings per aspect) or binarized (two chats)."""
    return _rated(row) if "completions" in row else _binarized(row)


def _rated(row: Row) -> Comparison:
    answers = raw.objects(row, "completions")
    annotations = [raw.mapping(a.get("annotations"), "completions.annotations") for a in answers]
    aspects = {name: None for aspect in annotations for name in aspect}
    ratings = {name.replace("-", "_"): [_aspect(j.get(name), name) for j in annotations] for name in aspects}
    overall = [raw.number(a.get("overall_score"), "completions.overall_score") for a in answers]
    votes = likert(ratings | {"overall": overall}, "gpt-4", "ai")
    sources = [{"model": a["model"]} if a.get("model") else {} for a in answers]
    texts = [raw.text(a, "response") for a in answers]
    domain = row.get("source")
    return raw.record(
        raw.text(row, "instruction"), raw.completions(texts, sources), votes, scale=ULTRAFEEDBACK_SCALE, domain=domain
    )


def _aspect(annotation: Any, name: str) -> float | None:
    """The rating of one aspect; some are lists of one per fact, which count by their mean."""
    if isinstance(annotation, list):
        values = [v for a in annotation if (v := _aspect(a, name)) is not None]
        return sum(values) / len(values) if values else None
    key = f"completions.annotations.{name}"
    return raw.number(raw.mapping(annotation, key).get("Rating"), f"{key}.Rating")


def _binarized(row: Row) -> Comparison:
    chosen, rejected = (
        raw.messages(raw.need(row, "chosen"), "chosen"),
        raw.messages(raw.need(row, "rejected"), "rejected"),
    )
    if chosen[:-1] != rejected[:-1]:
        raise RecordError("the chats part before their last message", key="chosen, rejected")
    scores = [raw.number(row.get(k), k) for k in ("score_chosen", "score_rejected")]
    texts = [chosen[-1]["content"], rejected[-1]["content"]]
    prompt_id = None if row.get("prompt_id") is None else str(row["prompt_id"])
    if None in scores:
        return raw.hard_pair(chosen[:-1], texts[0], texts[1], kind="ai", prompt_id=prompt_id)
    votes = likert({"overall": scores}, "gpt-4", "ai")
    return raw.record(chosen[:-1], raw.completions(texts), votes, scale=ULTRAFEEDBACK_SCALE, prompt_id=prompt_id)


def helpsteer(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """HelpSteer: `prompt`, `response` and five attributes 0..4; consecutive rows of one prompt are one record.

    A bad row costs its own answer only; the other answers to the prompt stay together.
    """
    groups = raw.consecutive(rows, on_bad, lambda row: (raw.text(row, "prompt"), _answer(row)))
    yield from each(groups, on_bad, lambda row: [_attributes(row["rows"])])


def _answer(row: Row) -> dict[str, Any]:
    ratings = {name: raw.number(row.get(name), name) for name in HELPSTEER}
    for name, rating in ratings.items():
        if rating is not None and not HELPSTEER_SCALE[0] <= rating <= HELPSTEER_SCALE[1]:
            raise RecordError(f"rating {rating:g} is off the scale", key=name, remedy="0..4, or N/A")
    return {"prompt": raw.text(row, "prompt"), "response": raw.text(row, "response"), **ratings}


def _attributes(rows: list[Row]) -> Comparison:
    ratings = {name: [r[name] for r in rows] for name in HELPSTEER}
    votes = likert(ratings, "helpsteer", "human")
    answers = raw.completions([r["response"] for r in rows])
    return raw.record(rows[0]["prompt"], answers, votes, scale=HELPSTEER_SCALE)
