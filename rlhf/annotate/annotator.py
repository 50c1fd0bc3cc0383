"""Simulated annotators of different reliability: random utility with ties, position bias and length bias.

A careful look perceives u_i = gold_i / temperature + length_bias · z_i + position_bias · [i shown first], with z the
length in standard deviations of the toy world's answers, adds noise, and calls a tie what lies within `tie_width`:
on pairs this is the model of Rao & Kupper (1967), on rankings Plackett-Luce (1975) with ties between neighbours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Uniform = Callable[[], float]
"""Gives the next uniform number in (0, 1)."""

LENGTH_SCALE = 45.0  # standard deviation of the answers' lengths, in characters
READING_SPEED = 25.0  # characters per second of a careful reader


@dataclass(frozen=True, slots=True)
class Annotator:
    """One simulated person.

    care            share of items that are read; the others are clicked at random
    temperature     > 1 votes more noisily than Bradley-Terry, < 1 more sharply
    tie_width       perceived differences below this are called ties, in log-odds
    position_bias   log-odds in favour of the answer shown first
    length_bias     log-odds per standard deviation of length
    """

    name: str
    care: float
    temperature: float
    tie_width: float
    position_bias: float
    length_bias: float

    def utilities(self, gold: Sequence[float], lengths: Sequence[int], first: int) -> list[float]:
        """Perceived values before noise; `first` is the index of the answer shown first."""
        return [
            g / self.temperature + self.length_bias * n / LENGTH_SCALE + self.position_bias * (i == first)
            for i, (g, n) in enumerate(zip(gold, lengths, strict=True))
        ]

    def choose(self, gold: Sequence[float], lengths: Sequence[int], first: int, uniform: Uniform) -> int | None:
        """Index of the better of two answers, or None for a tie."""
        if uniform() > self.care:
            return int(uniform() < 0.5)
        a, b = self.utilities(gold, lengths, first)
        u = uniform()
        perceived = a - b + math.log(u / (1 - u))
        return None if abs(perceived) < self.tie_width else int(perceived < 0)

    def rank(
        self, gold: Sequence[float], lengths: Sequence[int], first: int, uniform: Uniform
    ) -> tuple[tuple[int, ...], ...]:
        """Indices best first; neighbours that seem equal share a group."""
        if uniform() > self.care:
            shuffled = sorted(range(len(gold)), key=lambda _: uniform())
            return tuple((i,) for i in shuffled)
        seen = [u - math.log(-math.log(uniform())) for u in self.utilities(gold, lengths, first)]
        order = sorted(range(len(seen)), key=lambda i: -seen[i])
        groups = [[order[0]]]
        for before, i in pairwise(order):
            if seen[before] - seen[i] < self.tie_width / 2:
                groups[-1].append(i)
            else:
                groups.append([i])
        return tuple(tuple(g) for g in groups)

    def seconds(self, characters: int, uniform: Uniform) -> float:
        """Time for an item: reading, thinking, log-normal spread."""
        spread = math.exp(0.5 * (uniform() + uniform() + uniform() - 1.5))
        return round(self.care * (characters / READING_SPEED + 2.0) * spread + 0.5, 1)


def pool(
    size: int, *, careless: float, temperature: float, tie_width: float, position_bias: float, length_bias: float,
    seed: int,
) -> tuple[Annotator, ...]:  # fmt: skip
    """Annotators whose parameters spread around the given means; a share of them is careless.

    Args:
        size: how many.
        careless: share of annotators who read only a third of their items.
        temperature, tie_width, position_bias, length_bias: means over annotators, see `Annotator`.
        seed: of their parameters.
    """
    rng = np.random.default_rng((seed, 7919))
    clicks = set(rng.permutation(size)[: round(careless * size)].tolist())
    people = []
    for i in range(size):
        spread = rng.uniform(0.5, 1.5, 4).tolist()
        care = 0.35 if i in clicks else float(rng.uniform(0.85, 1.0))
        people.append(
            Annotator(
                f"toy{i:02d}",
                care,
                temperature * (0.5 + spread[0] / 2),
                tie_width * spread[1],
                position_bias * spread[2],
                length_bias * spread[3],
            )
        )
    return tuple(people)
