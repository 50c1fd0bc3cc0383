"""How good each annotator is: agreement, gold accuracy, biases, speed and patterns, with flags and a bonus.

Everything is computed from `VoteTable`, one row per annotator. A flag is a reason to look, not a verdict: the tests
behind them are corrected for the number of annotators (Bonferroni; gold items for none), and few votes raise none.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from rlhf.labels.vote_table import FIRST, SECOND, TIE, UNKNOWN, VoteTable
from rlhf.stats.arrays import Bools, Floats, Ints

ERROR = 0.01  # chance that anybody is flagged by one test where all are honest (shared over annotators)
COPY_UNITS = 20  # units that two annotators must share before they can be called copies
COPY_ERROR = 0.01  # chance that any honest pair is called copies
LONGER = 30  # characters by which an answer must be longer to count in the length bias
FAST = -2.5  # standard deviations of log time, given the length, below which a vote counts as too fast
LOW = 0.05  # how far below the median annotator's an agreement with the others must surely lie to be flagged
FAST_SHARE = 0.2  # share of votes too fast from which an annotator is flagged
GOLD_LOW = 0.65
"""An annotator is flagged when the accuracy on gold items is below this with probability 0.95 (flat Beta prior)."""


def quality(vote_table: VoteTable) -> pd.DataFrame:
    """One row per annotator, indexed by name; NaN where there is nothing to say.

    Gold items count for gold accuracy, and for nothing that compares annotators.

    votes             verdicts given (a ranking of K gives K (K - 1) / 2)
    majority          share equal to the most frequent verdict of the unit, where it is alone and others voted
    leave_one_out     the same against the verdicts of the others only (what AlpacaEval calls human agreement)
    gold_votes, gold_accuracy   verdicts on units with a gold answer, and the share that gives it
    ties              share of ties
    first_side        share of the first side among decided verdicts; `first_side_p` tests it against one half
    longer            share of the longer answer among decided verdicts, where it is longer by 30 characters
    seconds           median time of a vote; `fast` share of the votes that took implausibly little for their length
    run               longest run of the same side, or of alternating sides, in the order of voting; `run_p` its chance
    copies            1 where some other annotator gives the same verdicts beyond what their quality explains
    """
    people = len(vote_table.annotators)
    real = vote_table.of(~vote_table.check)
    counts, others = real.counts, real.counts[real.unit]
    others[np.arange(len(others)), real.verdict] -= 1
    majority = np.where(counts.sum(1) > 1, winner(counts), UNKNOWN)[real.unit]
    alone = _equal(real, winner(others), people)
    gold = vote_table.gold[vote_table.unit]
    first_side, first_side_p = _side(vote_table, people)
    run, run_p = _runs(vote_table, people)
    columns = {
        "votes": np.bincount(vote_table.annotator, minlength=people).astype(float),
        "majority": _equal(real, majority, people),
        "leave_one_out": alone,
        "gold_votes": np.bincount(vote_table.annotator[gold != UNKNOWN], minlength=people).astype(float),
        "gold_accuracy": _equal(vote_table, gold, people),
        "ties": _mean(vote_table.verdict == TIE, vote_table.annotator, people),
        "first_side": first_side,
        "first_side_p": first_side_p,
        "longer": _longer(vote_table, people),
        "seconds": pd.Series(vote_table.seconds).groupby(vote_table.annotator).median().reindex(range(people)).values,
        "fast": _fast(vote_table, people),
        "run": run,
        "run_p": run_p,
        "copies": copies(real, alone, people),
    }
    return pd.DataFrame(columns, index=list(vote_table.annotators))


def flags(quality: pd.DataFrame) -> list[list[str]]:
    """Why to look at each annotator of `quality`: gold, side, fast, pattern, copies, low."""
    q, level = quality.reset_index(drop=True), ERROR / max(len(quality), 1)
    wrong = q.gold_votes - q.gold_accuracy.fillna(0) * q.gold_votes
    right = q.gold_votes - wrong
    tests: dict[str, Bools] = {
        "gold": (q.gold_votes >= 5) & (stats.beta.cdf(GOLD_LOW, 1 + right, 1 + wrong) > 0.95),
        "side": q.first_side_p < level,
        "fast": (q.fast > FAST_SHARE) & (q.votes >= 10),
        "pattern": q.run_p < level,
        "copies": q.copies > 0,
        "low": _below_the_others(q.leave_one_out.to_numpy(), q.votes.to_numpy(), level),
    }
    return [[name for name, found in tests.items() if found[a]] for a in range(len(q))]


def rows(quality: pd.DataFrame) -> list[dict[str, object]]:
    """The table with names and flags; numbers that are NaN are None."""
    found: list[dict[str, object]] = []
    for (name, row), why in zip(quality.to_dict("index").items(), flags(quality), strict=True):
        clean = {k: round(v, 6) if np.isfinite(v) else None for k, v in row.items()}
        found.append({"annotator": name, **clean, "flags": " ".join(why)})
    return found


def bonus(quality: pd.DataFrame, *, per_vote: float, floor: float = 0.6) -> Floats:
    """Bonus [A] in the unit of `per_vote`: votes · per_vote · (q - floor) / (1 - floor), never negative.

    q is the lower end of Wilson's 90% interval (1927) of the gold accuracy, or of the leave-one-out agreement where
    there are fewer than 10 gold votes: few votes earn little. Nobody with a flag gets one before somebody has looked.
    """
    gold = (quality.gold_votes >= 10).to_numpy()
    share = np.where(gold, quality.gold_accuracy, quality.leave_one_out)
    number = np.where(gold, quality.gold_votes, quality.votes)
    known, number, z = np.nan_to_num(share), np.maximum(number, 1), 1.645
    spread = z * np.sqrt(known * (1 - known) / number + z**2 / (4 * number**2))
    low = (known + z**2 / (2 * number) - spread) / (1 + z**2 / number)
    worth = np.clip((low - floor) / (1 - floor), 0, 1) * quality.votes.to_numpy() * per_vote
    clean = np.array([not f for f in flags(quality)], dtype=bool)
    return np.where(clean & np.isfinite(share), worth, 0.0)


def displayed(vote_table: VoteTable) -> Ints:
    """Verdicts as the screen had them: FIRST = the first side chosen, TIE, SECOND; UNKNOWN where not recorded."""
    swapped = np.where(vote_table.shown_first == 1, 2 - vote_table.verdict, vote_table.verdict)
    return np.where(vote_table.shown_first == UNKNOWN, UNKNOWN, swapped)


def winner(counts: Ints) -> Ints:
    """[U] the most frequent verdict; UNKNOWN where two share the lead or nobody voted."""
    ordered = np.sort(counts, axis=1)
    return np.where(ordered[:, -1] > ordered[:, -2], counts.argmax(1), UNKNOWN)


def _equal(vote_table: VoteTable, right: Ints, people: int) -> Floats:
    """Share of each annotator's verdicts that are equal to `right` [V], where that is known."""
    known = right != UNKNOWN
    return _mean((right == vote_table.verdict)[known], vote_table.annotator[known], people)


