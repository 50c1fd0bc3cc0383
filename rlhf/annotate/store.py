"""Where an annotation project lives: tasks, people, assignments and answers in SQLite (WAL) or PostgreSQL.

Every step is one transaction, and an assignment row exists before anybody sees its item. So a killed server loses
nothing, nobody gets an item twice, and no item gets more people than planned, whatever runs in parallel.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.engine import Connection, Row

OPEN, DONE, SKIPPED, EXPIRED = "open", "done", "skipped", "expired"
BEFORE = "before"  # state of an item that the person has voted on before the project began: never given to them

Choose = Callable[[Connection, int], "Row[Any] | None"]
"""The next item (id, completions) for a person, chosen inside the transaction; None = nothing left."""
Room = Callable[[Connection, int], bool]
"""Whether an item may have one more person, inside the transaction."""
Order = Callable[[int, int, list[str]], list[str]]
"""Completions of (item, person) in the order of the slots."""
ASSIGNING = 7_270_001  # number of PostgreSQL's advisory lock under which items are given out, one at a time

tables = sa.MetaData()


def _given(name: str, kind: Any, **options: Any) -> sa.Column[Any]:
    """A column that every row fills."""
    return sa.Column(name, kind, nullable=False, **options)


def _number() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True)


records = sa.Table("records", tables, _number(), _given("json", sa.Text))
items = sa.Table(
    "items", tables, _number(), _given("record", sa.ForeignKey("records.id")), _given("form", sa.String(10)),
    _given("completions", sa.Text), _given("gold", sa.Boolean), _given("calibration", sa.Boolean),
    _given("place", sa.Integer),
)  # fmt: skip
people = sa.Table(
    "people", tables, _number(), _given("name", sa.String(100), unique=True),
    _given("token", sa.String(64), unique=True), _given("admin", sa.Boolean),
)  # fmt: skip
assignments = sa.Table(
    "assignments", tables, _number(), _given("item", sa.ForeignKey("items.id"), index=True),
    _given("person", sa.ForeignKey("people.id"), index=True), _given("slots", sa.Text),
    _given("state", sa.String(10)), _given("since", sa.Float), sa.Column("answer", sa.Text),
    sa.Column("done", sa.Float), sa.UniqueConstraint("item", "person"),
)  # fmt: skip
history = sa.Table(
    "history", tables, _number(), _given("assignment", sa.ForeignKey("assignments.id")), _given("at", sa.Float),
    _given("what", sa.String(10)), sa.Column("answer", sa.Text),
)  # fmt: skip
about = sa.Table("about", tables, sa.Column("key", sa.String(50), primary_key=True), _given("value", sa.Text))

WHOLE = (
    sa.select(assignments, items.c.form, items.c.completions, items.c.gold, people.c.name, records.c.json)
    .join(items, assignments.c.item == items.c.id)
    .join(people, assignments.c.person == people.c.id)
    .join(records, items.c.record == records.c.id)
)
"""Assignments with their item, person and record."""


@dataclass(frozen=True)
class Person:
    """Somebody who has a link."""

    id: int
    name: str
    admin: bool


class Store:
    """The database of one project.

    Args:
        url: sqlite:///<file>, or postgresql+psycopg://user:password@host/name.
    """

    def __init__(self, url: str) -> None:
        self.engine: Engine = sa.create_engine(url, pool_pre_ping=True)
        if self.engine.dialect.name == "sqlite":
            _as_wal(self.engine)
        tables.create_all(self.engine)
        self.reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    def setting(self, key: str, value: Any) -> Any:
        """The value stored under the key; stores `value` where there is none."""
        with self.engine.begin() as db:
            row = db.execute(sa.select(about.c.value).where(about.c.key == key)).first()
            if row is None:
                db.execute(sa.insert(about).values(key=key, value=json.dumps(value)))
                return json.loads(json.dumps(value))
            return json.loads(row.value)

    def fill(self, tasks: Iterator[tuple[str, list[dict[str, Any]]]]) -> int:
        """Store records (as JSON) with their items, in their order, where the project is empty; gives items stored."""
        with self.engine.begin() as db:
            if db.execute(sa.select(sa.func.count()).select_from(records)).scalar_one():
                return 0
            number = 0
            for record, (text, own) in enumerate(tasks, start=1):
                db.execute(sa.insert(records).values(id=record, json=text))
                for item in own:
                    number += 1
                    voted = item.pop("voted")
                    db.execute(sa.insert(items).values(id=number, record=record, place=number, **item))
                    for name in voted:
                        values = {"item": number, "person": _person(db, name).id, "slots": "[]", "state": BEFORE}
                        db.execute(sa.insert(assignments).values(**values, since=time.time()))
            return number

    def person(self, token: str) -> Person | None:
        """Whose link this is."""
        with self.reader.connect() as db:
            row = db.execute(sa.select(people).where(people.c.token == token)).first()
        return None if row is None else Person(row.id, row.name, row.admin)

    def link(self, name: str, *, admin: bool = False) -> str:
        """The secret of somebody's link; made at the first call, the same ever after."""
        with self.engine.begin() as db:
            return str(_person(db, name, admin=admin).token)

    def everybody(self) -> list[Row[Any]]:
        """Everybody who has a link, in the order they got it."""
        with self.reader.connect() as db:
            return list(db.execute(sa.select(people).order_by(people.c.id)).all())

    def open_assignment(self, person: int) -> Row[Any] | None:
        """The item a person has in hand, with its record."""
        with self.reader.connect() as db:
            return self._in_hand(db, person)

    def assign(self, person: int, choose: Choose, slots: Order) -> Row[Any] | None:
        """Give a person the next item, or the one in hand; None when there is nothing left.

        `choose` picks the item inside the transaction; `slots` orders its completions for this person.
        """
        with self.engine.begin() as db:
            self._one_by_one(db)
            held = self._in_hand(db, person)
            if held is not None:
                return held
            item = choose(db, person)
            if item is None:
                return None
            order = json.dumps(slots(item.id, person, json.loads(item.completions)))
            values = {"item": item.id, "person": person, "slots": order, "state": OPEN, "since": time.time()}
            db.execute(sa.insert(assignments).values(**values))
            return self._in_hand(db, person)

    def answer(self, assignment: int, person: int, text: str, state: str = DONE) -> bool:
        """Close an assignment with an answer (JSON). True also where the same answer is there already (a retry).

        False: it is not this person's, or is closed with another answer.
        """
        with self.engine.begin() as db:
            row = db.execute(
                sa.select(assignments)
                .where(assignments.c.id == assignment, assignments.c.person == person)
                .with_for_update()
            ).first()
            if row is None or row.state != OPEN:
                return row is not None and row.state == state and row.answer == text
            values = {"state": state, "answer": text, "done": time.time()}
            db.execute(sa.update(assignments).where(assignments.c.id == assignment).values(**values))
            db.execute(sa.insert(history).values(assignment=assignment, at=time.time(), what=state, answer=text))
            return True

    def last_closed(self, person: int) -> float:
        """When the person last answered or skipped an item (seconds since the epoch); 0 for never."""
        closed = sa.select(sa.func.max(assignments.c.done)).where(assignments.c.person == person)
        with self.reader.connect() as db:
            return float(db.execute(closed).scalar_one() or 0.0)

    def noted(self, limit: int) -> list[Row[Any]]:
        """Closed assignments with a flag or a comment, newest first, with the person's name and the record."""
        said = sa.or_(assignments.c.answer.contains('"flagged": true'), ~assignments.c.answer.contains('"comment": ""'))
        query = WHOLE.where(assignments.c.state.in_([DONE, SKIPPED]), said)
        with self.reader.connect() as db:
            return list(db.execute(query.order_by(assignments.c.done.desc()).limit(limit)).all())

    def undo(self, person: int, room: Room) -> bool:
        """Re-open a person's last closed assignment; an item in hand waits behind it.

        False: there is none, or it was skipped and its item has no `room` any more.
        """
        with self.engine.begin() as db:
            self._one_by_one(db)
            row = db.execute(
                sa.select(assignments)
                .where(assignments.c.person == person, assignments.c.state.in_([DONE, SKIPPED]))
                .order_by(assignments.c.done.desc())
                .limit(1)
            ).first()
            if row is None or (row.state == SKIPPED and not room(db, row.item)):
                return False
            now = time.time()
            values = {"state": OPEN, "answer": None, "done": None, "since": now}
            db.execute(sa.update(assignments).where(assignments.c.id == row.id).values(**values))
            db.execute(sa.insert(history).values(assignment=row.id, at=now, what="undo", answer=row.answer))
            return True

    def progress(self, person: int | None = None) -> dict[str, int]:
        """Assignments by state: of one person, or of all."""
        mine = [] if person is None else [assignments.c.person == person]
        query = sa.select(assignments.c.state, sa.func.count()).where(*mine).group_by(assignments.c.state)
        with self.reader.connect() as db:
            return {state: number for state, number in db.execute(query).all()}

    def answered(self) -> Iterator[tuple[str, list[Row[Any]]]]:
        """Every record (JSON) with its answered assignments, joined with item and person, in the order of answering."""
        with self.reader.connect() as db:
            for record in db.execute(sa.select(records).order_by(records.c.id)):
                query = WHOLE.where(items.c.record == record.id, assignments.c.state == DONE)
                yield record.json, list(db.execute(query.order_by(assignments.c.done)).all())

    def _one_by_one(self, db: Connection) -> None:
        if self.engine.dialect.name == "postgresql":  # SQLite's transactions follow one another anyway
            db.execute(sa.select(sa.func.pg_advisory_xact_lock(ASSIGNING)))

    def _in_hand(self, db: Connection, person: int) -> Row[Any] | None:
        query = WHOLE.where(assignments.c.person == person, assignments.c.state == OPEN)
        return db.execute(query.order_by(assignments.c.since.desc()).limit(1)).first()


def _person(db: Connection, name: str, *, admin: bool = False) -> Row[Any]:
    """The person of this name; made with a new secret where there is none."""
    query = sa.select(people).where(people.c.name == name)
    row = db.execute(query).first()
    if row is None:
        db.execute(sa.insert(people).values(name=name, token=secrets.token_urlsafe(24), admin=admin))
        row = db.execute(query).one()
    return row


def _as_wal(engine: Engine) -> None:
    """SQLite: write-ahead log, writers one after the other, a transaction takes the lock when it begins."""

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
