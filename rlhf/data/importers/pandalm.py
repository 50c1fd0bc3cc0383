"""PandaLM test set: two models' answers to an instruction, each pair with votes of the same three annotators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf.data.importers.labels import entries, winner
from rlhf.data.source import Rows, each
from rlhf.records import Comparison, OnBad, RecordError, parse, prompt_hash


def pandalm(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """One record per pair; the prompt is the instruction and, after an empty line, its input when there is one.

    The set has no prompt ids, so pairs with the same prompt get the same `prompt_hash` as theirs.
    """
    yield from each(rows, on_bad, lambda row: [_pair(row)])


def _pair(row: Mapping[str, Any]) -> Comparison:
    parts = [row.get("prompt"), row.get("input") or ""]
    if not all(isinstance(part, str) for part in parts):
        raise RecordError("must be strings", key="prompt, input")
    prompt = "\n\n".join(part for part in parts if part)
    models = str(row.get("models", "")).split("_")
    if len(models) != 2:
        raise RecordError(f"is {row.get('models')!r}", key="models", remedy="the two models as <a>_<b>")
    raw = {
        "prompt_id": prompt_hash(prompt),
        "prompt": prompt,
        "domain": "instruction_following",
        "completions": [
            {"id": side, "text": row.get(side), "source": {"model": model}}
            for side, model in zip("ab", models, strict=True)
        ],
        "votes": [
            {"annotator": who, "pair": ["a", "b"], "choice": winner(label, "a", "b", "annotations")}
            for who, label in entries(row, "annotations", "annotator label")
        ],
        "meta": {"pair_id": row.get("pair_id")},
    }
    return parse(raw)
