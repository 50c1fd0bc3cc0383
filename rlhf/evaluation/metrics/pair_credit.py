"""Pair by pair: does the reward agree with the votes, and do the annotators agree with each other?"""

import numpy as np

from rlhf.evaluation.metrics.scored import Scored
from rlhf.stats.arrays import Floats, Ints

EVEN = 1e-6
"""Vote shares closer to one half than this are even (they are stored in single precision)."""

WHOLE = 1e-3
"""Vote counts closer to a whole number than this are whole."""


def credit(lead: Floats, win_prob: Floats) -> Floats:
    """1 where the side that leads is the side that won, 0.5 where nobody leads, NaN where nobody won [P]."""
    right = np.where(lead == 0, 0.5, (lead > 0) == (win_prob > 0.5))
    return np.where(np.abs(win_prob - 0.5) < EVEN, np.nan, right)


def hardest(scored: Scored, hardness: Floats, most: int) -> Ints:
    """The pairs of the highest hardness [P], one per prompt, `most` at most; NaN is left out."""
    known = np.flatnonzero(np.isfinite(hardness))
    order = known[np.argsort(-hardness[known], kind="stable")]
    first = np.sort(np.unique(scored.pair_prompt[order], return_index=True)[1])[:most]
    return np.asarray(order[first], dtype=np.int64)


def held_out_votes(scored: Scored) -> tuple[Floats, Floats] | None:
    """Of every pair [P]: the credit of one of its votes against the others, and the chance that these decide.

    Hold out one of the votes at random: the exact expectation, from the counts of wins, ties and losses. A held-out
    "tie" gets half the credit. Pairs with fewer than 2 votes have two zeros. Credit over chance, each summed over
    pairs, is how often an annotator agrees with the majority of the others.

    Returns:
        None where no pair has 2 votes, and where the shares no longer show how annotators differed: smoothed or
        weighted votes (counts that are not whole), or hard labels (no disagreement anywhere).
    """
    several = scored.votes >= 2 - WHOLE
    votes = scored.votes[several]
    ties = scored.tie_prob[several] * votes
    wins = scored.win_prob[several] * votes - ties / 2
    counts = np.stack([wins, ties, votes - wins - ties])
    whole = np.round(counts)
    if not len(votes) or np.abs(counts - whole).max() > WHOLE or (whole.max(0) >= np.round(votes)).all():
        return None
    lead = whole[0] - whole[2]
    agreed, held_out = np.zeros(len(several)), np.zeros(len(several))
    for count, vote in zip(whole, (1, 0, -1), strict=True):
        others = np.sign(lead - vote)
        share = np.where(others == 0, 0, count / votes)
        agreed[several] += share * (0.5 if vote == 0 else others == vote)
        held_out[several] += share
    return agreed, held_out
