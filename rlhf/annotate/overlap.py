"""Annotators who voted on the same units: what pairs of them said, and who copies whom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from rlhf.labels.vote_table import VoteTable
from rlhf.stats.arrays import Floats, Ints

VERDICTS = 3
COPY_UNITS = 20  # units that two annotators must share before they can be called copies
COPY_ERROR = 0.01  # chance that any honest pair is called copies


@dataclass(frozen=True)
class Shared:
    """P pairs of annotators with units in common, most units first; an annotator's last verdict on a unit counts.

    a, b        codes of the two [P], a < b
    tables      [P, 3, 3] units by what a (row) and b (column) said
    """

    a: Ints
    b: Ints
    tables: Ints
    _starts: Ints
    _unit: Ints
    _first: Ints
    _second: Ints

    def units(self, pair: int) -> tuple[Ints, Ints, Ints]:
        """The units that a pair shares, and what each of the two said of them."""
        rows = slice(self._starts[pair], self._starts[pair] + self.tables[pair].sum())
        return self._unit[rows], self._first[rows], self._second[rows]


def shared(vote_table: VoteTable, least: int) -> Shared:
    """All pairs of annotators with at least `least` units in common."""
    people = len(vote_table.annotators)
    key = vote_table.unit * people + vote_table.annotator
    last = len(key) - 1 - np.unique(key[::-1], return_index=True)[1]  # ordered by unit, then annotator
    unit, who, verdict = vote_table.unit[last], vote_table.annotator[last], vote_table.verdict[last]
    left, right = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for step in range(1, int(np.bincount(unit).max(initial=1))):
        same = np.flatnonzero(unit[step:] == unit[:-step])
        left.append(same)
        right.append(same + step)
    first, second = np.concatenate(left), np.concatenate(right)
    codes, group, number = np.unique(who[first] * people + who[second], return_inverse=True, return_counts=True)
    kept = np.flatnonzero(number >= least)
    kept = kept[np.argsort(-number[kept], kind="stable")]
    cells = group * VERDICTS**2 + verdict[first] * VERDICTS + verdict[second]
    tables = np.bincount(cells, minlength=len(codes) * VERDICTS**2).reshape(-1, VERDICTS, VERDICTS)
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(number)])[kept]
    rows = (unit[first[order]], verdict[first[order]], verdict[second[order]])
    return Shared(codes[kept] // people, codes[kept] % people, tables[kept], starts, *rows)


def copies(vote_table: VoteTable, alone: Floats, people: int) -> Floats:
    """Who gives the same verdicts as somebody else more often than the better of the two agrees with the majority.

    Two who vote independently agree less often than each agrees with the majority, unless units are easy; a pair is
    suspicious when it agrees on more units than a binomial with that share allows, corrected for all pairs.
    """
    marked = np.zeros(people)
    pairs = shared(vote_table, COPY_UNITS)
    if not len(pairs.a):
        return marked
    share = np.fmax(np.fmax(alone[pairs.a], alone[pairs.b]), 0.5)
    equal, number = np.trace(pairs.tables, axis1=1, axis2=2), pairs.tables.sum((1, 2))
    chance = stats.binom.sf(equal - 1, number, np.minimum(share, 0.999))
    suspicious = chance < COPY_ERROR / len(pairs.a)
    marked[np.concatenate([pairs.a[suspicious], pairs.b[suspicious]])] = 1
    return marked
