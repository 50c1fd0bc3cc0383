"""An annotation project: who gets what next, what they see, and what their answers become. No web in here.

Items are given out so that each gets `overlap` different people, begun ones first; gold items are mixed in at random;
calibration items come first and go to everybody. Nobody gets an item that they have voted on in the tasks' file. What a
person sees names no model and no id; the order of the sides is drawn per person and item.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from sqlalchemy import Row, and_, exists, func, or_, select, update
from sqlalchemy.engine import Connection

from rlhf.annotate.items import AnswerError, Item, Questions, annotators_of, items_of, shown, votes_of
from rlhf.annotate.store import BEFORE, DONE, EXPIRED, OPEN, SKIPPED, Person, Store, assignments, items
from rlhf.records import Comparison, RecordError, Vote, dump, parse, prompt_text


@dataclass(frozen=True)
class AnnotationPlan(Questions):
    """How a project is annotated; fixed when it begins.

    Args:
        form, strengths, criteria, scale: what people are asked.
        overlap: people per item (3 to 5 is usual).
        gold_share: chance that the next item is a gold item, while there are any left for the person.
        lease_hours: an item in hand for longer is given to somebody else.
        seed: of sides and of when gold items come.
    """

    overlap: int = 3
    gold_share: float = 0.1
    lease_hours: float = 24.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap < 1:
            raise RecordError(f"is {self.overlap}", key="annotator.overlap", remedy="1 or more; 3 to 5 is usual")
        if not 0 <= self.gold_share < 1:
            raise RecordError(f"is {self.gold_share:g}", key="annotator.gold_share", remedy="0 up to 1")


def _note(body: dict[str, Any]) -> dict[str, Any]:
    return {"flagged": bool(body.get("flagged")), "comment": str(body.get("comment") or "")[:2000]}


class Gone(Exception):
    """The assignment is not open: answered otherwise, undone, or given to somebody else."""


class TooSoon(Exception):
    """Right after the person's last answer: the second click of a double click, which meant the item before."""


