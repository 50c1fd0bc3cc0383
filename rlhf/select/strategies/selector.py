"""What selectors are made of: the highest utilities, random draws, and filling up to the budget."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rlhf.select.pool import Candidates, Selection
from rlhf.stats.arrays import Floats, Ints


class Selector(Protocol):
    """Chooses `budget` of the candidates, best first; `budget` is at most their number."""

    def __call__(self, candidates: Candidates, budget: int, rng: np.random.Generator) -> Selection:
        """The choice."""


def best(
    candidates: Candidates, utility: Floats, budget: int, reason: str, rng: np.random.Generator
) -> Selection:
    """The candidates of highest utility [n]; equal ones in random order."""
    budget = min(budget, len(candidates))
    tie = rng.permutation(len(utility))
    if budget < len(utility):
        threshold = -np.partition(-utility, budget - 1)[budget - 1]
        places = np.flatnonzero(utility >= threshold)
    else:
        places = np.arange(len(utility))
    places = places[np.lexsort((tie[places], -utility[places]))][:budget]
    return chosen(candidates, places, utility[places], reason)


def chosen(candidates: Candidates, places: Ints, utility: Floats, reason: str) -> Selection:
    """Candidates at these places, with the reason `<reason> <utility>`."""
    reasons = [f"{reason} {value:.4g}" for value in utility]
    return Selection(
        candidates.rows[places], np.asarray(utility, float), reasons, np.zeros(len(places), bool)
    )


def fill(
    candidates: Candidates, found: Selection, budget: int, rng: np.random.Generator, why: str
) -> Selection:
    """`found`, cut or filled up by random draws to exactly `budget`; the reason of these says `why`.

    They are not marked as random: what is left when a selector is done is not an unbiased sample.
    """
    found = found.take(np.arange(min(len(found), budget)))
    rest = candidates.without(found.indices)
    more = at_random(rest, budget - len(found), rng)
    filled = Selection(
        more.indices, more.utilities, [f"filled up: {why}"] * len(more), np.zeros(len(more), bool)
    )
    return Selection.join([found, filled])


def at_random(candidates: Candidates, budget: int, rng: np.random.Generator) -> Selection:
    """Every candidate with the same chance: the baseline, the cold start, and the monitor that nothing biases."""
    places = rng.permutation(len(candidates))[:budget]
    count = len(places)
    reasons = ["random: every unlabelled pair had the same chance"] * count
    return Selection(candidates.rows[places], np.full(count, np.nan), reasons, np.ones(count, bool))
