"""Chat arenas: one user talks to two models at once and says who was better, or that both were good or bad."""

import json
from collections.abc import Mapping
from typing import Any

from rlhf.data.importers import raw
from rlhf.data.importers.pairs import Turns, parted
from rlhf.data.importers.raw import Row
from rlhf.records import Comparison, RecordError

WINNERS = {
    "model_a": "c0", "model_b": "c1", "a": "c0", "b": "c1", "tie": "tie", "tie (bothbad)": "tie", "both_bad": "tie",
    "bothbad": "tie",
}  # fmt: skip
BAD = ("tie (bothbad)", "both_bad", "bothbad")
ONE_HOT = {"winner_model_a": "model_a", "winner_model_b": "model_b", "winner_tie": "tie"}


@raw.per_row
def arena(row: Row) -> Comparison:
    """LMSYS and LMArena logs: `conversation_a`, `conversation_b` and `winner`; or `prompt`, `response_a`, `response_b`.

    `winner` is model_a, model_b, tie, or tie (bothbad); the 55k set has `winner_model_a`, `winner_model_b` and
    `winner_tie` (0 or 1) and its turns as JSON lists. The prompt is what both chats begin with; later turns stay in
    the answer's text with their speakers. The annotator is the `judge`, the domain the `language`. A tie because both
    are bad has `both_bad` in the vote's meta. A chat with an image is refused.
    """
    said = _winner(row)
    prompt, *texts = parted(*_chats(row), key="conversation_a, conversation_b")
    sources = [{"model": raw.text(row, key)} if row.get(key) else {} for key in ("model_a", "model_b")]
    who = row.get("judge") or row.get("evaluation_session_id") or "label"
    vote: dict[str, Any] = {"annotator": str(who), "pair": ["c0", "c1"], "choice": WINNERS[said]}
    if said in BAD:
        vote["meta"] = {"both_bad": True}
    name = row.get("question_id") or row.get("id")
    more: dict[str, Any] = {"domain": row.get("language"), "prompt_id": None if name is None else str(name)}
    return raw.record(prompt, raw.completions(texts, sources), [vote], **more)


def _winner(row: Row) -> str:
    if "winner" in row:
        said = raw.text(row, "winner").strip().lower()
        if said not in WINNERS:
            raise RecordError(f"is {row['winner']!r}", key="winner", remedy=f"one of {', '.join(WINNERS)}")
        return said
    marked = [name for key, name in ONE_HOT.items() if raw.zero_or_one(row, key, "0 or 1")]
    if len(marked) != 1:
        raise RecordError(f"{len(marked)} of them are 1", key=", ".join(ONE_HOT), remedy="exactly one")
    return marked[0]


def _chats(row: Row) -> tuple[Turns, Turns]:
    if "conversation_a" in row:
        return _chat(row, "conversation_a"), _chat(row, "conversation_b")
    asked = _texts(row, "prompt")
    return _alternating(asked, _texts(row, "response_a")), _alternating(asked, _texts(row, "response_b"))


def _chat(row: Row, key: str) -> Turns:
    turns = _decoded(raw.need(row, key), key)
    if not isinstance(turns, list) or not all(isinstance(t, Mapping) and isinstance(t.get("role"), str) for t in turns):
        raise RecordError('must be a list of {"role", "content"}', key=key)
    return [(turn["role"], _content(turn.get("content"), key)) for turn in turns]


def _content(content: Any, key: str) -> str:
    """A text, or a list of parts that are all texts."""
    if isinstance(content, str):
        return content
    parts: list[Any] = list(content) if hasattr(content, "__iter__") and not isinstance(content, Mapping) else []
    if not parts or not all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in parts):
        raise RecordError("holds something that is no text", key=key, remedy="only chats of texts can be read")
    if any(part.get("image") for part in parts):
        raise RecordError("holds an image", key=key, remedy="only chats of texts can be read")
    return "\n".join(part["text"] for part in parts)


def _texts(row: Row, key: str) -> list[str]:
    """One text per turn: a JSON list in a string, as the 55k set has it, or a single text."""
    value = _decoded(raw.need(row, key), key)
    turns = [value] if isinstance(value, str) else value
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise RecordError("must be a text, or a list of texts", key=key)
    return turns


def _decoded(value: Any, key: str) -> Any:
    """Lists as they are, arrays of Parquet as lists, and strings that hold a JSON list decoded."""
    if isinstance(value, str):
        try:
            found = json.loads(value) if value.lstrip().startswith("[") else value
        except (json.JSONDecodeError, RecursionError):
            return value
        return found if isinstance(found, list) else value
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, Mapping) else value


def _alternating(asked: list[str], answered: list[str]) -> Turns:
    if len(asked) != len(answered):
        raise RecordError(f"{len(asked)} turns asked, {len(answered)} answered", key="prompt, response_a, response_b")
    both = zip(asked, answered, strict=True)
    return [turn for ask, answer in both for turn in (("user", ask), ("assistant", answer))]
