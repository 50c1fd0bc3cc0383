"""One run of a selector in the loop: one selector, one seed, round after round: choose, obtain votes, train, measure.

Everything is in its journal, append-only: nothing obtained is lost or obtained twice, whenever the run is stopped.

    {"event": "selected", "round": 3, "pairs": [{"pair_id", "row", "utility", "reason", "random", "second"}, ...]}
    {"event": "votes", "round": 3, "pair_id": "...", "votes": [...]}      as soon as the votes on a pair are there
    {"event": "result", "round": 3, ...}                                   what the round came to

A line is whole or it did not happen: half a line at the end, left by a kill, is cut off on opening. A run that is
started again reads it, obtains what is missing of the round in which it stopped, and goes on; equal journals give equal
continuations: every draw depends on (seed, round, selector).
"""

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from scipy.special import expit

from rlhf.evaluation.metrics.calibration import ece, nll
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.labels.label import Aggregation, FittedAggregation
from rlhf.records import Vote, dump, parse
from rlhf.select.loop.budget import LabelBudget
from rlhf.select.loop.label_sources import LabelSource, Order
from rlhf.select.loop.learners import Labels, Learner, TrainedRound, unit
from rlhf.select.loop.shift import shift
from rlhf.select.pool import LabelState, PairPool, Selection
from rlhf.select.pool_builder import BuiltPool
from rlhf.select.querying import query
from rlhf.select.strategies.error_focused import second_votes
from rlhf.select.strategies.selector import Selector, at_random
from rlhf.stats.arrays import Bools

Event = dict[str, Any]


class JournalError(ValueError):
    """A journal that cannot be gone on from; the message names file and line."""


