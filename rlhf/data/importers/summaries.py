"""OpenAI's summarize-from-feedback: two summaries of a post, one worker's choice per row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rlhf.data.importers.raw import Row, completions, listed, need, record, text
from rlhf.data.source import Rows, each
from rlhf.records import Comparison, OnBad, RecordError


def summarize_from_feedback(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """`info`, `summaries` (two), `choice` (0 or 1), `worker`; consecutive rows on the same texts are one record."""

    def texts_of(item: tuple[str, Row]) -> Any:
        place, row = item
        if not isinstance(row, Mapping) or not isinstance(row.get("summaries"), list):
            return place
        return [(row.get("info") or {}).get("id"), [s.get("text") for s in row["summaries"]]]

    groups = ((members[0][0], {"rows": [r for _, r in members]})
              for _, group in groupby(rows, texts_of) for members in [list(group)])  # fmt: skip
    yield from each(groups, on_bad, lambda row: [_comparison(row["rows"])])


def _comparison(rows: list[Row]) -> Comparison:
    if not all(isinstance(r, Mapping) for r in rows):
        raise RecordError("a row must be an object")
    first = rows[0]
    info, summaries = need(first, "info"), listed(first, "summaries")
    if len(summaries) != 2:
        raise RecordError(f"has {len(summaries)} summaries", key="summaries", remedy="two")
    body = next((info[k] for k in ("post", "article") if info.get(k)), None)
    if body is None:
        raise RecordError("has neither post nor article", key="info")
    prompt = "\n\n".join(p for p in (info.get("title"), body) if p)
    sources = [{"model": s["policy"]} if s.get("policy") else {} for s in summaries]
    meta = {"split": first["split"]} if first.get("split") else None
    return record(
        prompt,
        completions([text(s, "text") for s in summaries], sources),
        [_vote(r) for r in rows],
        prompt_id=info.get("id"),
        domain=info.get("subreddit") or info.get("site"),
        meta=meta,
    )


def _vote(row: Row) -> dict[str, Any]:
    choice = need(row, "choice")
    if choice not in (0, 1):
        raise RecordError(f"is {choice!r}", key="choice", remedy="0 or 1: which summary is better")
    confidence = (row.get("extra") or {}).get("confidence")
    meta = {} if confidence is None else {"meta": {"confidence": confidence}}
    return {
        "annotator": str(row.get("worker", "label")),
        "pair": ["c0", "c1"],
        "choice": f"c{choice}",
        **meta,
    }