def _side(vote_table: VoteTable, people: int) -> tuple[Floats, Floats]:
    shown = displayed(vote_table)
    decided = (shown == FIRST) | (shown == SECOND)
    who = vote_table.annotator[decided]
    number = np.bincount(who, minlength=people)
    first = np.bincount(who[shown[decided] == FIRST], minlength=people)
    tail = np.minimum(stats.binom.cdf(first, number, 0.5), stats.binom.sf(first - 1, number, 0.5))
    two_sided = np.where(number > 0, np.minimum(1.0, 2 * tail), np.nan)
    return _mean(shown[decided] == FIRST, who, people), two_sided


def _longer(vote_table: VoteTable, people: int) -> Floats:
    gap = vote_table.longer[vote_table.unit]
    counts = (np.abs(gap) >= LONGER) & (vote_table.verdict != TIE)
    chose_longer = (vote_table.verdict == FIRST) == (gap > 0)
    return _mean(chose_longer[counts], vote_table.annotator[counts], people)


def _fast(vote_table: VoteTable, people: int) -> Floats:
    """Share of votes whose log time lies far below what others need for as many characters (least squares, MAD)."""
    timed = np.isfinite(vote_table.seconds) & (vote_table.seconds > 0)
    if timed.sum() < 20:
        return np.full(people, np.nan)
    log_time = np.log(vote_table.seconds[timed])
    length = np.log1p(vote_table.characters[vote_table.unit[timed]])
    spread = length - length.mean()
    slope = float(spread @ log_time / max(float(spread @ spread), 1e-9))
    left = log_time - slope * spread
    left -= np.median(left)
    scale = 1.4826 * float(np.median(np.abs(left)))
    if scale < 1e-9:
        return np.full(people, np.nan)
    return _mean(left / scale < FAST, vote_table.annotator[timed], people)


def _runs(vote_table: VoteTable, people: int) -> tuple[Floats, Floats]:
    """Longest run of one side or of alternating sides, and a bound n · q^(r - 1) on the chance of one as long.

    q is the share of the side that is chosen more often over all annotators: a habit of all is no pattern of one.
    """
    shown = displayed(vote_table)
    decided = (shown == FIRST) | (shown == SECOND)
    sides = (shown[decided] == FIRST).astype(np.int64)
    often = max(sides.mean(), 1 - sides.mean()) if len(sides) else 0.5
    longest, chance = np.full(people, np.nan), np.full(people, np.nan)
    for a, own in pd.Series(sides).groupby(vote_table.annotator[decided]):
        own = own.to_numpy()
        if len(own) > 1:
            alternating = own ^ (np.arange(len(own)) % 2)
            longest[a] = max(_longest(own), _longest(alternating))
            chance[a] = min(1.0, 2 * len(own) * often ** (longest[a] - 1))
    return longest, chance


def _longest(values: Ints) -> int:
    """Length of the longest run of equal values."""
    changes = np.flatnonzero(np.diff(values)) + 1
    return int(np.diff(np.concatenate([[0], changes, [len(values)]])).max())


def _below_the_others(share: Floats, votes: Floats, level: float) -> Bools:
    """Agreement with the others whose upper limit is more than `LOW` below the median annotator's."""
    known = share[(votes >= 20) & np.isfinite(share)]
    if not len(known):
        return np.zeros(len(share), dtype=bool)
    spread = np.sqrt(np.clip(share * (1 - share), 0.05, None) / np.maximum(votes, 1))
    upper = share + stats.norm.isf(level) * spread
    return np.asarray((votes >= 20) & (upper < np.median(known) - LOW))


def _mean(values: Bools, annotator: Ints, people: int) -> Floats:
    """Mean of a column per annotator [A]; NaN for those without a row."""
    number = np.bincount(annotator, minlength=people)
    total = np.bincount(annotator, values.astype(float), minlength=people)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


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
    cells = group * 3**2 + verdict[first] * 3 + verdict[second]
    tables = np.bincount(cells, minlength=len(codes) * 3**2).reshape(-1, 3, 3)
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
