"""Annotators who judged the same units: what pairs of them said, and who copies whom."""

from __future__ import annotations

import numpy as np
from scipy import stats

from rlhf.annotate.ballots import Ballots
from rlhf.judge.table import Floats, Ints

COPY_ERROR = 0.01
"""Chance that any honest pair is called copies."""


def shared_units(ballots: Ballots, least: int) -> list[tuple[int, int, Ints, Ints, Ints]]:
    """Pairs of annotators with at least `least` units in common: codes a < b, the units, and what each said of them.

    Most units in common first. An annotator's last verdict on a unit counts.
    """
    people = len(ballots.annotators)
    key = ballots.unit * people + ballots.annotator
    last = len(key) - 1 - np.unique(key[::-1], return_index=True)[1]  # ordered by unit, then annotator
    unit, who, verdict = ballots.unit[last], ballots.annotator[last], ballots.verdict[last]
    left, right = [], []
    for step in range(1, int(np.bincount(unit).max(initial=1))):
        same = np.flatnonzero(unit[step:] == unit[:-step])
        left.append(same)
        right.append(same + step)
    first, second = np.concatenate([*left, []]).astype(int), np.concatenate([*right, []]).astype(int)
    codes, group, number = np.unique(
        who[first] * people + who[second], return_inverse=True, return_counts=True
    )
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(number)])
    found = []
    for g in sorted(np.flatnonzero(number >= least), key=lambda g: -number[g]):
        rows = order[starts[g] : starts[g + 1]]
        a, b = divmod(int(codes[g]), people)
        found.append((a, b, unit[first[rows]], verdict[first[rows]], verdict[second[rows]]))
    return found


def copies(ballots: Ballots, alone: Floats, people: int) -> Floats:
    """Who gives the same verdicts as somebody else more often than the better of the two agrees with the majority.

    Two who judge independently agree less often than each agrees with the majority, unless units are easy; a pair is
    suspicious when it agrees on more units than a binomial with that share allows, corrected for all pairs.
    """
    marked = np.zeros(people)
    pairs = shared_units(ballots, least=20)
    for a, b, _, first, second in pairs:
        share = np.nanmax([alone[a], alone[b], 0.5])
        equal = int((first == second).sum())
        if stats.binom.sf(equal - 1, len(first), min(share, 0.999)) < COPY_ERROR / len(pairs):
            marked[[a, b]] = 1
    return marked
