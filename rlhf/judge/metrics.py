"""One scored set to one flat dictionary of numbers; the keys are a contract (README, section "Results").

Accuracies are exact means over the judged pairs of the set, never means of batch means (T48). A pair whose votes
are even has no right answer: it is left out of accuracies and counted. Equal rewards get half the credit (T47).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rlhf.judge.calibration import BINS, ece, nll
from rlhf.judge.intervals import cluster_bootstrap, cluster_sums
from rlhf.judge.ranking import length_metrics, rank_metrics
from rlhf.judge.table import Floats, Scored

CLEAR = 1e-9
"""Vote shares closer to one half than this are ties."""


def evaluate(
    scored: Scored, *, temperature: float = 1.0, bootstrap: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Every metric of a set.

    Args:
        scored: the set.
        temperature: of the calibrated probabilities σ(D / T); `ece_uncalibrated` and `nll_uncalibrated` use T = 1.
        bootstrap: resamples of prompts behind every interval; 0 leaves intervals out.
        seed: of the resampling.

    Returns:
        Flat keys to finite numbers; a metric that the set does not define has no key.
    """
    out: dict[str, float] = {
        "n_pairs": len(scored.first),
        "n_prompts": len(np.unique(scored.prompt)),
        "n_groups": len(scored.prompt),
        "temperature": temperature,
    }
    out |= reward_metrics(scored) | rank_metrics(scored) | length_metrics(scored)
    if len(scored.first):
        out |= pair_metrics(scored) | probability_metrics(scored, temperature) | by_domain(scored)
        if bootstrap:
            out |= intervals(scored, temperature, bootstrap, seed)
    return {k: v for k, v in out.items() if math.isfinite(v)}


def credit(lead: Floats, win_prob: Floats) -> Floats:
    """1 where the side that leads is the side that won, 0.5 where nobody leads, NaN where nobody won [P]."""
    right = np.where(lead == 0, 0.5, (lead > 0) == (win_prob > 0.5))
    return np.where(np.abs(win_prob - 0.5) < CLEAR, np.nan, right)


def pair_metrics(scored: Scored) -> dict[str, float]:
    """Accuracy, its split by which side was longer, and the baselines beside it."""
    right = credit(scored.difference, scored.win_prob)
    longer = scored.length[scored.first] - scored.length[scored.second]
    won = np.sign(scored.win_prob - 0.5) * np.sign(longer)
    first_wins = _mean((scored.win_prob > 0.5)[np.isfinite(right)])
    out = {
        "pair_accuracy": _mean(right),
        "pair_accuracy/longer_won": _mean(right[won > 0]),
        "pair_accuracy/shorter_won": _mean(right[won < 0]),
        "baseline/length": _mean(credit(longer, scored.win_prob)),
        "baseline/majority": max(first_wins, 1 - first_wins),
        "n_gold_ties": int(np.isnan(right).sum()),
        "n_longer_won": int((won[np.isfinite(right)] > 0).sum()),
        "n_shorter_won": int((won[np.isfinite(right)] < 0).sum()),
    }
    ceiling = annotator_ceiling(scored)
    return out | ({} if ceiling is None else {"ceiling/annotators": ceiling})


def annotator_ceiling(scored: Scored) -> float | None:
    """How often one annotator agrees with the majority of the others on the same pair; ties get half the credit.

    Leave-one-out over the votes of every pair with at least two, from the counts alone; pairs where the others
    are even have no majority. None where there is no such pair.
    """
    wins = np.round((scored.win_prob - scored.tie_prob / 2) * scored.votes)
    ties = np.round(scored.tie_prob * scored.votes)
    losses = scored.votes - wins - ties
    lead = wins - losses
    agreed = decided = 0.0
    for count, vote in ((wins, 1), (ties, 0), (losses, -1)):
        others = lead - vote
        usable = (scored.votes >= 2) & (count > 0) & (others != 0)
        share = np.where(vote == 0, 0.5, np.sign(others) == vote)
        agreed += float((count * share)[usable].sum())
        decided += float(count[usable].sum())
    return agreed / decided if decided else None


def probability_metrics(scored: Scored, temperature: float) -> dict[str, float]:
    """Proper scores and calibration errors of σ(D / T) against the vote shares."""
    difference, win_prob = scored.difference, scored.win_prob
    calm = difference / temperature
    probability = expit(calm)
    return {
        "nll": _mean(nll(calm, win_prob)),
        "nll_uncalibrated": _mean(nll(difference, win_prob)),
        "nll/votes_entropy": _mean(entropy(win_prob)),
        "brier": _mean((probability - win_prob) ** 2),
        "ece": ece(probability, win_prob, bins=BINS),
        "ece/adaptive": ece(probability, win_prob, bins=BINS, adaptive=True),
        "ece_uncalibrated": ece(expit(difference), win_prob, bins=BINS),
    }


