"""OpenAI's summarize-from-feedback: two summaries of a post, one worker's choice per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf.data.importers.raw import (
    Row,
    completions,
    consecutive,
    mapping,
    need,
    objects,
    optional_text,
    record,
    text,
    zero_or_one,
)
from rlhf.data.source import Rows, each
from rlhf.records import Comparison, OnBad, RecordError


def summarize_from_feedback(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """`info`, `summaries` (two), `choice` (0 or 1), `worker`: consecutive rows on the same post and the same two
    summaries are one record with a vote each; a bad row costs its own vote only.
    """
    rows_of_pairs = consecutive(rows, on_bad, _keyed_vote)
    yield from each(rows_of_pairs, on_bad, lambda row: [_comparison(row["rows"])])


def _keyed_vote(row: Row) -> tuple[Any, tuple[dict[str, Any], dict[str, Any]]]:
    """One row as (what it is about, (the record's fields, the vote))."""
    info, summaries = mapping(need(row, "info"), "info"), objects(row, "summaries")
    if len(summaries) != 2:
        raise RecordError(f"has {len(summaries)} summaries", key="summaries", remedy="two")
    body = optional_text(info, "post") or optional_text(info, "article")
    if not body:
        raise RecordError("has neither post nor article", key="info")
    prompt = "\n\n".join(p for p in (optional_text(info, "title"), body) if p)
    texts = [text(s, "text") for s in summaries]
    sources = [{"model": s["policy"]} if s.get("policy") else {} for s in summaries]
    fields = {
        "prompt": prompt,
        "answers": completions(texts, sources),
        "prompt_id": info.get("id"),
        "domain": info.get("subreddit") or info.get("site"),
        "meta": {"split": row["split"]} if row.get("split") else None,
    }
    return (info.get("id"), prompt, texts), (fields, _vote(row))


def _comparison(votes_of_pair: list[tuple[dict[str, Any], dict[str, Any]]]) -> Comparison:
    return record(**votes_of_pair[0][0], votes=[vote for _, vote in votes_of_pair])


def _vote(row: Row) -> dict[str, Any]:
    choice = zero_or_one(row, "choice", "0 or 1: which summary is better")
    confidence = mapping(row.get("extra"), "extra").get("confidence")
    meta = {} if confidence is None else {"meta": {"confidence": confidence}}
    return {
        "annotator": str(row.get("worker", "label")),
        "pair": ["c0", "c1"],
        "choice": f"c{choice}",
        **meta,
    }
