"""LLMBar (Zeng et al. 2024): pairs with a gold label, as published, or with many AI judges' verdicts in both orders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from rlhf.data.importers.labels import entries, winner
from rlhf.data.importers.raw import hard_pair, need, number, part, text
from rlhf.data.source import Rows, each
from rlhf.records import Comparison, OnBad, RecordError, parse


def llmbar(rows: Rows, on_bad: OnBad, *, gold: bool = False) -> Iterator[Comparison]:
    """One record per pair, one AI vote per judge and prompt style (the annotator is `judge/style`).

    The choice is the verdict when both orders agree and a tie when they do not: a verdict that follows the
    position says nothing about the answers. Both verdicts stay in the vote's meta (`given`, `swapped`). A
    judge with an unreadable verdict (null) in either order has no vote. `meta.gold` is the set's own label.

    Args:
        rows, on_bad: raw rows, and what takes the bad ones.
        gold: one vote by the annotator `gold`, the set's own label, instead of the AI judges' verdicts.
    """
    yield from each(rows, on_bad, lambda row: [_pair(row, gold)])


def llmbar_pairs(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """LLMBar as published: `input`, `output_1`, `output_2`, `label` (1 or 2: the better one).

    The domain is the subset: the folder of each `dataset.json` (Natural, Neighbor, GPTInst, GPTOut, Manual), or the
    split of the hub set.
    """
    for place, row in rows:
        yield from each(iter([(place, row)]), on_bad, partial(_labelled, subset=part(place, folder=True)))


def _labelled(row: Mapping[str, Any], subset: str) -> list[Comparison]:
    label = number(need(row, "label"), "label")
    if label not in (1.0, 2.0):
        raise RecordError(f"is {row['label']!r}", key="label", remedy="1 or 2, the better output")
    outputs = [text(row, "output_1"), text(row, "output_2")]
    better, worse = outputs if label == 1 else outputs[::-1]
    return [hard_pair(text(row, "input"), better, worse, domain=subset)]


def _pair(row: Mapping[str, Any], gold: bool) -> Comparison:
    label = winner(row.get("gold"), "a", "b", "gold")
    raw = {
        "prompt_id": f"llmbar-{row.get('pair_id')}",
        "prompt": row.get("prompt"),
        "domain": "instruction_following",
        "completions": [{"id": side, "text": row.get(side)} for side in "ab"],
        "votes": [{"annotator": "gold", "pair": ["a", "b"], "choice": label}] if gold else _verdicts(row),
        "meta": {"gold": label},
    }
    return parse(raw)


def _verdicts(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        _vote(f"{judge}/{style}", given, swapped)
        for judge, style, given, swapped in entries(row, "ai_labels", "judge style given swapped")
        if given is not None and swapped is not None
    ]


def _vote(annotator: str, given: Any, swapped: Any) -> dict[str, Any]:
    verdicts = [winner(label, "a", "b", "ai_labels") for label in (given, swapped)]
    return {
        "annotator": annotator,
        "kind": "ai",
        "pair": ["a", "b"],
        "choice": given if len(set(verdicts)) == 1 else "tie",
        "meta": {"given": given, "swapped": swapped},
    }
