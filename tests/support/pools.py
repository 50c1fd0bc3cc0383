"""Small pools with known heads for the tests of selection."""

import numpy as np
from scipy.special import expit

from rlhf.select.laplace import fit
from rlhf.select.pool import LabelState, PairPool


def pool_of(rng, prompts=30, answers=4, width=6, **columns):
    """All pairs of a few answers per prompt; the last fifth of the prompts is held out."""
    features = rng.standard_normal((prompts * answers, width)) * np.linspace(2, 0.5, width)
    left, right = np.triu_indices(answers, 1)
    base = np.arange(prompts)[:, None] * answers
    prompt = np.repeat(np.arange(prompts), len(left))
    given = {
        "domain": prompt % 3,
        "cost": rng.uniform(0.5, 2, len(prompt)),
        "selectable": prompt < prompts * 4 // 5,
        "length": rng.integers(10, 200, len(features)).astype(float),
        "target": rng.standard_normal((40, width)) + 0.5,
    }
    return PairPool(
        features,
        (base + left).ravel(),
        (base + right).ravel(),
        np.array([f"pair{rank:04d}" for rank in rng.permutation(len(prompt))]),
        prompt,
        **given | columns,
    )


def state_of(pool, rng, labels=25):
    """Labels of a random head on random selectable pairs, and the head fitted on them."""
    theta = rng.standard_normal(pool.width)
    rows = rng.permutation(np.flatnonzero(pool.selectable))[:labels]
    z = pool.z(rows)
    share = (rng.random(labels) < expit(z @ theta)).astype(float)
    votes = np.ones(labels)
    out_of_fold = rng.uniform(0.1, 0.9, labels)
    return LabelState(rows, share, votes, fit(z, share, votes, 1.0), out_of_fold)
