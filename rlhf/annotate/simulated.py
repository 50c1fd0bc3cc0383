"""Simulated annotators vote on tasks whose gold reward is known: to test a collection before anybody is paid.

careful     random utility with ties, position and length bias (see `rlhf.annotate.annotator.Annotator`)
fatigue     care falls with every item: care_n = care · exp(-fatigue · n)
clickers    choose at random, quickly
patterns    always the same side, or sides in turns
colluders   one of them decides, the others copy every answer
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, combinations, pairwise

import numpy as np

from rlhf.annotate.annotator import Annotator, pool
from rlhf.annotate.items import Form
from rlhf.annotate.job import Job
from rlhf.records import Comparison, Completion, RecordError, Vote

Gold = Callable[[Comparison], Sequence[float]]
"""True rewards of a record's completions, in log-odds."""


def gold_in_meta(record: Comparison) -> list[float]:
    """The rewards that the toy world and its policies write under `meta.gold` of every completion.

    Raises:
        RecordError: a completion has none.
    """
    missing = [c.id for c in record.completions if not isinstance(c.meta.get("gold"), int | float)]
    if missing:
        raise RecordError(
            f"completions {', '.join(missing)} have no number there", key="completions.meta.gold",
            place=f"prompt {record.prompt_id}", remedy="annotator.gold.folder=<run> lets a reward model be the truth",
        )  # fmt: skip
    return [float(c.meta["gold"]) for c in record.completions]


