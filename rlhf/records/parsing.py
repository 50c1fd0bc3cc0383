"""JSON objects to records, checked: an error names the key and the remedy; `rlhf.records` adds the line."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from rlhf.records.types import KINDS, LIKERT, Comparison, Completion, Message, Prompt, RecordError, Vote

LARGEST = 1e300  # numbers in a record are smaller than this: JSON knows no infinity, and Python's reader does


def _keys(raw: Any, what: str, *, required: Sequence[str], optional: Sequence[str]) -> Mapping[str, Any]:
    """The object `raw`, after a check that it has the required keys and no unknown one."""
    if not isinstance(raw, dict):
        raise RecordError(f"{what} must be a JSON object, got {type(raw).__name__}", key=what)
    known = [*required, *optional]
    for key in raw:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            remedy = f"did you mean '{close[0]}'?" if close else "put keys of your own under 'meta'"
            raise RecordError(f"unknown key in {what}", key=key, remedy=remedy)
    for key in required:
        if key not in raw:
            raise RecordError(f"missing from {what}", key=key, remedy=f"every {what} needs {', '.join(required)}")
    return raw


def _string(raw: Any, key: str) -> str:
    if not isinstance(raw, str):
        raise RecordError(f"must be a string, got {type(raw).__name__}", key=key, remedy="quote it")
    return raw


def _name(raw: Any, key: str) -> str:
    if not _string(raw, key):
        raise RecordError("is empty", key=key, remedy="any name that is not used twice")
    return str(raw)


def _number(raw: Any, key: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not -LARGEST < raw < LARGEST:
        raise RecordError(f"must be a finite number, got {str(raw)[:40]}", key=key)
    return float(raw)


def _mapping(raw: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise RecordError(f"must be an object, got {type(raw).__name__}", key=key)
    return raw


def parse_prompt(raw: Any, key: str = "prompt") -> Prompt:
    """A string, or a non-empty list of `{"role", "content"}`, as a `Prompt`. Raises RecordError."""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list) or not raw:
        raise RecordError("must be a string or a non-empty list of messages", key=key)
    messages = []
    for m in raw:
        _keys(m, "message", required=("role", "content"), optional=("name",))
        messages.append(Message(role=_string(m["role"], "role"), content=_string(m["content"], "content")))
    return tuple(messages)


def _completion(raw: Any) -> Completion:
    _keys(raw, "completion", required=("id", "text"), optional=("source", "meta"))
    return Completion(
        id=_name(raw["id"], "completions.id"),
        text=_string(raw["text"], "completions.text"),
        source=_mapping(raw.get("source", {}), "completions.source"),
        meta=_mapping(raw.get("meta", {}), "completions.meta"),
    )


def _pairwise(raw: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    pair = raw["pair"]
    if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
        raise RecordError("must be a list of two different completion ids", key="votes.pair")
    _known(pair, ids, "votes.pair")
    choice = raw.get("choice")
    if choice not in (*pair, "tie"):
        raise RecordError(f"is {choice!r}", key="votes.choice", remedy=f"one of {pair[0]}, {pair[1]}, tie")
    margin = _number(raw.get("margin", 0.0), "votes.margin")
    if margin < 0:
        raise RecordError("must not be negative", key="votes.margin", remedy="swap choice, or write 0 for none")
    p = raw.get("p")
    if p is not None and not 0 <= (p := _number(p, "votes.p")) <= 1:
        raise RecordError(f"is {p:g}", key="votes.p", remedy="the probability that the first is better, 0 to 1")
    return {"pair": tuple(pair), "choice": choice, "margin": margin, "p": p}


def _ranking(raw: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    groups = raw["ranking"]
    if not isinstance(groups, list) or not groups or not all(isinstance(g, list) and g for g in groups):
        problem = "must be a non-empty list of non-empty lists of ids, best first"
        raise RecordError(problem, key="votes.ranking", remedy='[["c2"], ["c0", "c1"]]')
    flat = [i for g in groups for i in g]
    _known(flat, ids, "votes.ranking")
    if len(set(flat)) != len(flat):
        raise RecordError("names a completion twice", key="votes.ranking")
    return {"ranking": tuple(tuple(g) for g in groups)}


def _likert(raw: Mapping[str, Any], ids: Sequence[str], scale: tuple[float, float]) -> dict[str, Any]:
    ratings = _mapping(raw["likert"], "votes.likert")
    if not ratings:
        raise RecordError("rates nothing", key="votes.likert", remedy='{"c0": 4, "c1": 2}, or no vote')
    _known(list(ratings), ids, "votes.likert")
    values = {i: _number(v, f"votes.likert.{i}") for i, v in ratings.items()}
    for i, v in values.items():
        if not scale[0] <= v <= scale[1]:
            remedy = f"scale is {scale[0]:g}..{scale[1]:g}; another one goes into the file's header line"
            raise RecordError(f"rating {v:g} is off the scale", key=f"votes.likert.{i}", remedy=remedy)
    return {"likert": values}


def _known(named: Iterable[Any], ids: Sequence[str], key: str) -> None:
    for i in named:
        if i not in ids:
            raise RecordError(f"no completion has the id {i!r}", key=key, remedy=f"ids here: {', '.join(ids)}")


def _vote(raw: Any, ids: Sequence[str], scale: tuple[float, float]) -> Vote:
    optional = ["kind", "criterion", "seconds", "gold", "pair", "choice", "margin", "p", "ranking", "likert", "meta"]
    _keys(raw, "vote", required=("annotator",), optional=optional)
    forms = [k for k in ("pair", "ranking", "likert") if raw.get(k) is not None]
    if len(forms) != 1:
        problem = f"a vote has one form, this one has {forms or 'none'}"
        raise RecordError(problem, key="votes", remedy="pair+choice, ranking, or likert")
    kind = raw.get("kind", "human")
    if kind not in KINDS:
        raise RecordError(f"is {kind!r}", key="votes.kind", remedy=f"one of {', '.join(KINDS)}")
    gold = raw.get("gold", False)
    if not isinstance(gold, bool):
        raise RecordError("must be true or false", key="votes.gold")
    readers: dict[str, Callable[..., dict[str, Any]]] = {
        "pair": _pairwise, "ranking": _ranking, "likert": partial(_likert, scale=scale)
    }  # fmt: skip
    seconds = raw.get("seconds")
    return Vote(
        annotator=_string(raw["annotator"], "votes.annotator"),
        kind=kind,
        criterion=_string(raw.get("criterion", "overall"), "votes.criterion"),
        seconds=None if seconds is None else _number(seconds, "votes.seconds"),
        gold=gold,
        meta=_mapping(raw.get("meta", {}), "votes.meta"),
        **readers[forms[0]](raw, ids),
    )


def parse(raw: Any, scale: tuple[float, float] = LIKERT) -> Comparison:
    """One decoded JSON object as a `Comparison`.

    Args:
        raw: the object of one line.
        scale: lowest and highest Likert rating allowed.

    Raises:
        RecordError: names the key and the remedy; `read` adds file and line.
    """
    required = ("prompt_id", "prompt", "completions")
    _keys(raw, "record", required=required, optional=("votes", "domain", "meta"))
    if not isinstance(raw["completions"], list) or not raw["completions"]:
        raise RecordError("must be a non-empty list", key="completions")
    completions = tuple(_completion(c) for c in raw["completions"])
    ids = [c.id for c in completions]
    if len(set(ids)) != len(ids) or "tie" in ids:
        problem = "ids must be different, and 'tie' is reserved"
        raise RecordError(problem, key="completions.id", remedy=f"got {', '.join(ids)}")
    votes = raw.get("votes", [])
    if not isinstance(votes, list):
        raise RecordError("must be a list", key="votes", remedy="an empty list where nobody voted yet")
    domain = raw.get("domain")
    return Comparison(
        prompt_id=_string(raw["prompt_id"], "prompt_id"),
        prompt=parse_prompt(raw["prompt"]),
        completions=completions,
        votes=tuple(_vote(v, ids, scale) for v in votes),
        domain=None if domain is None else _string(domain, "domain"),
        meta=_mapping(raw.get("meta", {}), "meta"),
    )


def parse_header(raw: Any) -> tuple[float, float]:
    """The Likert scale (lowest, highest) that a file's header line states. Raises RecordError."""
    _keys(raw, "header", required=(), optional=("likert", "meta"))
    scale = raw.get("likert", list(LIKERT))
    if not isinstance(scale, list) or len(scale) != 2:
        raise RecordError("must be [lowest, highest]", key="header.likert")
    low, high = _number(scale[0], "header.likert"), _number(scale[1], "header.likert")
    if not low < high:
        raise RecordError("lowest must be below highest", key="header.likert")
    return low, high
