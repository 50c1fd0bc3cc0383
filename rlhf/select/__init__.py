"""Which pairs to label next, and whether choosing helped at all: selectors, the loop, the comparison with random.

`query(pool, state, budget, rng, selector=...)` is the one call;
`python train.py task=active selector=...` runs the whole loop.
"""

from rlhf.select.pool import LabelState, PairPool, Selection
from rlhf.select.querying import query
from rlhf.select.strategies.selector import at_random

__all__ = ["LabelState", "PairPool", "Selection", "at_random", "query"]
