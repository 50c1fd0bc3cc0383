"""One scored set to one flat dictionary of numbers; the keys are a contract (README, section "Results").

Accuracies are exact means over the labelled pairs of the set, never means of batch means. A pair whose votes
are even has no right answer: it is left out of accuracies and counted. Equal rewards get half the credit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import entr, expit

from rlhf.evaluation.metrics.calibration import adaptive_ece, ece, nll
from rlhf.evaluation.metrics.metric_intervals import intervals, reward_intervals, worst_domain
from rlhf.evaluation.metrics.pair_credit import credit, held_out_votes
from rlhf.evaluation.metrics.ranking import length_metrics, rank_intervals, rank_metrics
from rlhf.evaluation.metrics.scored import Scored
from rlhf.stats.arrays import Bools, Floats


def evaluate(
    scored: Scored, *, temperature: float = 1.0, bootstrap: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Every metric of a set.

    Args:
        scored: the set.
        temperature: of the calibrated probabilities σ(D / T); keys with `_uncalibrated` use T = 1.
        bootstrap: resamples of prompts behind every interval; 0 leaves intervals out.
        seed: of the resampling.

    Returns:
        Flat keys to finite numbers; a metric that the set does not define has no key.

    Raises:
        ValueError: a temperature that is not positive and finite.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be positive and finite")
    out: dict[str, float] = {
        "n_pairs": len(scored.first),
        "n_prompts": len(np.unique(scored.prompt)),
        "n_groups": len(scored.prompt),
        "temperature": temperature,
    }
    out |= reward_metrics(scored) | rank_metrics(scored) | length_metrics(scored)
    if bootstrap:
        out |= reward_intervals(scored, bootstrap, seed) | rank_intervals(scored, bootstrap, seed)
    if len(scored.first):
        domain = [None if code < 0 else scored.domains[code] for code in scored.domain]
        out |= pair_metrics(scored) | probability_metrics(scored, temperature) | by_group(scored, domain)
        if bootstrap:
            out |= intervals(scored, temperature, bootstrap, seed) | worst_domain(scored, bootstrap, seed)
    return {k: v for k, v in out.items() if math.isfinite(v)}


def pair_metrics(scored: Scored) -> dict[str, float]:
    """Accuracy over all labelled pairs, its split by which side was longer, and the baselines beside it.

    `baseline/length`: the longer one wins. `baseline/majority`: the better of "always the first" and "always the
    second" in the stored order, chosen on this very set; near 1 where a file stores the winner on one side, and
    then it says nothing about the task.
    """
    right, longer = credit(scored.difference, scored.win_prob), scored.longer
    by_length = credit(longer, scored.win_prob)
    decided = np.isfinite(right)
    won = np.where(decided, np.sign(scored.win_prob - 0.5) * np.sign(longer), 0)
    first_wins = _mean((scored.win_prob > 0.5)[decided])
    out = {
        "pair_accuracy": _mean(right),
        "pair_accuracy/longer_won": _mean(right[won > 0]),
        "pair_accuracy/shorter_won": _mean(right[won < 0]),
        "pair_accuracy/minus_length": _mean(right - by_length),
        "baseline/length": _mean(by_length),
        "baseline/majority": max(first_wins, 1 - first_wins),
        "n_gold_ties": int((~decided).sum()),
        "n_longer_won": int((won > 0).sum()),
        "n_shorter_won": int((won < 0).sum()),
    }
    ceiling = annotator_ceiling(scored)
    return out | ({} if ceiling is None else {"ceiling/annotators": ceiling})


def annotator_ceiling(scored: Scored) -> float | None:
    """How often a held-out annotator agrees with the majority of the others on a pair; "tie" gets half the credit.

    Returns:
        None where no pair says anything, see `rlhf.evaluation.metrics.pair_credit.held_out_votes`.
    """
    found = held_out_votes(scored)
    if found is None or not found[1].any():
        return None
    return float(found[0].sum() / found[1].sum())


def probability_metrics(scored: Scored, temperature: float) -> dict[str, float]:
    """Proper scores and calibration errors of σ(D / T) against the vote shares, in nats and shares.

    `nll/votes_entropy` is the NLL nobody can beat; a coin has log 2 = 0.693. `nll/minus_uncalibrated` is NLL at T less
    NLL at 1: above 0, the temperature has made it worse on this set.
    """
    raw, win_prob = scored.difference, scored.win_prob
    difference = raw / temperature
    probability, before = expit(difference), expit(raw)
    return {
        "nll": _mean(nll(difference, win_prob)),
        "nll_uncalibrated": _mean(nll(raw, win_prob)),
        "nll/minus_uncalibrated": _mean(nll(difference, win_prob) - nll(raw, win_prob)),
        "nll/votes_entropy": _mean(entr(win_prob) + entr(1 - win_prob)),
        "brier": _mean((probability - win_prob) ** 2),
        "brier_uncalibrated": _mean((before - win_prob) ** 2),
        "ece": ece(probability, win_prob),
        "ece/adaptive": adaptive_ece(probability, win_prob),
        "ece_uncalibrated": ece(before, win_prob),
        "ece/adaptive_uncalibrated": adaptive_ece(before, win_prob),
    }


def reward_metrics(scored: Scored) -> dict[str, float]:
    """Mean and spread of the reward over completions; `std_within` groups is what a policy sees."""
    if not len(scored.reward):
        return {}
    sizes = np.bincount(scored.group, minlength=len(scored.prompt))
    means = np.bincount(scored.group, scored.reward, len(scored.prompt)) / np.maximum(sizes, 1)
    within = scored.reward - means[scored.group]
    freedom = int(np.maximum(sizes - 1, 0).sum())
    return {
        "reward/mean": float(scored.reward.mean()),
        "reward/std": float(scored.reward.std()),
        "reward/std_within": math.sqrt(float((within**2).sum()) / freedom) if freedom else math.nan,
        "reward/tie_rate": _mean(scored.difference == 0),
    }


def by_group(scored: Scored, labels: Sequence[str | None], *, name: str = "domain") -> dict[str, float]:
    """Accuracy of each part of the set: `pair_accuracy/<name>/<label>`, its `n_pairs/<name>/<label>`, and the worst.

    Args:
        scored: the set.
        labels: [G] the part each group belongs to; None = none.
        name: what the parts are.

    Returns:
        Only parts with a pair that has a right answer; `pair_accuracy/worst_<name>` where there are two of them.
    """
    codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    code = np.array([codes[label] for label in labels], dtype=np.int64)[scored.pair_group]
    right = credit(scored.difference, scored.win_prob)
    decided = np.isfinite(right)
    count = np.bincount(code[decided], minlength=len(codes))
    total = np.bincount(code[decided], right[decided], len(codes))
    parts = {label: c for label, c in codes.items() if label is not None and count[c]}
    out: dict[str, float] = {}
    for label, c in parts.items():
        out[f"pair_accuracy/{name}/{label}"] = float(total[c] / count[c])
        out[f"n_pairs/{name}/{label}"] = int(count[c])
    worst = [float(total[c] / count[c]) for c in parts.values()]
    return out | ({f"pair_accuracy/worst_{name}": min(worst)} if len(worst) > 1 else {})


def _mean(values: Floats | Bools) -> float:
    """Mean of what is defined; NaN for nothing."""
    defined = np.asarray(values, dtype=np.float64)
    defined = defined[~np.isnan(defined)]
    return float(defined.mean()) if len(defined) else math.nan