class Session:
    """One project on one store.

    Args:
        store: the database.
        plan: how to annotate; a store that was begun with another plan is refused.
        pause: seconds between two answers of one person, at least.

    Raises:
        RecordError: the store has another plan.
    """

    def __init__(self, store: Store, plan: AnnotationPlan, pause: float = 0.0) -> None:
        self.store, self.plan, self.pause = store, plan, pause
        wanted = json.loads(json.dumps(asdict(plan)))
        stored = {"strengths": []} | store.setting("plan", wanted)  # begun before there were any
        if stored != wanted:
            changed = ", ".join(k for k in wanted if stored.get(k) != wanted[k])
            remedy = "go on with the old values, or use another out= (and database)"
            raise RecordError("differs from the plan this project began with", key=changed, remedy=remedy)

    def load(self, tasks: Iterable[Comparison]) -> int:
        """Put the tasks into an empty project; a project that has tasks keeps them. Gives the items added."""

        def row(record: Comparison, item: Item) -> dict[str, Any]:
            flags = {"gold": item.gold, "calibration": item.calibration, "voted": annotators_of(record, item)}
            return {"form": item.form, "completions": json.dumps(item.completions), **flags}

        return self.store.fill(
            (json.dumps(dump(task), ensure_ascii=False), [row(task, item) for item in items_of(task, self.plan.form)])
            for task in tasks
        )

    def next(self, person: Person) -> dict[str, Any]:
        """What the person sees next: {"done": true} at the end, or the item in slots, with progress."""
        row = self.store.assign(person.id, self._choose, self._slots)
        if row is None:
            return {"done": True, "progress": self._progress(person)}
        record = parse(json.loads(row.json))
        task = shown(record, json.loads(row.slots), self.plan)
        return {"done": False, "assignment": row.id, **task, "progress": self._progress(person)}

    def answer(self, person: Person, body: dict[str, Any]) -> None:
        """Take an answer: {"assignment", "answer": {...}, "seconds", "flagged", "comment"}; a retry changes nothing.

        Raises:
            AnswerError: the answer does not fit the item.
            Gone: the assignment is not this person's, or not open any more.
            TooSoon: after another answer.
        """
        number = body.get("assignment")
        if not isinstance(number, int):
            raise AnswerError("assignment must be the number that came with the item")
        seconds = body.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < 1e6:
            raise AnswerError("seconds must be the time the item was looked at, 0 or more")
        kept = {"answer": body.get("answer"), "seconds": float(seconds), **_note(body)}
        held = self.store.open_assignment(person.id)
        if held is not None and held.id == number:
            self._votes(held, person.name, kept)  # refuses what does not fit before it is stored
            self._wait(person)
            kept["seconds"] = min(kept["seconds"], time.time() - held.since + 1)
        stored = self.store.answer(number, person.id, json.dumps(kept, sort_keys=True))
        if not stored and not self._retried(number, person, kept):
            raise Gone("that item was closed already, or went to somebody else; here is the next one")

    def skip(self, person: Person, body: dict[str, Any]) -> None:
        """Give an item back; it goes to somebody else. Raises Gone and TooSoon as `answer` does."""
        number = body.get("assignment")
        held = self.store.open_assignment(person.id)
        if held is not None and held.id == number:
            self._wait(person)
        text = json.dumps(_note(body), sort_keys=True)
        if not isinstance(number, int) or not self.store.answer(number, person.id, text, SKIPPED):
            raise Gone("that item is not in your hands any more; here is the next one")

    def undo(self, person: Person) -> bool:
        """Bring back the person's last item. False where there is none, or it was skipped and others have it now."""
        return self.store.undo(person.id, self._has_room)

    def people(self) -> list[dict[str, Any]]:
        """Everybody with a link who annotates: name, token, and assignments by state."""
        found = [(p, self.store.progress(p.id)) for p in self.store.everybody() if not p.admin]
        return [{"name": p.name, "token": p.token, **own} for p, own in found if set(own) != {BEFORE}]

    def notes(self, limit: int = 200) -> list[dict[str, Any]]:
        """What people flagged or commented, answers and skipped items, newest first."""
        return [
            {
                "annotator": row.name, "prompt": prompt_text(parse(json.loads(row.json)).prompt),
                "skipped": row.state == SKIPPED, "flagged": bool(note.get("flagged")), "comment": note["comment"],
            }
            for row in self.store.noted(limit)
            for note in [json.loads(row.answer)]
        ]  # fmt: skip

    def results(self) -> Iterator[Comparison]:
        """The records with the votes so far."""
        for text, rows in self.store.answered():
            record = parse(json.loads(text))
            votes = [v for row in rows for v in self._votes(row, row.name, json.loads(row.answer))]
            yield replace(record, votes=record.votes + tuple(votes))

    def totals(self) -> dict[str, int]:
        """Items of the project, and how many of them have all the people they need."""
        done = (
            select(assignments.c.item).where(assignments.c.state == DONE)
            .group_by(assignments.c.item).having(func.count() >= self.plan.overlap).subquery()
        )  # fmt: skip
        with self.store.reader.connect() as db:
            number = db.execute(select(func.count()).select_from(items)).scalar_one()
            complete = db.execute(select(func.count()).select_from(done)).scalar_one()
        return {"items": int(number), "complete": int(complete)}

    def _votes(self, row: Row[Any], name: str, kept: dict[str, Any]) -> list[Vote]:
        if not isinstance(kept["answer"], dict):
            raise AnswerError("answer must be an object")
        item = Item(row.form, tuple(json.loads(row.completions)), bool(row.gold))
        return votes_of(
            kept["answer"], item, json.loads(row.slots), self.plan, annotator=name, seconds=kept["seconds"],
            comment=kept["comment"], flagged=kept["flagged"],
        )  # fmt: skip

    def _wait(self, person: Person) -> None:
        if time.time() - self.store.last_closed(person.id) < self.pause:
            raise TooSoon("that came right after your last answer and was not counted; answer this one again")

    def _has_room(self, db: Connection, item: int) -> bool:
        """Whether the item can be given to one more person."""
        row = db.execute(select(items.c.gold, items.c.calibration).where(items.c.id == item)).one()
        held = and_(assignments.c.item == item, assignments.c.state.in_([OPEN, DONE]))
        number = db.execute(select(func.count()).select_from(assignments).where(held)).scalar_one()
        return bool(row.gold or row.calibration or number < self.plan.overlap)

    def _retried(self, number: int, person: Person, kept: dict[str, Any]) -> bool:
        """Whether the assignment holds this very answer, the time aside: the page sent it twice."""
        with self.store.reader.connect() as db:
            row = db.execute(select(assignments).where(assignments.c.id == number)).first()
        if row is None or row.person != person.id or row.state != DONE:
            return False
        stored = json.loads(row.answer)
        return bool(stored["answer"] == kept["answer"])

    def _progress(self, person: Person) -> dict[str, int]:
        """How many items the person has answered, and how many more they could be given."""
        mine = self.store.progress(person.id)
        count = select(func.count()).select_from(self._candidates(person.id).subquery())
        with self.store.reader.connect() as db:
            left = db.execute(count).scalar_one()
        return {"answered": mine.get(DONE, 0), "left": int(left) + mine.get(OPEN, 0)}

    def _candidates(self, person: int) -> Any:
        """Items this person was never given and that still need people."""
        taken = (
            select(assignments.c.item, func.count().label("number"))
            .where(assignments.c.state.in_([OPEN, DONE]))
            .group_by(assignments.c.item)
            .subquery()
        )
        own = exists().where(and_(assignments.c.item == items.c.id, assignments.c.person == person))
        number = func.coalesce(taken.c.number, 0)
        wanted = or_(items.c.gold, items.c.calibration, number < self.plan.overlap)
        columns = (items.c.id, items.c.completions, items.c.gold, items.c.calibration, items.c.place)
        joined = items.outerjoin(taken, taken.c.item == items.c.id)
        return select(*columns, number.label("number")).select_from(joined).where(~own, wanted)

    def _choose(self, db: Connection, person: int) -> Row[Any] | None:
        old = time.time() - 3600 * self.plan.lease_hours
        stale = and_(assignments.c.state == OPEN, assignments.c.since < old)
        db.execute(update(assignments).where(stale).values(state=EXPIRED))
        given = db.execute(select(func.count()).where(assignments.c.person == person)).scalar_one()
        lucky = np.random.default_rng((self.plan.seed, person, given)).random() < self.plan.gold_share
        left = self._candidates(person).subquery()
        begun_first = (left.c.calibration.desc(), left.c.number.desc(), left.c.place)
        for gold in (lucky, not lucky):
            either = or_(left.c.calibration, left.c.gold if gold else ~left.c.gold)
            row = db.execute(select(left).where(either).order_by(*begun_first).limit(1)).first()
            if row is not None:
                return row
        return None

    def _slots(self, item: int, person: int, completions: list[str]) -> list[str]:
        rng = np.random.default_rng((self.plan.seed, item, person))
        return [completions[i] for i in rng.permutation(len(completions))]
