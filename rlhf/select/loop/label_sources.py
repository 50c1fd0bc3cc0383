"""Where votes come from: held back in the data, simulated annotators, AI judges, or people who answer later.

A label source gets orders, pairs with the number of votes to obtain, and gives votes pair by pair; what was given is
in the journal before the next is asked for. Draws depend on (seed, pair, vote number), so equal runs meet equal votes.

Task files for people are blind: `tasks-0.jsonl` shows a pair's two answers in random order under neutral ids, without
their sources, their meta and the pair's own name, which may hold the name of a model: `meta.pair_id` is a digest of it.
True rewards, where the data has them (the toy world), lie apart in `tasks-0.gold.json`, for simulated annotators.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import numpy as np

from rlhf.annotate.ai_feedback import AiFeedback
from rlhf.annotate.simulated import SimulatedAnnotators
from rlhf.records import Comparison, Completion, RecordError, Vote, read, write
from rlhf.select.pool_builder import BuiltPool, on_pair
from rlhf.stats.arrays import Ints

SIDES = ("c0", "c1")
"""Ids in a task file of the first and the second completion of the pair, in whatever order they stand there."""


@dataclass(frozen=True)
class Order:
    """Obtain `count` votes on the pair in this row of the pool, which has `already` of them."""

    row: int
    count: int
    already: int = 0


Obtained = Iterator[tuple[int, list[Vote]]]
"""(row, votes) of one order after the other."""


class Waiting(Exception):
    """Votes are not there yet; the message says what to do, then the run goes on where it stopped."""


class LabelSource(ABC):
    """Gives votes."""

    costly: bool = False
    """True where votes cost time or money: then one selector and one seed, and no comparison with random."""
    holds_back: bool = False
    """True where only votes of the data can be obtained."""

    def room(self, built: BuiltPool) -> Ints:
        """Votes [n] that a pair can get in all; without a limit by default."""
        return np.full(len(built.pool), 10**6)

    @abstractmethod
    def votes(self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path) -> Obtained:
        """(row, votes) of every order, in any order; fewer votes than asked for where there are no more."""


@dataclass(frozen=True)
class HeldBack(LabelSource):
    """The votes that the data holds on the pair, in an order drawn per seed: real votes, as if obtained one by one."""

    holds_back = True

    def room(self, built: BuiltPool) -> Ints:
        """As many as the data holds."""
        return np.array([len(votes) for votes in built.held_back])

    def votes(self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path) -> Obtained:
        """The next votes of every pair."""
        for order in orders:
            held = built.held_back[order.row]
            rank = _rng(built, order.row, seed).permutation(len(held))
            yield order.row, [held[i] for i in rank[order.already : order.already + order.count]]


@dataclass(frozen=True)
class Simulated(LabelSource):
    """Simulated annotators on completions whose gold reward is known; `annotators(seed=...)` gives the pool of them."""

    annotators: Callable[..., SimulatedAnnotators]

    def room(self, built: BuiltPool) -> Ints:
        """One per person."""
        return np.full(len(built.pool), self.annotators(seed=0).people)

    def votes(self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path) -> Obtained:
        """Votes of people drawn at random."""
        people = self.annotators(seed=seed)
        for order in orders:
            people.votes_per_item = min(order.already + order.count, people.people)
            votes = people.annotate(built.task(order.row), _rng(built, order.row, seed)).votes
            yield order.row, list(votes[order.already :])


@dataclass(frozen=True)
class Ai(LabelSource):
    """AI judges; every pair gets all their votes at once, whatever number was ordered."""

    feedback: AiFeedback
    costly = True

    def votes(self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path) -> Obtained:
        """Votes as they come in."""
        tasks = [built.task(order.row) for order in orders]
        for order, record in zip(orders, self.feedback.vote(tasks), strict=True):
            yield order.row, on_pair(record, 0, 1)


@dataclass(frozen=True)
class People(LabelSource):
    """Tasks go out as a file; the run stops, and goes on when the answers are there.

    Round r writes `tasks-r.jsonl` (blind records with votes to be cast, for `annotate.py tasks=...`) and reads every
    file `votes-r*.jsonl` beside it.
    """

    costly = True

    def votes(self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path) -> Obtained:
        """What has come back.

        Raises:
            Waiting: pairs are still without votes.
            RecordError: an answer to a pair that was not asked about.
        """
        wanted = {str(built.pool.ids[o.row]): o for o in orders}
        answers = self._answers(folder, round_, built, wanted)
        for name in answers:
            yield wanted[name].row, answers[name]
        missing = [order for name, order in wanted.items() if name not in answers]
        if missing:
            tasks = folder / f"tasks-{round_}.jsonl"
            write_tasks(tasks, built, [order.row for order in missing])
            raise Waiting(
                f"{len(missing)} pairs wait for votes in {tasks}; for instance:\n"
                f"  python annotate.py annotator=web tasks={tasks} out={folder}/votes-{round_}.jsonl\n"
                f"(more files votes-{round_}*.jsonl are read too)"
            )

    def _answers(
        self, folder: Path, round_: int, built: BuiltPool, wanted: Mapping[str, Order]
    ) -> dict[str, list[Vote]]:
        found: dict[str, list[Vote]] = {}
        names = {alias(name): name for name in wanted} | {name: name for name in wanted}
        later = re.compile(rf"votes-{round_}\d")  # votes-10.jsonl is of another round than votes-1.jsonl
        for path in sorted(folder.glob(f"votes-{round_}*.jsonl")):
            if later.match(path.name):
                continue
            for record in read(path):
                if record.meta.get("pair_id") is None or len(record.completions) != 2:
                    raise RecordError(
                        f"record {record.prompt_id} is not a task of this run", place=str(path), key="meta.pair_id",
                        remedy=f"answers must be the records of tasks-{round_}.jsonl with votes added",
                    )  # fmt: skip
                name = names.get(str(record.meta["pair_id"]))
                votes = [] if name is None else votes_on(record, built.task(wanted[name].row))
                if name is not None and votes:
                    found.setdefault(name, []).extend(votes)
        return found


def alias(pair_id: str) -> str:
    """The name of a pair in a task file."""
    return sha256(pair_id.encode("utf-8", "replace")).hexdigest()[:16]


def write_tasks(path: Path, built: BuiltPool, rows: Sequence[int]) -> None:
    """The pairs in these rows of the pool as blind records without votes; true rewards apart, where there are any."""
    records, gold = [], {}
    for row in rows:
        task = built.task(row)
        name = alias(str(task.meta["pair_id"]))
        shown = [Completion(side, c.text) for side, c in zip(SIDES, task.completions, strict=True)]
        known = {s: c.meta["gold"] for s, c in zip(SIDES, task.completions, strict=True) if "gold" in c.meta}
        if len(known) == len(SIDES):
            gold[name] = known
        order = np.random.default_rng(int(name, 16)).permutation(len(SIDES))
        records.append(replace(task, completions=tuple(shown[i] for i in order), meta={"pair_id": name}))
    write(path, records)
    if gold:
        path.with_suffix(".gold.json").write_text(json.dumps(gold, indent=1), encoding="utf-8")


def votes_on(record: Comparison, task: Comparison) -> list[Vote]:
    """The votes of an answered task on the pair it was made from, with the pair's own ids.

    A record that has the pair's own ids already, as task files had before they were blind, is taken as it is.
    """
    own = [c.id for c in task.completions]
    if record.meta.get("pair_id") == task.meta["pair_id"]:
        return on_pair(record, record.position(own[0]), record.position(own[1]))
    names = {**dict(zip(SIDES, own, strict=True)), "tie": "tie"}
    votes = on_pair(record, record.position(SIDES[0]), record.position(SIDES[1]))
    return [
        replace(vote, pair=(own[0], own[1]), choice=None if vote.choice is None else names[vote.choice])
        for vote in votes
    ]


def _rng(built: BuiltPool, row: int, seed: int) -> np.random.Generator:
    return np.random.default_rng((seed, crc32(str(built.pool.ids[row]).encode())))
