"""What votes say about the order of a prompt's completions: as much as they compared, and no more. numpy only.

Two completions that no vote compares, directly or through others, have no order. Where every two of a connected set
were compared, the set is ranked by mean win share (Borda), which smooths contradictions. Else the majorities are closed
transitively; inside a cycle of majorities there is no order.
"""

import numpy as np
from scipy.sparse.csgraph import connected_components

from rlhf.stats.arrays import Bools, Floats, Ints

EQUAL = 1e-12
"""Mean win probabilities that differ by no more than this share a rank."""
EVEN = 1e-6
"""Win probabilities closer to one half than this are a tie (they are stored in single precision)."""


def compared_sets(observed: Bools) -> list[Ints]:
    """Places of the completions that comparisons [K, K] connect, set by set; two or more each."""
    _, names = connected_components(observed, directed=False)
    sets = (np.flatnonzero(names == name) for name in np.unique(names[observed.any(1)]))
    return [places for places in sets if len(places) > 1]


def complete(observed: Bools) -> bool:
    """Was every pair [K, K] compared?"""
    return bool(observed.sum() == len(observed) * (len(observed) - 1))


def above(win_prob: Floats, observed: Bools) -> Bools:
    """Which completion stands above which [K, K], for one connected set.

    Args:
        win_prob: [K, K]. observed: [K, K], symmetric.
    """
    if complete(observed):
        share = win_prob.sum(1)
        return np.asarray(share[:, None] - share[None, :] > EQUAL * len(share))
    reach = observed & (win_prob > 0.5 - EVEN)
    for k in range(len(reach)):  # transitive closure (Warshall 1962)
        reach |= np.outer(reach[:, k], reach[k])
    return np.asarray(reach & ~reach.T)


def tied(win_prob: Floats, observed: Bools, over: Bools) -> Bools:
    """Which two of one connected set are equal [K, K], given who stands above whom: linked by ties alone."""
    if complete(observed):
        return np.asarray(~over & ~over.T & ~np.eye(len(over), dtype=bool))
    even = observed & (np.abs(win_prob - 0.5) < EVEN)
    _, names = connected_components(even, directed=False)
    return np.asarray((names[:, None] == names[None, :]) & ~over & ~over.T & ~np.eye(len(over), dtype=bool))


def places_of(over: Bools, equal: Bools) -> Ints | None:
    """Rank [K] of every completion (0 = best, equal = tied), or None where some two have no order."""
    if not (over | over.T | equal | np.eye(len(over), dtype=bool)).all():
        return None
    found: Ints = np.unique(over.sum(0), return_inverse=True)[1]
    return found


def ranked(win_prob: Floats, observed: Bools) -> Ints:
    """Rank [K] inside every connected set; -1 for a completion of a set whose order is only partial, or of none.

    Ranks of different sets must not be compared.
    """
    rank = np.full(len(observed), -1, dtype=np.int64)
    for places in compared_sets(observed):
        square = np.ix_(places, places)
        over = above(win_prob[square], observed[square])
        found = places_of(over, tied(win_prob[square], observed[square], over))
        if found is not None:
            rank[places] = found
    return rank
