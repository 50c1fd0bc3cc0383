"""What one person votes on at a time, and how the answer becomes votes of the record.

An item is a pair, or all completions of a record to rank or rate. People see letters for slots, in a random order that
is drawn for each of them; ids, models and sources stay here.
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from rlhf.annotate.markdown import rendered
from rlhf.labels.vote_table import levels
from rlhf.records import Comparison, RecordError, Vote, as_messages, prompt_text

Form = Literal["pair", "ranking", "likert"]
LETTERS = string.ascii_uppercase
MOST_STRENGTHS = 4
"""Grades of a preference: with both sides and the tie they fill the number keys."""


@dataclass(frozen=True)
class Questions:
    """What people are asked.

    Args:
        form: pair, ranking or likert.
        strengths: words for how much better, weakest first; a pair's vote keeps which of them as its `margin`,
            1, 2, ... One or none: only which answer is better is asked.
        criteria: what Likert items are rated on.
        scale: lowest and highest rating.
        seed: of the sides.

    Raises:
        RecordError: another form, or strengths that cannot be told apart or are not of pairs.
    """

    form: Form = "pair"
    strengths: Sequence[str] = ()
    criteria: Sequence[str] = ("helpfulness", "harmlessness", "honesty")
    scale: Sequence[int] = (1, 5)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.form not in ("pair", "ranking", "likert"):
            raise RecordError(f"is {self.form!r}", key="annotator.form", remedy="pair, ranking or likert")
        if self.strengths and (self.form != "pair" or len(set(self.strengths)) < len(self.strengths)):
            raise RecordError(f"is {list(self.strengths)}", key="annotator.strengths",
                              remedy="different words, weakest first, and form=pair")  # fmt: skip
        if len(self.strengths) > MOST_STRENGTHS:
            raise RecordError(f"names {len(self.strengths)}", key="annotator.strengths",
                              remedy=f"at most {MOST_STRENGTHS}, so that each has a key")  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One item of a record: its form, the ids of the completions to vote on, and whether the answer is known."""

    form: Form
    completions: tuple[str, ...]
    gold: bool = False
    calibration: bool = False


def items_of(record: Comparison, form: Form) -> Iterator[Item]:
    """The items of a record: every pair of completions, or one of all of them.

    A record with `meta.gold` (the id of the best completion, or "tie") is a gold check; one with
    `meta.session: calibration` is answered by everybody, first.
    """
    ids = tuple(c.id for c in record.completions)
    gold = record.meta.get("gold") is not None
    calibration = record.meta.get("session") == "calibration"
    for group in combinations(ids, 2) if form == "pair" else [ids]:
        yield Item(form, group, gold, calibration)


def annotators_of(record: Comparison, item: Item) -> list[str]:
    """Who has voted on all completions of the item already."""
    return sorted({v.annotator for v in record.votes if set(item.completions) <= set(levels(v))})


def shown(record: Comparison, order: Sequence[str], asked: Questions) -> dict[str, Any]:
    """What a page shows of an item, its completions in `order`: no ids and no sources.

    Every text comes as it was written (`text`) and as safe HTML (`html`).
    """
    text = {c.id: c.text for c in record.completions}
    plain = isinstance(record.prompt, str)
    chat = [("" if plain else m["role"], m["content"]) for m in as_messages(record.prompt)]
    return {
        "form": asked.form,
        "prompt": prompt_text(record.prompt),
        "turns": [{"role": role, **_both(content)} for role, content in chat],
        "slots": [{"slot": LETTERS[k], **_both(text[i])} for k, i in enumerate(order)],
        "strengths": list(asked.strengths),
        "criteria": list(asked.criteria) if asked.form == "likert" else [],
        "scale": list(asked.scale),
    }


def _both(text: str) -> dict[str, str]:
    return {"text": text, "html": rendered(text)}


class AnswerError(ValueError):
    """An answer that does not fit its item; the message says what was expected."""


def votes_of(
    answer: Mapping[str, Any], item: Item, order: Sequence[str], asked: Questions, *, annotator: str, seconds: float,
    comment: str = "", flagged: bool = False,
) -> list[Vote]:  # fmt: skip
    """The votes that an answer in slots (A, B, ...) stands for.

    Args:
        answer: {"choice": "A" | "B" | "tie"} and, where strengths are asked, {"strength": 1, 2, ...};
            {"ranking": [["B"], ["A", "C"]]} best first with ties sharing a list; or
            {"likert": {criterion: {"A": 4, ...}}}.
        item: what was answered.
        order: completion ids in the order of the slots.
        asked: what people are asked.
        annotator, seconds, comment, flagged: of the vote.

    Raises:
        AnswerError: the answer does not fit.
    """
    slots = dict(zip(LETTERS, order, strict=False))
    meta: dict[str, Any] = {"first": order[0]}
    meta |= {"comment": comment} if comment else {}
    meta |= {"flagged": True} if flagged else {}
    common: dict[str, Any] = {"seconds": round(seconds, 1), "gold": item.gold, "meta": meta}
    if item.form == "pair":
        choice = answer.get("choice")
        if choice != "tie" and choice not in slots:
            raise AnswerError(f"choice is {choice!r}: one of {', '.join(slots)}, tie")
        pair = (item.completions[0], item.completions[1])
        margin = 0.0 if choice == "tie" else _margin(answer.get("strength"), asked.strengths)
        chosen = "tie" if choice == "tie" else slots[str(choice)]
        return [Vote(annotator, pair=pair, choice=chosen, margin=margin, **common)]
    if item.form == "ranking":
        ranking = _ranking(answer.get("ranking"), slots)
        return [Vote(annotator, ranking=ranking, **common)]
    return [
        Vote(annotator, criterion=name, likert=_ratings(answer.get("likert"), name, slots, asked.scale), **common)
        for name in asked.criteria
    ]


def _margin(strength: Any, strengths: Sequence[str]) -> float:
    """Steps of preference, 0 where they are not asked."""
    if len(strengths) < 2:
        return 0.0
    if type(strength) is not int or not 1 <= strength <= len(strengths):
        raise AnswerError(f"strength is {strength!r}: 1 to {len(strengths)} ({', '.join(strengths)})")
    return float(strength)


def _ranking(given: Any, slots: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    groups = given if isinstance(given, list) and all(isinstance(g, list) for g in given) else []
    named = [slot for group in groups for slot in group]
    if sorted(map(str, named)) != sorted(slots) or not all(groups):
        raise AnswerError(f"ranking must name each of {', '.join(slots)} once, best first, ties in one list")
    return tuple(tuple(slots[slot] for slot in group) for group in groups)


def _ratings(given: Any, criterion: str, slots: Mapping[str, str], scale: Sequence[int]) -> dict[str, float]:
    ratings = given.get(criterion) if isinstance(given, dict) else None
    low, high = scale
    fits = isinstance(ratings, dict) and set(ratings) == set(slots)
    if not fits or not all(type(r) is int and low <= r <= high for r in ratings.values()):  # type: ignore[union-attr]
        raise AnswerError(f"likert must rate {criterion} of each of {', '.join(slots)} with {low} to {high}")
    return {slots[slot]: float(rating) for slot, rating in dict(ratings or {}).items()}
