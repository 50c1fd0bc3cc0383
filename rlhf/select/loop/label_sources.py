"""Where votes come from: held back in the data, simulated annotators, AI judges, or people who answer later.

A label source gets orders, pairs with the number of votes to obtain, and gives votes pair by pair; what was given is
in the
journal before the next is asked for. Draws depend on (seed, pair, vote number), so equal runs meet equal votes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zlib import crc32

import numpy as np

from rlhf.annotate.ai_feedback import AiFeedback
from rlhf.annotate.simulated import SimulatedAnnotators
from rlhf.records import RecordError, Vote, read
from rlhf.select.loop.task_files import alias, votes_on, write_tasks
from rlhf.select.pool_builder import BuiltPool, on_pair
from rlhf.stats.arrays import Ints


@dataclass(frozen=True)
class Order:
    """Obtain `count` votes on the pair in this row of the pool, which has `already` of them."""

    row: int
    count: int
    already: int = 0


class Waiting(Exception):
    """Votes are not there yet; the message says what to do, then the run goes on where it stopped."""


class LabelSource(Protocol):
    """Gives votes."""

    costly: bool
    """True where votes cost time or money: then one selector and one seed, and no comparison with random."""
    holds_back: bool
    """True where only votes of the data can be obtained."""

    def room(self, built: BuiltPool) -> Ints:
        """Votes [n] that a pair can get in all."""
        ...

    def votes(
        self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path
    ) -> Iterator[tuple[int, list[Vote]]]:
        """(row, votes) of every order, in any order; fewer votes than asked for where there are no more."""
        ...


@dataclass(frozen=True)
class HeldBack:
    """The votes that the data holds on the pair, in an order drawn per seed: real votes, as if obtained one by one."""

    costly, holds_back = False, True

    def room(self, built: BuiltPool) -> Ints:
        """As many as the data holds."""
        return np.array([len(votes) for votes in built.held_back])

    def votes(
        self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path
    ) -> Iterator[tuple[int, list[Vote]]]:
        """The next votes of every pair."""
        for order in orders:
            held = built.held_back[order.row]
            rank = _rng(built, order.row, seed).permutation(len(held))
            yield order.row, [held[i] for i in rank[order.already : order.already + order.count]]


@dataclass(frozen=True)
class Simulated:
    """Simulated annotators (`rlhf.annotate.simulated`) on completions whose gold reward is known.

    Args:
        annotators: called with seed=..., gives the pool of people.
    """

    annotators: Callable[..., SimulatedAnnotators]
    costly, holds_back = False, False

    def room(self, built: BuiltPool) -> Ints:
        """One per person."""
        return np.full(len(built.pool), self.annotators(seed=0).people)

    def votes(
        self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path
    ) -> Iterator[tuple[int, list[Vote]]]:
        """Votes of people drawn at random."""
        people = self.annotators(seed=seed)
        for order in orders:
            people.votes_per_item = min(order.already + order.count, people.people)
            votes = people.annotate(built.task(order.row), _rng(built, order.row, seed)).votes
            yield order.row, list(votes[order.already :])


@dataclass(frozen=True)
class Ai:
    """AI judges; every pair gets all their votes at once, whatever number was ordered.

    Args:
        feedback: the judges (`rlhf.annotate.ai_feedback`).
    """

    feedback: AiFeedback
    costly, holds_back = True, False

    def room(self, built: BuiltPool) -> Ints:
        """No limit."""
        return np.full(len(built.pool), 10**6)

    def votes(
        self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path
    ) -> Iterator[tuple[int, list[Vote]]]:
        """Votes as they come in."""
        tasks = [built.task(order.row) for order in orders]
        for order, record in zip(orders, self.feedback.vote(tasks), strict=True):
            yield order.row, on_pair(record, 0, 1)


@dataclass(frozen=True)
class People:
    """Tasks go out as a file; the run stops, and goes on when the answers are there.

    Round r writes `tasks-r.jsonl` (blind records with votes to be cast, for `annotate.py tasks=...`; see
    `rlhf.select.loop.task_files`) and reads every file `votes-r*.jsonl` beside it.
    """

    costly, holds_back = True, False

    def room(self, built: BuiltPool) -> Ints:
        """No limit."""
        return np.full(len(built.pool), 10**6)

    def votes(
        self, built: BuiltPool, orders: Sequence[Order], *, seed: int, round_: int, folder: Path
    ) -> Iterator[tuple[int, list[Vote]]]:
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


def _rng(built: BuiltPool, row: int, seed: int) -> np.random.Generator:
    return np.random.default_rng((seed, crc32(str(built.pool.ids[row]).encode())))
