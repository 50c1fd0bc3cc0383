"""All votes of a set as flat columns: what agreement, quality and annotator models read. numpy only, no torch.

Every form of vote becomes verdicts on pairs: a pairwise vote gives one, a ranking and Likert ratings one for every
pair they name. A unit is what several people can vote on: a pair of completions of a prompt under one criterion.
Likert ratings are kept as ratings too, with a completion under one criterion as the unit.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from rlhf.records import Comparison, Vote, prompt_hash
from rlhf.stats.arrays import Bools, Floats, Ints

FIRST, TIE, SECOND = 0, 1, 2
"""Verdicts on a pair, in the order of an ordinal scale: the first is better, a tie, the second is better."""

UNKNOWN = -1  # where a column has no value: no side recorded, no gold answer, no domain

VERDICT_COLUMNS = ("unit", "annotator", "verdict", "shown_first", "seconds", "share", "check", "strength")
UNIT_COLUMNS = ("prompt", "domain", "criterion", "gold", "session", "longer", "characters", "record", "first", "second")


@dataclass(frozen=True)
class VoteTable:
    """V verdicts of A annotators on U pairs, in the order in which they were read.

    per verdict [V]  unit, annotator (codes), verdict (FIRST, TIE, SECOND), shown_first (0 = the unit's first completion
                     stood on the first side, 1 = its second, UNKNOWN), seconds (NaN = not measured; for the whole
                     vote), share (1 / verdicts that the vote gave), check (True = cast on a gold item),
                     strength (stated margin, below 0 where the first is better; 0 = a tie, NaN = none stated)
    per unit [U]     prompt, domain, criterion (codes; domain may be UNKNOWN), gold (right verdict or UNKNOWN),
                     session (True = of the calibration session),
                     longer (characters of the first less those of the second), characters (of both),
                     record (number of the first record that has it, from 1 in the order of reading),
                     first, second (codes of the items), keys (prompt_id, id of the first, id of the second)
    names            annotators [A], domains, criteria; items: (prompt_id, identity, criterion) -> code
    """

    unit: Ints
    annotator: Ints
    verdict: Ints
    shown_first: Ints
    seconds: Floats
    share: Floats
    check: Bools
    strength: Floats
    prompt: Ints
    domain: Ints
    criterion: Ints
    gold: Ints
    session: Bools
    longer: Ints
    characters: Ints
    record: Ints
    first: Ints
    second: Ints
    keys: list[tuple[str, str, str]]
    annotators: tuple[str, ...]
    domains: tuple[str, ...]
    criteria: tuple[str, ...]
    items: Mapping[object, int]

    @property
    def counts(self) -> Ints:
        """Verdicts of each kind on each unit [U, 3]."""
        return table(self.unit, self.verdict, len(self.prompt), 3)

    def of(self, keep: Bools) -> VoteTable:
        """The verdicts that `keep` [V] marks; units and names stay as they are."""
        return replace(self, **{name: getattr(self, name)[keep] for name in VERDICT_COLUMNS})


@dataclass(frozen=True)
class Ratings:
    """R Likert ratings: unit (codes), value [R]; prompt, criterion (codes) [U]; criteria (names)."""

    unit: Ints
    value: Floats
    prompt: Ints
    criterion: Ints
    criteria: tuple[str, ...]


def table(row: Ints, column: Ints, rows: int, columns: int) -> Ints:
    """How often each (row, column) occurs [rows, columns]."""
    flat = np.bincount(row * columns + column, minlength=rows * columns)
    return flat.reshape(rows, columns).astype(np.int64)


@dataclass
class _Codes:
    """Codes 0, 1, 2, ... for values in the order they come."""

    codes: dict[object, int] = field(default_factory=dict)

    def __getitem__(self, value: object) -> int:
        return self.codes.setdefault(value, len(self.codes))

    def names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.codes)


class VoteTableBuilder:
    """Collects the votes of records one by one; memory holds numbers and ids, never texts."""

    def __init__(self) -> None:
        self._units, self._annotators, self._prompts = _Codes(), _Codes(), _Codes()
        self._domains, self._criteria, self._rated, self._items = _Codes(), _Codes(), _Codes(), _Codes()
        self._verdicts, self._of_unit = array("d"), array("q")  # rows of VERDICT_COLUMNS, UNIT_COLUMNS
        self._ratings, self._of_rated = array("d"), array("q")  # rows of unit and value; of prompt and criterion
        self._keys: list[tuple[str, str, str]] = []
        self._records = 0

    def add(self, record: Comparison) -> None:
        """Add every vote of one record."""
        self._records += 1
        prompt = self._prompts[prompt_hash(record.prompt)]
        place = record.places
        units: dict[tuple[str, str, str], int] = {}
        for vote in record.votes:
            level = levels(vote)
            pairs = list(combinations(sorted(level, key=place.__getitem__), 2))
            who = self._annotators[vote.annotator] if pairs or vote.likert else UNKNOWN
            for first, second in pairs:
                key = (vote.criterion, first, second)
                unit = units.get(key, UNKNOWN)
                if unit == UNKNOWN:
                    unit = units[key] = self._unit(record, prompt, vote.criterion, first, second)
                shown = vote.meta.get("first")
                side = (first, second).index(shown) if shown in (first, second) else UNKNOWN
                seconds = np.nan if vote.seconds is None else vote.seconds
                verdict = TIE + int(level[first] < level[second]) - int(level[first] > level[second])
                strength = vote.margin * (verdict - TIE) if vote.margin or verdict == TIE else np.nan
                self._verdicts.extend((unit, who, verdict, side, seconds, 1 / len(pairs), vote.gold, strength))
            for completion, rating in (vote.likert or {}).items():
                known = len(self._rated.codes)
                rated = self._rated[(record.prompt_id, identity(record, completion), vote.criterion)]
                if rated == known:
                    self._of_rated.extend((prompt, self._criteria[vote.criterion]))
                self._ratings.extend((rated, rating))

    def taking(self, records: Iterable[Comparison]) -> Iterator[Comparison]:
        """The same records, their votes added as they pass."""
        for record in records:
            self.add(record)
            yield record

    def _unit(self, record: Comparison, prompt: int, criterion: str, first: str, second: str) -> int:
        known = len(self._keys)
        items = [self._items[(record.prompt_id, identity(record, i), criterion)] for i in (first, second)]
        unit = self._units[tuple(items)]
        if unit == known:
            lengths = {c.id: len(c.text) for c in record.completions}
            self._of_unit.extend((
                prompt,
                UNKNOWN if record.domain is None else self._domains[record.domain],
                self._criteria[criterion],
                {first: FIRST, second: SECOND, "tie": TIE}.get(str(record.meta.get("gold")), UNKNOWN),
                int(record.meta.get("session") == "calibration"),
                lengths[first] - lengths[second],
                lengths[first] + lengths[second],
                self._records,
                *items,
            ))  # fmt: skip
            self._keys.append((record.prompt_id, first, second))
        return unit

    def vote_table(self) -> VoteTable:
        """The verdicts on pairs so far."""
        verdicts = np.array(self._verdicts).reshape(-1, len(VERDICT_COLUMNS)).T.copy()
        units = np.array(self._of_unit, dtype=np.int64).reshape(-1, len(UNIT_COLUMNS)).T.copy()
        given = dict(zip(VERDICT_COLUMNS, verdicts, strict=True))
        given |= {n: given[n].astype(np.int64) for n in ("unit", "annotator", "verdict", "shown_first")}
        of_unit = dict(zip(UNIT_COLUMNS, units, strict=True))
        return VoteTable(
            **given | {"check": given["check"].astype(bool)},
            **of_unit | {"session": of_unit["session"].astype(bool)},
            keys=list(self._keys),
            annotators=self._annotators.names(),
            domains=self._domains.names(),
            criteria=self._criteria.names(),
            items=self._items.codes,
        )

    def ratings(self) -> Ratings:
        """The Likert ratings so far."""
        unit, value = np.array(self._ratings).reshape(-1, 2).T.copy()
        prompt, criterion = np.array(self._of_rated, dtype=np.int64).reshape(-1, 2).T.copy()
        return Ratings(unit.astype(np.int64), value, prompt, criterion, self._criteria.names())


def identity(record: Comparison, completion_id: str) -> int:
    """What makes a completion the same in another record of the prompt: its id, its text and its model.

    Sources that name their sides `a` and `b` in every record would otherwise be one pair for all.
    """
    completion = record.completions[record.position(completion_id)]
    return hash((completion.id, completion.text, str(completion.source.get("model"))))


def levels(vote: Vote) -> dict[str, float]:
    """Completion id -> level: higher was voted better, equal was voted tied; the ids that the vote names."""
    if vote.pair is not None:
        return {i: float(i == vote.choice) for i in vote.pair}
    if vote.ranking is not None:
        return {i: -float(place) for place, group in enumerate(vote.ranking) for i in group}
    return dict(vote.likert or {})


def collect(records: Iterable[Comparison]) -> VoteTableBuilder:
    """The votes of a stream of records."""
    box = VoteTableBuilder()
    for record in records:
        box.add(record)
    return box