def entropy(win_prob: Floats) -> Floats:
    """Entropy of the vote shares in nats: the NLL nobody can beat."""
    p = np.clip(win_prob, 1e-12, 1 - 1e-12)
    return -(p * np.log(p) + (1 - p) * np.log1p(-p))


def reward_metrics(scored: Scored) -> dict[str, float]:
    """Mean and spread of the reward; `std_within` is what a policy sees."""
    if not len(scored.reward):
        return {}
    sizes = np.bincount(scored.group)
    means = np.bincount(scored.group, scored.reward) / np.maximum(sizes, 1)
    within = scored.reward - means[scored.group]
    freedom = max(1, len(scored.reward) - int((sizes > 0).sum()))
    difference = scored.difference
    return {
        "reward/mean": float(scored.reward.mean()),
        "reward/std": float(scored.reward.std()),
        "reward/std_within": float(np.sqrt((within**2).sum() / freedom)),
        "reward/tie_rate": _mean(difference == 0) if len(difference) else 0.0,
    }


def by_domain(scored: Scored) -> dict[str, float]:
    """`pair_accuracy/domain/<name>`, `n_pairs/domain/<name>` and `pair_accuracy/worst_domain`."""
    right, domain = credit(scored.difference, scored.win_prob), scored.pair_domain
    found: list[float] = []
    out: dict[str, float] = {}
    for code, name in enumerate(scored.domains):
        inside = (domain == code) & np.isfinite(right)
        if inside.any():
            found.append(_mean(right[inside]))
            out |= {f"pair_accuracy/domain/{name}": found[-1], f"n_pairs/domain/{name}": int(inside.sum())}
    return out | ({"pair_accuracy/worst_domain": min(found)} if len(found) > 1 else {})


def intervals(scored: Scored, temperature: float, samples: int, seed: int) -> dict[str, float]:
    """95% intervals by resampling prompts: accuracy, its lead over the length baseline, NLL, Brier, ECE."""
    right = credit(scored.difference, scored.win_prob)
    longer = credit(scored.length[scored.first] - scored.length[scored.second], scored.win_prob)
    calm = scored.difference / temperature
    losses = nll(calm, scored.win_prob)
    brier = (expit(calm) - scored.win_prob) ** 2
    decided = np.isfinite(right).astype(float)
    one = np.ones_like(decided)
    tops = np.column_stack([np.nan_to_num(right), np.nan_to_num(right - longer), losses, brier])
    bottoms = np.column_stack([decided, decided, one, one])
    cluster = scored.pair_prompt
    low, high = cluster_bootstrap(
        cluster_sums(tops, cluster), cluster_sums(bottoms, cluster), samples=samples, seed=seed
    )
    names = ("pair_accuracy", "pair_accuracy/minus_length", "nll", "brier")
    out = {"pair_accuracy/minus_length": _mean(right - longer)}
    for i, name in enumerate(names):
        out |= {f"{name}/ci_low": float(low[i]), f"{name}/ci_high": float(high[i])}
    return out | _ece_interval(expit(calm), scored, samples, seed)


def _ece_interval(probability: Floats, scored: Scored, samples: int, seed: int) -> dict[str, float]:
    """Interval of the calibration error: prompts are resampled, bins stay."""
    ahead = probability >= 0.5
    confidence = np.where(ahead, probability, 1 - probability)
    agreement = np.where(ahead, scored.win_prob, 1 - scored.win_prob)
    place = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    gaps = np.zeros((len(place), BINS))
    gaps[np.arange(len(place)), place] = agreement - confidence
    sums = cluster_sums(np.column_stack([gaps, np.ones(len(place))]), scored.pair_prompt)
    if len(sums) < 2:
        return {}
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums))) @ sums for _ in range(samples)]
    )
    errors = np.abs(drawn[:, :BINS]).sum(1) / np.maximum(drawn[:, BINS], 1)
    low, high = np.quantile(errors, [0.025, 0.975])
    return {"ece/ci_low": float(low), "ece/ci_high": float(high)}


def _mean(values: Floats | NDArray[np.bool_]) -> float:
    """Mean of what is defined; NaN for nothing."""
    defined = np.asarray(values, dtype=np.float64)
    defined = defined[np.isfinite(defined)]
    return float(defined.mean()) if len(defined) else math.nan
