"""How much is obtained, and on what: votes per round, votes per pair, and which pairs get another one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from rlhf.records import Vote
from rlhf.stats.arrays import Ints


@dataclass(frozen=True)
class Votes:
    """How many votes a pair gets.

    Pairs that are owed a vote (fewer than `per_pair`, or votes that differ) come before new ones, the oldest first.

    Args:
        per_pair: votes on a new pair.
        until_agreed: a pair whose votes differ gets another, until one answer has more votes than any other, two at
            least, or until it has `most` votes.
        again: share of every batch spent on another vote for labelled pairs whose answer is open by votes and head
            together (`rlhf.select.strategies.error_focused.second_votes`), 0..1.
        most: pairs with so many votes get no further ones.
        reliability: chance that a vote is right, as `again` reckons, 0.5..1.

    Raises:
        ValueError: a number out of its range.
    """

    per_pair: int = 1
    until_agreed: bool = False
    again: float = 0.0
    most: int = 5
    reliability: float = 0.8

    def __post_init__(self) -> None:
        if not 1 <= self.per_pair <= self.most:
            raise ValueError(f"votes.per_pair={self.per_pair} must lie between 1 and votes.most={self.most}")
        if not 0 <= self.again < 1:
            raise ValueError(f"votes.again={self.again} must lie in 0..1, below 1")
        if not 0.5 < self.reliability < 1:
            raise ValueError(f"votes.reliability={self.reliability} must lie between 0.5 and 1")

    def owed(self, given: Mapping[int, Sequence[Vote]], room: Ints) -> dict[int, str]:
        """Rows of pairs that need another vote before new pairs are asked about, with the reason.

        Args:
            given: row of the pool -> its votes so far.
            room: votes [n] that each pair can get in all.
        """
        found = {}
        for row, votes in given.items():
            if len(votes) >= min(self.most, int(room[row])):
                continue
            if len(votes) < self.per_pair:
                found[row] = f"another vote: {len(votes)} of {self.per_pair} so far"
            elif self.until_agreed and not agreed(votes):
                found[row] = "another vote: " + " against ".join(map(str, _counts(votes))) + " so far"
        return found


def agreed(votes: Sequence[Vote]) -> bool:
    """Whether one answer (one side, the other, a tie) has more votes than any other, and at least two."""
    first, second, *_ = (*_counts(votes), 0, 0)
    return first >= 2 and first > second


def _counts(votes: Sequence[Vote]) -> list[int]:
    return sorted(Counter(vote.choice for vote in votes).values(), reverse=True)


@dataclass(frozen=True)
class LabelBudget:
    """How much is obtained, and when.

    Args:
        start: votes of the first round, on pairs drawn at random; 0 = the selector chooses from the first on.
        batch: votes of every later round.
        rounds: rounds after the first.
        votes: how many of them a pair gets.

    Raises:
        ValueError: a number out of its range.
    """

    start: int = 20
    batch: int = 20
    rounds: int = 20
    votes: Votes = field(default_factory=Votes)

    def __post_init__(self) -> None:
        if self.start < 0 or self.batch < 1 or self.rounds < 0:
            raise ValueError(
                "task.plan: start >= 0, batch >= 1 and rounds >= 0, but they are "
                f"{self.start}, {self.batch}, {self.rounds}"
            )

    def pairs(self, votes: int, left: int) -> list[int]:
        """So many votes as votes on new pairs: `per_pair` each, the last pair what remains; at most `left` pairs."""
        whole, rest = divmod(votes, self.votes.per_pair)
        return list(islice([self.votes.per_pair] * whole + [rest] * (rest > 0), left))
