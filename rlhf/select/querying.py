"""`query`: the one call, and the promises it keeps for every selector.

The budget is met exactly; pairs are distinct, not labelled yet and of no validation or test prompt; the choice depends
on the ids, the labels and the random generator, not on the order of the rows or on which side a completion stands.
"""

from numbers import Integral
from typing import Any

import numpy as np

from rlhf.records import RecordError
from rlhf.select.pool import Candidates, LabelState, PairPool, Selection
from rlhf.select.strategies.mixed import safe
from rlhf.select.strategies.selector import Selector


def query(
    pool: PairPool, state: LabelState, budget: int, rng: np.random.Generator, *, selector: Selector = safe
) -> Selection:
    """The next pairs to label.

    Args:
        pool: all pairs.
        state: what is labelled so far; `LabelState.empty(d)` before the first label.
        budget: how many pairs, >= 0.
        rng: of every random draw: an equal generator gives an equal choice.
        selector: how; by default `safe`: 80% Laplace-power, 20% at random.

    Raises:
        TypeError: an argument of another kind, such as a budget of 5.0 or a selector's name.
        RecordError: labels or a posterior that do not fit the pool, or an option of the selector out of its range.
        ValueError: fewer pairs are left than the budget asks for, or a selector that broke its promise.
    """
    _check(pool, state, budget, rng, selector)
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
        raise ValueError(f"{selector} gave {len(found)} pairs of {budget}, some of them twice or not candidates")
    return found


def _check(pool: PairPool, state: LabelState, budget: Any, rng: Any, selector: Any) -> None:
    for name, value, kind in (("pool", pool, PairPool), ("state", state, LabelState)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, not {value!r:.80}")
    if not isinstance(budget, Integral) or budget is True or budget is False:
        raise TypeError(f"budget={budget!r} must be a whole number of pairs")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng={rng!r} must be a numpy Generator: np.random.default_rng(<seed>)")
    if not callable(selector):
        raise TypeError(f"selector={selector!r} must be a function, such as rlhf.select.strategies.uncertainty.bald")
    width = len(state.posterior.theta)
    if width != pool.width:
        raise RecordError(
            f"the head has {width} weights, the features of the pool {pool.width} columns", key="state.posterior"
        )
    if len(state.rows) and int(np.max(state.rows)) >= len(pool):
        raise RecordError(f"row {np.max(state.rows)} of a pool of {len(pool)} pairs", key="state.rows")
