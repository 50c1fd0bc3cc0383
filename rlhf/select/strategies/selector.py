"""What selectors are made of: the highest utilities, random draws, and filling up to the budget."""

from collections.abc import Callable

import numpy as np

from rlhf.select.pool import Candidates, Selection
from rlhf.stats.arrays import Floats, Ints, Rng

Selector = Callable[[Candidates, int, Rng], Selection]
"""`(candidates, budget, rng) -> choice`: so many of the candidates, best first; the budget is at most their number."""


def best(candidates: Candidates, utility: Floats, budget: int, reason: str, rng: Rng) -> Selection:
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
    return Selection(candidates.rows[places], np.asarray(utility, float), reasons, np.zeros(len(places), bool))


def fill(candidates: Candidates, found: Selection, budget: int, rng: Rng, why: str) -> Selection:
    """`found`, cut or filled up by random draws to exactly `budget`; the reason of these says `why`.

    They are not marked as random: what is left when a selector is done is not an unbiased sample.
    """
    found = found.take(np.arange(min(len(found), budget)))
    rest = candidates.without(found.indices)
    more = at_random(rest, budget - len(found), rng)
    return Selection.join([found, more.told([f"filled up: {why}"] * len(more))])


def in_groups(
    candidates: Candidates, groups: Ints, quota: Ints, within: Selector, rng: Rng, reason: Callable[[int, str], str]
) -> Selection:
    """Of every group 0, 1, ... as many as its quota, chosen by `within`.

    Args:
        groups: [n] of every candidate.
        quota: [g], none above the size of the group.
        within: how pairs are chosen in a group.
        reason: (group, reason of `within`) -> reason.
    """
    parts = []
    for group in np.flatnonzero(quota).tolist():
        found = within(candidates.only(groups == group), int(quota[group]), rng)
        parts.append(found.told(reason(group, own) for own in found.reasons))
    return Selection.join(parts)


def at_random(candidates: Candidates, budget: int, rng: Rng) -> Selection:
    """Every candidate with the same chance: the baseline, the cold start, and the monitor that nothing biases."""
    places = rng.permutation(len(candidates))[:budget]
    count = len(places)
    reasons = ["random: every unlabelled pair had the same chance"] * count
    return Selection(candidates.rows[places], np.full(count, np.nan), reasons, np.ones(count, bool))