@dataclass
class SimulatedAnnotators:
    """A pool of annotators, and who of them votes on what.

    Args:
        gold: true rewards of the completions.
        people: how many annotators.
        votes_per_item: different annotators per item.
        form: pair (every pair of completions is an item), ranking or likert (every record is one).
        careless: share of careful annotators who read only a third of their items.
        temperature, tie_width, position_bias, length_bias: means over careful annotators, see `Annotator`.
        fatigue: loss of care per item answered, relative.
        clickers, patterns, colluders: shares of the pool.
        gold_items: share of the clear items that are checks: their record gets `meta.gold`, their votes are marked.
        gold_gap: an item is clear where the best completion of its record leads by this much, in log-odds.
        seed: of everything.

    Raises:
        ValueError: more votes per item than people, or shares above 1.
    """

    gold: Gold = gold_in_meta
    people: int = 12
    votes_per_item: int = 3
    form: Form = "pair"
    careless: float = 0.1
    temperature: float = 1.0
    tie_width: float = 0.5
    position_bias: float = 0.2
    length_bias: float = 0.5
    fatigue: float = 0.0
    clickers: float = 0.0
    patterns: float = 0.0
    colluders: float = 0.0
    gold_items: float = 0.0
    gold_gap: float = 1.5
    seed: int = 0
    _answered: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.votes_per_item <= self.people:
            raise ValueError(
                f"annotator.votes_per_item={self.votes_per_item} must lie between 1 and annotator.people={self.people}"
            )
        if self.clickers + self.patterns + self.colluders > 1:
            raise ValueError("annotator.clickers, patterns and colluders are shares of one pool: at most 1 in all")
        self.pool: tuple[Annotator, ...] = pool(
            self.people, careless=self.careless, temperature=self.temperature, tie_width=self.tie_width,
            position_bias=self.position_bias, length_bias=self.length_bias, seed=self.seed,
        )  # fmt: skip
        shares = (self.clickers, self.patterns, self.colluders)
        ends = [0, *accumulate(round(share * self.people) for share in shares)]
        self.clicking, self.patterned, self.colluding = (range(a, b) for a, b in pairwise(ends))

    def name(self, person: int) -> str:
        """The name under which an annotator votes; it says what kind, so that a report can be checked."""
        kinds = {"clicker": self.clicking, "pattern": self.patterned, "colluder": self.colluding}
        kind = next((kind for kind, who in kinds.items() if person in who), "careful")
        return f"{kind}{person:02d}"

    def __call__(self, job: Job) -> None:
        """Vote on the tasks of a job."""
        job.add_votes(self.vote)

    def vote(self, records: Iterable[Comparison]) -> Iterator[Comparison]:
        """The records with votes added; old votes stay."""
        self._answered = {}
        for number, record in enumerate(records):
            yield self.annotate(record, np.random.default_rng((self.seed, 104_729, number)))

    def annotate(self, record: Comparison, rng: np.random.Generator) -> Comparison:
        """One record with votes added, all draws from `rng`; `meta.gold` is written where a check was cast on it."""
        rewards = self.gold(record)  # once: it may be a model
        known = self._known(record, rewards)
        every = tuple(range(len(record.completions)))
        items = combinations(every, 2) if self.form == "pair" else [every]
        votes = [vote for item in items for vote in self._votes(record, item, rewards, known, rng)]
        meta = {**record.meta, "gold": known} if any(vote.gold for vote in votes) else record.meta
        return replace(record, votes=record.votes + tuple(votes), meta=meta)

    def _known(self, record: Comparison, gold: Sequence[float]) -> str | None:
        """The right answer of a check: what `meta.gold` says, else the completion that is clearly the best."""
        if record.meta.get("gold") is not None:
            return str(record.meta["gold"])
        rewards = dict(zip((c.id for c in record.completions), gold, strict=True))
        best, *others = sorted(rewards, key=lambda i: -rewards[i])
        clear = bool(others) and rewards[best] - rewards[others[0]] >= self.gold_gap
        return best if clear else None

    def _votes(
        self, record: Comparison, item: tuple[int, ...], rewards: Sequence[float], known: str | None,
        rng: np.random.Generator,
    ) -> Iterator[Vote]:  # fmt: skip
        gold = [rewards[i] for i in item]
        shown = [record.completions[i] for i in item]
        asked = record.meta.get("gold") is not None or rng.random() < self.gold_items
        check = bool(asked) and (known == "tie" or known in {c.id for c in shown})
        copied: tuple[int, Vote] | None = None
        for person in rng.permutation(self.people)[: self.votes_per_item].tolist():
            first = int(rng.integers(len(item)))
            vote = self._vote(person, gold, shown, first, rng)
            if person in self.colluding:
                copied = copied or (person, vote)
                vote = replace(copied[1], annotator=self.name(person), seconds=vote.seconds)
            self._answered[person] = self._answered.get(person, 0) + 1
            yield replace(vote, gold=check)

    def _vote(
        self, person: int, gold: list[float], shown: Sequence[Completion], first: int, rng: np.random.Generator
    ) -> Vote:
        lengths = [len(c.text) for c in shown]
        number = self._answered.get(person, 0)

        def uniform() -> float:
            return float(np.clip(rng.random(), 1e-12, 1 - 1e-12))

        who = self.pool[person]
        who = replace(who, care=who.care * math.exp(-self.fatigue * number))
        if person in self.clicking:
            who = replace(who, care=0.0)
        seconds = round(1 + 2 * uniform(), 1) if who.care == 0 else who.seconds(sum(lengths), uniform)
        if person in self.patterned:
            side = (first + (number % 2 if person % 2 else 0)) % len(gold)
            levels = [float(i == side) for i in range(len(gold))]
        elif len(gold) == 2:
            better = who.choose(gold, lengths, first, uniform)
            levels = [float(i == better) for i in range(2)]
        else:
            groups = enumerate(who.rank(gold, lengths, first, uniform))
            place = {i: -float(n) for n, group in groups for i in group}
            levels = [place[i] for i in range(len(gold))]
        return _as_vote(self.name(person), self.form, shown, levels, first, seconds)


def _as_vote(
    name: str, form: Form, shown: Sequence[Completion], levels: list[float], first: int, seconds: float
) -> Vote:
    """The vote in the form that was asked for, from levels: higher seemed better, equal is a tie.

    Likert ratings spread the places over 5..1.
    """
    common = Vote(name, "simulated", seconds=seconds, meta={"first": shown[first].id})
    ids = [c.id for c in shown]
    if form == "pair":
        a, b = levels
        choice = "tie" if a == b else ids[int(b > a)]
        return replace(common, pair=(ids[0], ids[1]), choice=choice)
    ordered = sorted(set(levels), reverse=True)
    if form == "ranking":
        groups = tuple(tuple(i for i, v in zip(ids, levels, strict=True) if v == level) for level in ordered)
        return replace(common, ranking=groups)
    step = 4 / max(len(ids) - 1, 1)
    ratings = {i: float(round(5 - step * ordered.index(v))) for i, v in zip(ids, levels, strict=True)}
    return replace(common, likert=ratings)
