"""Graded preferences: which of two answers is better, and by how many steps. The steps are the vote's `margin`."""

import re
from dataclasses import dataclass
from typing import Any

from rlhf.data.importers import raw
from rlhf.data.importers.raw import Row
from rlhf.records import Comparison, RecordError

STEPS = {"slightly": 1.0, "marginally": 1.0, "much": 3.0, "significantly": 3.0, "far": 3.0, "better": 2.0, "worse": 2.0}
"""Steps of a word on HelpSteer's scale (1 slightly better, 2 better, 3 much better); the first one there counts."""
SIDES = {"a": "c0", "first": "c0", "left": "c0", "b": "c1", "second": "c1", "right": "c1"}
EVEN = {"tie", "same", "equal", "equally", "even", "neither"}
MOST = 3.0
NEITHER = -100
"""In HelpSteer2-Preference a person's strength where both responses are useless; it is no tie and no vote."""


@raw.per_row
def graded(row: Row) -> Comparison:
    """`prompt`, `response_a`, `response_b`, `preference`: a number, or words such as "B is much better".

    A number below 0 says that the first answer is better, above 0 the second, 0 is a tie; its size is the margin. In
    words the side is A or B, first or second, left or right; see `STEPS` for their margins, a side alone has none.
    `annotator`, `domain` and `prompt_id` are kept where a row has them.
    """
    preference, who = raw.need(row, "preference"), str(row.get("annotator") or "label")
    worded = isinstance(preference, str) and re.search("[a-z]", preference.lower())
    vote = _worded(who, preference) if worded else _signed(who, preference, "preference")
    answers = raw.completions([raw.text(row, "response_a"), raw.text(row, "response_b")])
    prompt_id = None if row.get("prompt_id") is None else str(row["prompt_id"])
    return raw.record(raw.need(row, "prompt"), answers, [vote], domain=row.get("domain"), prompt_id=prompt_id)


def _worded(annotator: str, preference: str) -> dict[str, Any]:
    words = re.findall(r"[a-z]+", preference.lower())
    sides = {SIDES[word] for word in words if word in SIDES}
    even = not EVEN.isdisjoint(words)
    if len(sides) + even != 1:
        remedy = 'a number below or above 0, "A", "B is slightly better", "tie", ...'
        raise RecordError(f"is {preference!r}: which side is better?", key="preference", remedy=remedy)
    choice = "tie" if even else sides.pop()
    if "worse" in words:
        choice = {"c0": "c1", "c1": "c0"}.get(choice, choice)
    steps = next((size for word, size in STEPS.items() if word in words), 0.0)
    return _vote(annotator, choice, 0.0 if even else steps)


def _signed(annotator: str, value: Any, key: str, most: float | None = None) -> dict[str, Any]:
    """The vote for a strength that is below 0 where the first answer is better."""
    strength = raw.number(value, key)
    if strength is None or (most is not None and abs(strength) > most):
        remedy = "a number: below 0 the first is better, above 0 the second" + (
            f"; -{most:g}..{most:g}" if most else ""
        )
        raise RecordError(f"is {value!r}", key=key, remedy=remedy)
    return _vote(annotator, "tie" if strength == 0 else "c0" if strength < 0 else "c1", abs(strength))


def _vote(annotator: str, choice: str, margin: float) -> dict[str, Any]:
    return {"annotator": annotator, "pair": ["c0", "c1"], "choice": choice, "margin": margin}


@dataclass(frozen=True)
class _Names:
    """Columns of one edition of HelpSteer."""

    prompt: str
    responses: tuple[str, str]
    overall: str
    people: str
    score: str


SECOND = _Names(
    "prompt", ("response_1", "response_2"), "preference_strength", "all_preferences_unprocessed", "strength"
)
THIRD = _Names("context", ("response1", "response2"), "overall_preference", "individual_preference", "score")


@raw.per_row
def helpsteer3(row: Row) -> Comparison:
    """HelpSteer3 and HelpSteer2-Preference: two responses, -3 (the first is much better) to 3 (the second is).

    Every person's score is a vote; the annotators are numbered within a row, as the sets do not tell who they are. The
    set's summary stays in the record's meta, and is the only vote where no person's score is given. How many people
    called both useless (-100) stays in the meta as `neither`.
    """
    names = THIRD if "context" in row else SECOND
    answers = raw.completions([raw.text(row, name) for name in names.responses])
    key = f"{names.people}.{names.score}"
    people = [] if row.get(names.people) is None else raw.objects(row, names.people)
    useless = sum(one.get(names.score) == NEITHER for one in people)
    given = [(f"person {n}", one.get(names.score)) for n, one in enumerate(people, start=1)]
    votes = [_signed(who, score, key, MOST) for who, score in given if score != NEITHER]
    if not people or row.get(names.overall) is not None:
        overall = _signed("overall", raw.need(row, names.overall), names.overall, MOST)
        votes = votes if people else [overall]
    meta = {k: row[k] for k in (names.overall, "language") if row.get(k) is not None}
    meta |= {"neither": useless} if useless else {}
    return raw.record(raw.need(row, names.prompt), answers, votes, domain=row.get("domain"), meta=meta or None)
