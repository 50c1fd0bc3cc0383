"""Which two answers of a prompt to compare: duelling choices. One pair per prompt, then the next.

Bounds are on differences, μ ± β s, so that a reward shifted as a whole changes nothing; β is `confidence` >= 0, in
standard deviations. Prompts come in random order.
These choose for a policy that learns from the pairs; for a reward model random pairs are a strong rival.
"""

import numpy as np
import pandas as pd

from rlhf.select.checks import option
from rlhf.select.pool import Candidates, Selection
from rlhf.select.strategies.selector import chosen
from rlhf.stats.arrays import Floats, Rng


def double_thompson(candidates: Candidates, budget: int, rng: Rng) -> Selection:
    """Two draws of the head name a best answer each (Wu & Liu 2016): (a, b) = argmax r¹_a + r²_b over the pairs left.

    Where both draws name the same answer, this is that answer against the best rival instead of another draw.
    """
    pool, rows = candidates.pool, candidates.rows
    first, second = candidates.state.posterior.draw(2, rng)
    if pool.right is None:
        utility = np.abs(candidates.each(lambda z: z @ (first - second)))
    else:
        a, b = pool.left[rows], pool.right[rows]
        r1, r2 = _rewards(candidates, first), _rewards(candidates, second)
        utility = np.maximum(r1[a] + r2[b], r1[b] + r2[a])
    return _one_per_prompt(candidates, utility, budget, rng, "double Thompson: r¹ + r² =")


def max_min_lcb(candidates: Candidates, budget: int, rng: Rng, *, confidence: float = 1.0) -> Selection:
    """The answer whose worst lower bound is highest, with the rival that gives it (MaxMinLCB, Pásztor et al. 2024)."""
    option("confidence", confidence, 0)
    spread = confidence * np.sqrt(candidates.variance)
    low_left, low_right = candidates.margin - spread, -candidates.margin - spread
    pool, rows = candidates.pool, candidates.rows
    if pool.right is None:
        utility = np.maximum(low_left, low_right)
    else:
        a, b = pool.left[rows], pool.right[rows]
        worst = np.full(len(pool.features), np.inf)
        np.minimum.at(worst, a, low_left)
        np.minimum.at(worst, b, low_right)
        utility = np.maximum(
            np.where(low_left == worst[a], worst[a], -np.inf), np.where(low_right == worst[b], worst[b], -np.inf)
        )
        bottom = np.minimum(low_left, low_right).min() - 1
        utility = np.where(np.isfinite(utility), utility, bottom + np.maximum(low_left, low_right) * 1e-6)
    return _one_per_prompt(candidates, utility, budget, rng, "max-min lower bound")


def delta_ucb(candidates: Candidates, budget: int, rng: Rng, *, confidence: float = 1.0) -> Selection:
    """The pair that may be farthest apart: max |μ| + β s (DeltaUCB, ActiveUltraFeedback 2026)."""
    option("confidence", confidence, 0)
    utility = np.abs(candidates.margin) + confidence * np.sqrt(candidates.variance)
    return _one_per_prompt(candidates, utility, budget, rng, "delta upper bound: |μ| + βs =")


def _rewards(candidates: Candidates, theta: Floats) -> Floats:
    """Rewards [N] of all completions under one head, in blocks."""
    features = candidates.pool.features
    parts = [features[i : i + 65_536].astype(np.float64) @ theta for i in range(0, len(features), 65_536)]
    return np.concatenate(parts)


def _one_per_prompt(candidates: Candidates, utility: Floats, budget: int, rng: Rng, reason: str) -> Selection:
    """Best pairs of all prompts first, then all second-best ones, prompts in random order within each turn."""
    prompt = candidates.pool.prompt[candidates.rows]
    order = np.lexsort((np.arange(len(prompt)), -utility, prompt))
    turn = pd.Series(order).groupby(prompt[order]).cumcount().to_numpy()
    luck = rng.permutation(int(candidates.pool.prompt.max()) + 1)[prompt[order]]
    places = order[np.lexsort((luck, turn))][:budget]
    return chosen(candidates, places, utility[places], reason)
