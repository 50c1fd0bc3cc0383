"""UKPConvArg1: which of two arguments on the same side of a debate is more convincing (Habernal & Gurevych 2016).

Two files: pairs with five crowd votes each, and the texts of the arguments they name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf.data.importers.labels import entries, winner
from rlhf.data.importers.raw import text
from rlhf.data.source import Rows, each
from rlhf.records import Comparison, OnBad, RecordError, lines, parse

Texts = Mapping[tuple[str, str], Mapping[str, Any]]
"""(prompt_id, argument id) -> the row of the argument."""


def ukpconvarg(rows: Rows, on_bad: OnBad, *, responses_path: str | None = None) -> Iterator[Comparison]:
    """One record per pair; many share a prompt, and completion ids are argument ids.

    `seconds` is the time for a whole task of several pairs: an upper bound on the time for one. `meta.gold` is
    the source's own estimate (an argument id, "tie" or None), not an expert's; `meta.in_strict` marks the pairs
    of the cleaned subset; `pagerank_score` in a completion's meta is LOWER for a more convincing argument.

    Raises:
        RecordError: `responses_path` is missing. A pair with an unknown argument goes to `on_bad`.
    """
    texts = _texts(responses_path)
    yield from each(rows, on_bad, lambda row: [_pair(row, texts)])


def _texts(path: str | None) -> Texts:
    remedy = "data.responses_path=<file with the texts of the arguments>"
    if path is None:
        raise RecordError("the pairs name arguments by id only", key="data.responses_path", remedy=remedy)
    if not Path(path).is_file():
        raise RecordError(f"no such file: {path}", key="data.responses_path", remedy=remedy)
    texts: dict[tuple[str, str], Mapping[str, Any]] = {}
    for place, row in lines(path):
        try:
            prompt_id, response_id, _, _ = (
                text(row, k) for k in ("prompt_id", "response_id", "prompt", "text")
            )
        except RecordError as error:
            raise error.at(place) from error
        texts[prompt_id, response_id] = row
    return texts


def _pair(row: Mapping[str, Any], texts: Texts) -> Comparison:
    prompt_id, a, b = (str(row.get(key)) for key in ("prompt_id", "a", "b"))
    for key, name in (("a", a), ("b", b)):
        if (prompt_id, name) not in texts:
            raise RecordError(
                f"no argument {name!r} under prompt {prompt_id!r}",
                key=key,
                remedy="data.responses_path must hold the texts of the same debates",
            )
    both = [texts[prompt_id, a], texts[prompt_id, b]]
    gold = row.get("gold")
    raw = {
        "prompt_id": prompt_id,
        "prompt": both[0]["prompt"],
        "domain": row.get("debate"),
        "completions": [
            {"id": t["response_id"], "text": t["text"], "meta": {"pagerank_score": t.get("pagerank_score")}}
            for t in both
        ],
        "votes": [
            {
                "annotator": who,
                "seconds": seconds,
                "pair": [a, b],
                "choice": winner(label, a, b, "annotations"),
            }
            for who, label, seconds in entries(row, "annotations", "annotator label seconds")
        ],
        "meta": {
            "pair_id": row.get("pair_id"),
            "gold": None if gold is None else winner(gold, a, b, "gold"),
            "in_strict": row.get("in_strict"),
        },
    }
    return parse(raw)
