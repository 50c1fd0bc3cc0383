"""How far what is selected has moved from the pool, and the policy's answers from what is labelled. numpy, sklearn.

A selector changes the distribution it learns from; accuracy on what it chose says little about the rest. These numbers
say how much: drift of rewards, lengths and embeddings, a classifier that tries to tell labelled from unlabelled
(Lopez-Paz & Oquab 2017), coverage, and the same head's errors on the random share against the rest.
"""

from typing import Any

import numpy as np
from scipy.stats import ks_2samp, norm
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from rlhf.select.loop.learners import TrainedRound
from rlhf.select.pool import PairPool
from rlhf.stats.arrays import Bools, Floats, Ints

SAMPLE = 500
"""Unlabelled pairs that stand for the pool; the two-sample tests need no more."""

RIDGE = 0.1
"""Penalty of the least-squares classifier, in units of the pool's variance and the number of pairs."""


def shift(trained: TrainedRound, random: Bools, rng: np.random.Generator) -> dict[str, Any]:
    """Flat numbers for one round; a number that is not defined (too few labels) is left out.

    Args:
        trained: after the round.
        random: [m] which labelled pairs were drawn at random.
        rng: of the sample of the pool.

    Returns:
        reward/*, length/*, embedding/* (labelled against pool: difference of means in pool standard deviations,
        Kolmogorov-Smirnov distance), classifier/auc (0.5 = cannot be told apart) and classifier/p, coverage (share of
        the pool whose s² is at most the 95% quantile of the labelled pairs' own), coverage/policy (the same for pairs
        of the policy's answers to one prompt; left out where it has one answer per prompt), prompts/seen,
        monitor/random_* and monitor/selected_* (out of fold).
    """
    pool, state = trained.pool, trained.state
    labelled = state.rows
    rest = np.setdiff1d(np.flatnonzero(pool.selectable), labelled)
    out: dict[str, float] = {"labelled_pairs": len(labelled), "unlabelled_pairs": len(rest)}
    if len(labelled) < 10 or len(rest) < 10:
        return out
    rest = np.sort(rng.permutation(rest)[:SAMPLE])
    ours, theirs = (pool.answers(rows) for rows in (labelled, rest))
    out |= _drift("reward", trained.rewards[ours], trained.rewards[theirs])
    out |= _drift("margin", *(np.abs(pool.reward_differences(trained.rewards, r)) for r in (labelled, rest)))
    if pool.length is not None:
        out |= _drift("length", np.asarray(pool.length)[ours], np.asarray(pool.length)[theirs])
    out |= embedding_shift(np.abs(pool.z(labelled)), np.abs(pool.z(rest)), rng)
    out |= _coverage(trained, rest)
    out["prompts/seen"] = len(np.unique(pool.prompt[labelled])) / len(np.unique(pool.prompt[pool.selectable]))
    return out | monitor(trained, random)


def embedding_shift(ours: Floats, theirs: Floats, rng: np.random.Generator) -> dict[str, float]:
    """Drift of |z|, which has no side, and the classifier two-sample test: trained on one half, AUC and p on the other.

    Drift is the root mean square over dimensions of the difference of means in standard deviations of the pool.
    """
    both = np.vstack([ours, theirs]).astype(np.float64)
    spread = theirs.std(0)
    floor = max(0.1 * float(np.sqrt((spread**2).mean())), 1e-12)
    spread = np.maximum(spread, floor)  # columns that hardly vary
    drift = float(np.sqrt((((ours.mean(0) - theirs.mean(0)) / spread) ** 2).mean()))
    label = np.repeat([1, 0], [len(ours), len(theirs)])
    order = rng.permutation(len(label))
    order = order[np.argsort(label[order], kind="stable")]
    train, test = order[::2], order[1::2]
    ridge = Ridge(alpha=RIDGE * len(train)).fit(both[train] / spread, label[train])
    score = ridge.predict(both[test] / spread)
    auc = float(roc_auc_score(label[test], score))
    ones = float(label[test].sum())
    error = np.sqrt((len(test) + 1) / (12 * ones * (len(test) - ones)))  # of the Mann-Whitney statistic
    return {"embedding/drift": drift, "classifier/auc": auc, "classifier/p": float(norm.sf((auc - 0.5) / error))}


def monitor(trained: TrainedRound, random: Bools) -> dict[str, float]:
    """Out-of-fold accuracy and NLL on the random share, which is unbiased, and on what was selected."""
    state = trained.state
    out: dict[str, float] = {}
    known = np.isfinite(state.out_of_fold) & (state.votes > 0)
    for name, part in (("random", random & known), ("selected", ~random & known)):
        decided = part & (state.share != 0.5)
        out[f"monitor/{name}_pairs"] = int(part.sum())
        if decided.any():
            right = (state.out_of_fold[decided] > 0.5) == (state.share[decided] > 0.5)
            p = np.clip(state.out_of_fold[part], 1e-12, 1 - 1e-12)
            nll = -(state.share[part] * np.log(p) + (1 - state.share[part]) * np.log(1 - p))
            out[f"monitor/{name}_accuracy"] = float(right.mean())
            out[f"monitor/{name}_nll"] = float(nll.mean())
    return out


def _drift(name: str, ours: Floats, theirs: Floats) -> dict[str, float]:
    spread = max(float(theirs.std()), 1e-12)
    return {
        f"{name}/labelled": float(ours.mean()),
        f"{name}/pool": float(theirs.mean()),
        f"{name}/drift": float((ours.mean() - theirs.mean()) / spread),
        f"{name}/ks": float(ks_2samp(ours, theirs).statistic),
    }


def _coverage(trained: TrainedRound, rest: Ints) -> dict[str, float]:
    pool, posterior = trained.pool, trained.state.posterior
    edge = float(np.quantile(posterior.variance(pool.z(trained.state.rows)), 0.95))
    out = {"coverage": float((posterior.variance(pool.z(rest)) <= edge).mean())}
    gaps = _policy_differences(pool)
    if len(gaps):
        out["coverage/policy"] = float((posterior.variance(gaps) <= edge).mean())
    return out


def _policy_differences(pool: PairPool) -> Floats:
    """Differences [k, d] of neighbouring answers of the policy to one prompt, in the space of the posterior."""
    target = pool.target if pool.target_features is None else pool.target_features
    if target is None or (pool.frozen is not None and pool.target_features is None):
        return np.empty((0, pool.width))
    prompt = np.zeros(len(target), np.int64) if pool.target_prompt is None else pool.target_prompt
    order = np.argsort(prompt, kind="stable")
    same = prompt[order][1:] == prompt[order][:-1]
    return np.asarray(target[order[1:][same]] - target[order[:-1][same]], np.float64)
