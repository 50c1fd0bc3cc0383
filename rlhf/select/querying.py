"""`query`: the one call, and the promises it keeps for every selector.

The budget is met exactly; pairs are distinct, not labelled yet and of no validation or test prompt; the choice depends
on the ids, the labels and the random generator, not on the order of the rows or on which side a completion stands.
"""

from __future__ import annotations

import numpy as np

from rlhf.select.choosing import Selector
from rlhf.select.mixing import safe
from rlhf.select.pool import Candidates, LabelState, PairPool, Selection


def query(
    pool: PairPool, state: LabelState, budget: int, rng: np.random.Generator, *, selector: Selector = safe
) -> Selection:  # fmt: skip
    """The next pairs to label.

    Args:
        pool: all pairs.
        state: what is labelled so far; `LabelState.empty(d)` before the first label.
        budget: how many pairs, >= 0.
        rng: of every random draw: an equal generator gives an equal choice.
        selector: how; by default `safe`: 80% Laplace-power, 20% at random.

    Raises:
        ValueError: fewer pairs are left than the budget asks for, or a selector that broke its promise.
    """
    if budget < 0:
        raise ValueError(f"budget={budget} must be 0 or more")
    free = pool.selectable.copy()
    free[state.rows] = False
    rows = np.flatnonzero(free)
    ids = pool.ids[rows]
    if len(ids) > 1 and not (ids[:-1] < ids[1:]).all():
        rows = rows[np.argsort(ids, kind="stable")]
    if budget > len(rows):
        raise ValueError(
            f"{budget} pairs asked for, {len(rows)} left without labels: lower the budget or add pairs to the pool"
        )
    if budget == 0:
        return Selection.join([])
    found = selector(Candidates(pool, state, rows), budget, rng)
    if len(found) != budget or len(np.unique(found.indices)) != budget or not free[found.indices].all():
        raise ValueError(
            f"{selector} gave {len(found)} pairs of {budget}, some of them twice or not candidates"
        )
    return found