@dataclass
class Journal:
    """Events of one selector's run in order.

    Args:
        path: the file; its folder is made.

    Raises:
        JournalError: a line before the last is not an event, or another process has the journal open.
    """

    path: Path

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise JournalError(
                f"{self.path}: another process is at work on this journal; wait for it or stop it"
            ) from error
        self.events: list[Event] = self._read()

    def _read(self) -> list[Event]:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        events = []
        for number, line in enumerate(whole.decode("utf-8").splitlines(), start=1):
            try:
                event = json.loads(line)
                event["event"], event["round"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise JournalError(
                    f"{self.path}:{number}: not an event of an active run (restore the file, or start a new run)"
                ) from error
            events.append(event)
        return events

    def add(self, event: str, round_: int, **fields: Any) -> Event:
        """Append one event; it is with the operating system when this returns."""
        entry = {"event": event, "round": round_, **fields}
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()
        self.events.append(entry)
        return entry

    def sync(self) -> None:
        """Everything so far on the disk itself."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def of(self, event: str, round_: int | None = None) -> list[Event]:
        """The events of one kind, of one round or of all."""
        return [e for e in self.events if e["event"] == event and round_ in (None, e["round"])]

    def selected(self, round_: int) -> Sequence[Mapping[str, Any]] | None:
        """The pairs chosen in a round; None where it has not been chosen yet."""
        found = self.of("selected", round_)
        return found[0]["pairs"] if found else None


WITH = "+"
"""Between a selector and the option of `votes` in a run's name; draws depend on the selector alone."""


@dataclass
class SelectorRun:
    """One selector on one seed.

    Args:
        name: of the selector, as in curve.csv.
        selector: chooses.
        seed: of every draw.
        built: pool and test.
        learner: trains.
        label_source: gives votes.
        aggregation: votes of a pair to its label.
        plan: how much.
        folder: of the journal, and of task files.
    """

    name: str
    selector: Selector
    seed: int
    built: BuiltPool
    learner: Learner
    label_source: LabelSource
    aggregation: Aggregation | FittedAggregation
    plan: LabelBudget
    folder: Path
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder / "journal.jsonl")
        self.row = {str(name): row for row, name in enumerate(self.built.pool.ids)}
        self.votes: dict[int, list[Vote]] = {}
        self.random = np.zeros(len(self.built.pool), dtype=bool)
        self._labels: dict[int, tuple[float, float]] = {}

    def rounds(self) -> Iterator[dict[str, Any]]:
        """The results of all rounds, old ones from the journal. Raises Waiting where votes must come from outside."""
        try:
            yield from self._rounds()
        finally:
            self.journal.close()

    def _rounds(self) -> Iterator[dict[str, Any]]:
        learner = self.learner.begin(self.built, self.folder)
        done = len(self.journal.of("result"))
        trained: TrainedRound | None = None
        for number in range(self.plan.rounds + 1):
            if number < done:
                self._replay(number)
                yield self.journal.of("result", number)[0]
                continue
            if number and trained is None:
                trained = learner(self.built.pool, self._labels_so_far(), 1000 * self.seed + number - 1)
            if not self._obtain(number, trained):
                break
            started = time.perf_counter()
            trained = learner(self.built.pool, self._labels_so_far(), 1000 * self.seed + number)
            yield self._measure(number, trained, time.perf_counter() - started)

    def _obtain(self, number: int, trained: TrainedRound | None) -> bool:
        """Choose and obtain the votes of a round; False where nothing is left to obtain."""
        pairs = self.journal.selected(number)
        if pairs is None:
            pairs = self._choose(number, trained)
            self.journal.add("selected", number, pairs=pairs)
        self._replay(number)
        there = {event["pair_id"] for event in self.journal.of("votes", number)}
        asked = [(self.row[pair["pair_id"]], pair["count"]) for pair in pairs if pair["pair_id"] not in there]
        orders = [Order(row, count, len(self.votes.get(row, []))) for row, count in asked]
        if orders:
            given = self.label_source.votes(self.built, orders, seed=self.seed, round_=number, folder=self.folder)
            for row, votes in given:
                raw = dump(replace(self.built.task(row), votes=tuple(votes)))["votes"]
                name = str(self.built.pool.ids[row])
                self._keep(self.journal.add("votes", number, pair_id=name, votes=raw))
        self.journal.sync()
        return bool(pairs)

    def _choose(self, number: int, trained: TrainedRound | None) -> list[dict[str, Any]]:
        plan, rng = self.plan, self._rng(number)
        pool, state = (self.built.pool, None) if trained is None else (trained.pool, trained.state)
        state = state or LabelState.empty(pool.width, regularisation=unit(self.built.pool))
        left = int(pool.selectable.sum()) - len(self.votes)
        if number == 0 and plan.start:
            counts = plan.pairs(plan.start, left)
            # wrong options are refused before votes are paid
            query(pool, state, min(1, left), rng, selector=self.selector)
            rng = np.random.default_rng((self.seed, 0))
            return self._entries(query(pool, state, len(counts), rng, selector=at_random), counts)
        again = self._again(pool, state, rng) if self.votes else []
        counts = plan.pairs(plan.batch - len(again), left)
        fresh = query(pool, state, len(counts), rng, selector=self.selector)
        return self._entries(fresh, counts) + again

    def _again(self, pool: PairPool, state: LabelState, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Labelled pairs that get another vote: those that are owed one, then those whose answer is open."""
        votes = self.plan.votes
        room = self.label_source.room(self.built)
        owed = dict(islice(votes.owed(self.votes, room).items(), self.plan.batch))
        rows, unknown = np.array(list(owed), dtype=np.int64), np.full(len(owed), np.nan)
        entries = self._entries(Selection(rows, unknown, list(owed.values()), np.zeros(len(owed), bool)))
        more = min(round(votes.again * self.plan.batch), self.plan.batch - len(owed))
        if more:
            free = room > [len(self.votes.get(r, [])) for r in range(len(pool))]
            free[list(owed)] = False
            found = second_votes(replace(pool, selectable=pool.selectable & free), state, more, rng,
                                 reliability=votes.reliability, most_votes=votes.most)  # fmt: skip
            entries += self._entries(found)
        return entries

    def _entries(self, found: Selection, counts: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """What the journal keeps of a choice: new pairs and the votes to obtain on each, or a vote more on old ones."""
        return [
            {
                "pair_id": str(self.built.pool.ids[row]),
                "utility": None if math.isnan(utility) else float(utility),
                "reason": reason,
                "random": bool(random),
                "second": counts is None,
                "count": count,
            }
            for row, utility, reason, random, count in zip(
                found.indices, found.utilities, found.reasons, found.random, counts or [1] * len(found), strict=True
            )
        ]

    def _replay(self, number: int) -> None:
        """Take over what the journal says was chosen and obtained in a round."""
        for pair in self.journal.selected(number) or []:
            self.random[self.row[pair["pair_id"]]] |= pair["random"] and not pair["second"]
        for event in self.journal.of("votes", number):
            self._keep(event)

    def _keep(self, event: dict[str, Any]) -> None:
        if event.get("kept"):
            return
        event["kept"] = True
        row = self.row[event["pair_id"]]
        votes = parse({**dump(self.built.task(row)), "votes": event["votes"]}).votes
        self.votes.setdefault(row, []).extend(votes)
        self._labels.pop(row, None)

    def _labels_so_far(self) -> Labels:
        label = self.aggregation
        if isinstance(label, FittedAggregation):
            label, self._labels = label.fit(self._record(row) for row in self.votes), {}
        for row in self.votes:
            if row not in self._labels:
                found = label(self._record(row))
                seen = bool(found.observed[0, 1])
                weight = float(found.votes[0, 1] * found.weight) if seen else 0.0
                self._labels[row] = (float(found.win_prob[0, 1]) if seen else 0.5, weight)
        rows = np.array(list(self.votes), dtype=np.int64)
        values = np.array([self._labels[row] for row in self.votes]).reshape(-1, 2)
        return Labels(rows, values[:, 0], values[:, 1])

    def _record(self, row: int) -> Any:
        return replace(self.built.task(row), votes=tuple(self.votes[row]))

    def _measure(self, number: int, trained: TrainedRound, seconds: float) -> dict[str, Any]:
        built = self.built
        labelled: Bools = self.random[trained.state.rows]
        drift = shift(trained, labelled, np.random.default_rng((self.seed, number, 1)))
        difference = built.pool.reward_differences(trained.rewards, built.test)
        numbers = {
            "selector": self.name,
            "seed": self.seed,
            "labels": sum(len(votes) for votes in self.votes.values()),
            **pair_metrics(built, difference),
            "by_prompt": by_prompt(built, difference),
            "cost": float(sum(len(v) * built.pool.cost[row] for row, v in self.votes.items())),
            "regularisation": trained.state.posterior.regularisation,
            "out_of_fold_nll": trained.nll if math.isfinite(trained.nll) else None,
            "seconds": seconds,
        }
        return self.journal.add("result", number, **numbers, shift=drift)

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, number, crc32(self.name.split(WITH)[0].encode())))


def pair_metrics(built: BuiltPool, difference: Any) -> dict[str, float]:
    """Accuracy, NLL (in nats) and calibration error of reward differences on the test pairs."""
    share = np.asarray(built.test_share, np.float64)
    right = credit(difference, share)
    return {
        "pair_accuracy": float(np.nanmean(right)),
        "nll": float(nll(difference, share).mean()),
        "ece": ece(np.asarray(expit(difference)), share),
    }


def by_prompt(built: BuiltPool, difference: Any) -> dict[str, list[Any]]:
    """Test prompt -> [its domain, its test pairs, their mean NLL]: what intervals over prompts are made from."""
    loss = nll(difference, np.asarray(built.test_share, np.float64))
    _, first, place, pairs = np.unique(
        built.pool.prompt[built.test], return_index=True, return_inverse=True, return_counts=True
    )
    means = np.bincount(place, loss) / pairs
    found = {}
    for row, count, mean in zip(built.test[first], pairs, means, strict=True):
        record = built.records[int(built.place[row, 0])]
        found[record.prompt_id] = [record.domain, int(count), round(float(mean), 6)]
    return found
