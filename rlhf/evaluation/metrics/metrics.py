"""One scored set to one flat dictionary of numbers; the keys are a contract (README, section "Results").

Accuracies are exact means over the labelled pairs of the set, never means of batch means. A pair whose votes
are even has no right answer: it is left out of accuracies and counted. Equal rewards get half the credit.

Every number has a 95 % interval, prompts resampled: `<key>/ci_low` and `<key>/ci_high`. It is a function of sums over
pairs or completions, so that all intervals come from one set of resamples.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import entr, expit

from rlhf.evaluation.metrics.calibration import BINS, ece, equal_count, equal_width, fold, nll
from rlhf.evaluation.metrics.pair_credit import credit, held_out_votes
from rlhf.evaluation.metrics.ranking import correlation, length_metrics, rank_intervals, rank_metrics
from rlhf.evaluation.metrics.scored import Scored
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import (
    DIFFERENCE,
    SHARE,
    binned_sums,
    bounds,
    cluster_sums,
    ece_bounds,
    lowest_interval,
    ratio,
    resampled_sums,
    share,
    unanimous,
)

WITHIN = {
    **dict.fromkeys(("pair_accuracy", "pair_accuracy/longer_won", "pair_accuracy/shorter_won"), SHARE),
    **dict.fromkeys(("reward/tie_rate", "ceiling/annotators"), SHARE),
    "pair_accuracy/minus_length": DIFFERENCE,
}
"""Shares, and where they can lie: what `rlhf.stats.bootstrap.unanimous` needs."""
NEVER_NEGATIVE = ("nll", "nll_uncalibrated", "nll/votes_entropy", "brier", "brier_uncalibrated")
MOST_SLICES = 200
"""With more domains the worst one has no interval: memory."""


def evaluate(scored: Scored, *, temperature: float = 1.0, bootstrap: int = 1000, seed: int = 0) -> dict[str, float]:
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
        out |= pair_metrics(scored, temperature) | by_group(scored, domain)
        if bootstrap:
            out |= pair_intervals(scored, temperature, bootstrap, seed)
            right, slices = credit(scored.difference, scored.win_prob), scored.domain[scored.pair_group]
            ends = worst_slice([(right, slices)], scored.pair_prompt, samples=bootstrap, seed=seed)
            out |= _ends("pair_accuracy/worst_domain", *ends)
    return {k: v for k, v in out.items() if math.isfinite(v)}


def pair_terms(scored: Scored, temperature: float) -> dict[str, tuple[Floats, Floats]]:
    """Value [P] and weight [P] of everything that is a mean over some of the pairs; NaN does not count.

    `nll/votes_entropy` is the NLL that nobody can beat; a coin has log 2 = 0.693. `nll/minus_uncalibrated` is NLL at T
    less NLL at 1: above 0, the temperature has made it worse on this set.
    """
    raw, win_prob = scored.difference, scored.win_prob
    right, by_length = credit(raw, win_prob), credit(scored.longer, win_prob)
    one, won = np.ones(len(right)), np.sign(win_prob - 0.5) * np.sign(scored.longer)
    found = {
        "pair_accuracy": (right, one),
        "pair_accuracy/longer_won": (right, (won > 0).astype(float)),
        "pair_accuracy/shorter_won": (right, (won < 0).astype(float)),
        "pair_accuracy/minus_length": (right - by_length, one),
        "nll": (nll(raw / temperature, win_prob), one),
        "nll_uncalibrated": (nll(raw, win_prob), one),
        "nll/minus_uncalibrated": (nll(raw / temperature, win_prob) - nll(raw, win_prob), one),
        "nll/votes_entropy": (entr(win_prob) + entr(1 - win_prob), one),
        "brier": ((expit(raw / temperature) - win_prob) ** 2, one),
        "brier_uncalibrated": ((expit(raw) - win_prob) ** 2, one),
        "reward/tie_rate": ((raw == 0).astype(float), one),
    }
    ceiling = held_out_votes(scored)
    return found if ceiling is None else found | {"ceiling/annotators": ceiling}


def pair_metrics(scored: Scored, temperature: float) -> dict[str, float]:
    """Accuracy, its split by which side was longer, baselines; proper scores and calibration errors in nats and shares.

    `baseline/length`: the longer one wins. `baseline/majority`: the better of "always the first" and "always the
    second" in the stored order, chosen on this very set; near 1 where a file stores the winner on one side, and
    then it says nothing about the task. `ceiling/annotators`: how often a held-out annotator agrees with the majority
    of the others, see `rlhf.evaluation.metrics.pair_credit.held_out_votes`.
    """
    terms = pair_terms(scored, temperature)
    held_out = terms.pop("ceiling/annotators", None)
    found = {key: _mean(value[weight > 0]) for key, (value, weight) in terms.items()}
    decided = np.isfinite(terms["pair_accuracy"][0])
    first_wins = _mean((scored.win_prob > 0.5)[decided].astype(float))
    accuracies = {key: found[key] for key in found if key.startswith("pair_accuracy")}
    proper = {key: found[key] for key in found if key.startswith(("nll", "brier"))}
    won = {side: int((decided & (terms[f"pair_accuracy/{side}_won"][1] > 0)).sum()) for side in ("longer", "shorter")}
    known = held_out is not None and held_out[1].any()
    ceiling = {"ceiling/annotators": float(held_out[0].sum() / held_out[1].sum())} if held_out and known else {}
    probability, before = (expit(scored.difference / t) for t in (temperature, 1.0))
    return {
        **accuracies,
        "baseline/length": _mean(credit(scored.longer, scored.win_prob)),
        "baseline/majority": max(first_wins, 1 - first_wins),
        "n_gold_ties": int((~decided).sum()),
        **{f"n_{side}_won": count for side, count in won.items()},
        **ceiling,
        **proper,
        "ece": ece(probability, scored.win_prob),
        "ece/adaptive": ece(probability, scored.win_prob, adaptive=True),
        "ece_uncalibrated": ece(before, scored.win_prob),
        "ece/adaptive_uncalibrated": ece(before, scored.win_prob, adaptive=True),
    }


def pair_intervals(scored: Scored, temperature: float, samples: int, seed: int) -> dict[str, float]:
    """Of everything that is counted in pairs, and `ece/by_chance` of every calibration error.

    `.../by_chance` is the error that a calibrated model would show on as many pairs. Bins of equal count stay those
    of the set itself. `baseline/majority` is the better of two sides in every resample, as it is in the set.
    """
    terms = pair_terms(scored, temperature)
    keys, first_wins = list(terms), (scored.win_prob > 0.5).astype(float)
    weights = {key: np.where(np.isfinite(value), weight, 0.0) for key, (value, weight) in terms.items()}
    tops = [np.where(weights[key] > 0, value, 0.0) for key, (value, _) in terms.items()]
    cluster, decided = scored.pair_prompt, weights["pair_accuracy"]
    sums = [cluster_sums([*tops, *weights.values(), first_wins * decided, np.ones(len(decided))], cluster)]
    errors = _gaps(scored, temperature)
    sums += [binned_sums(gap, place, BINS, cluster) for gap, place in errors.values()]
    together = np.hstack(sums)
    if len(together) < 2 or samples < 1:
        return {}
    drawn = resampled_sums(together, samples=samples, seed=seed)
    count = len(keys)
    full, prompts = together.sum(0), (together[:, count : 2 * count] > 0).sum(0)
    low, high = bounds(ratio(drawn[:, :count], drawn[:, count : 2 * count]), prompts)
    out: dict[str, float] = {}
    for i, key in enumerate(keys):
        if key in NEVER_NEGATIVE:
            low[i] = max(low[i], 0.0)
        if key in WITHIN:
            value = float(ratio(full[i], full[count + i]))
            low[i], high[i] = max(low[i], WITHIN[key][0]), min(high[i], WITHIN[key][1])
            low[i], high[i] = unanimous(value, low[i], high[i], prompts[i], within=WITHIN[key])
        out |= _ends(key, low[i], high[i]) if prompts[i] >= 2 else {}
    decided_at = keys.index("pair_accuracy")
    if prompts[decided_at] >= 2:
        share = ratio(drawn[:, 2 * count], drawn[:, count + decided_at])
        side = full[2 * count] / full[count + decided_at]
        best = np.clip(bounds(np.maximum(share, 1 - share), prompts[decided_at]), *SHARE)
        both = unanimous(max(side, 1 - side), best[0], best[1], prompts[decided_at])
        out |= _ends("baseline/majority", float(both[0]), float(both[1]))
    total, start = 2 * count + 1, 2 * count + 2
    for i, key in enumerate(errors):
        bins = slice(start + i * BINS, start + (i + 1) * BINS)
        *ends, chance = ece_bounds(full[bins], drawn[:, bins], full[total], drawn[:, total], len(together))
        out |= _ends(key, *ends) | {f"{key}/by_chance": chance}
    return out


def _gaps(scored: Scored, temperature: float) -> Mapping[str, tuple[Floats, Ints]]:
    """Agreement less confidence [P] and bin [P] of every calibration error."""
    found: dict[str, tuple[Floats, Ints]] = {}
    for t, end in ((temperature, ""), (1.0, "_uncalibrated")):
        confidence, agreement = fold(expit(scored.difference / t), scored.win_prob)
        found[f"ece{end}"] = agreement - confidence, equal_width(confidence)
        found[f"ece/adaptive{end}"] = agreement - confidence, equal_count(confidence)
    return found


def reward_metrics(scored: Scored) -> dict[str, float]:
    """Mean and spread of the reward over completions; `std_within` groups is what a policy sees."""
    if not len(scored.reward):
        return {}
    sizes, within = _within_groups(scored, scored.reward)
    freedom = int(np.maximum(sizes - 1, 0).sum())
    return {
        "reward/mean": float(scored.reward.mean()),
        "reward/std": float(scored.reward.std()),
        "reward/std_within": math.sqrt(float((within**2).sum()) / freedom) if freedom else math.nan,
        "reward/tie_rate": _mean((scored.difference == 0).astype(float)),
    }


def reward_intervals(scored: Scored, samples: int, seed: int) -> dict[str, float]:
    """Of the mean and the spread of the reward over completions, and of its pooled rank correlation with length.

    The latter from its influence function: exact to first order, as the resamples of a rank correlation are.
    """
    if not len(scored.reward) or samples < 1:
        return {}
    prompt = scored.prompt[scored.group]
    reward = scored.reward - scored.reward.mean()
    sizes, deviation = _within_groups(scored, reward)
    freedom = (1 - 1 / sizes)[scored.group]
    sums = cluster_sums([reward, reward**2, deviation**2, freedom, np.ones(len(reward))], prompt)
    if len(sums) < 2:
        return {}
    s1, s2, within, free, count = resampled_sums(sums, samples=samples, seed=seed).T
    spread = np.sqrt(np.maximum(s2 / count - (s1 / count) ** 2, 0))
    out = _ends("reward/mean", *(bounds(s1 / count, len(sums)) + scored.reward.mean()))
    for key, several in {"reward/std": spread, "reward/std_within": np.sqrt(ratio(within, free))}.items():
        out |= _ends(key, *np.maximum(bounds(several, len(sums)), 0.0))
    pooled = correlation(scored.reward, scored.length, prompt, samples=samples, seed=seed)
    return out | _ends("length/spearman_pooled", pooled.low, pooled.high)


def _within_groups(scored: Scored, reward: Floats) -> tuple[Ints, Floats]:
    """Sizes [G] of the groups, and rewards [N] less the mean of their group."""
    sizes = np.bincount(scored.group, minlength=len(scored.prompt))
    means = np.bincount(scored.group, reward, len(scored.prompt)) / np.maximum(sizes, 1)
    return sizes, reward - means[scored.group]


def by_group(scored: Scored, labels: Sequence[str | None], *, name: str = "domain") -> dict[str, float]:
    """Accuracy of each slice of the set: `pair_accuracy/<name>/<label>`, its `n_pairs/<name>/<label>`, and the worst.

    Args:
        scored: the set.
        labels: [G] the slice each group belongs to; None = none.
        name: what the slices are.

    Returns:
        Only slices with a pair that has a right answer; `pair_accuracy/worst_<name>` where there are two of them.
    """
    codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    code = np.array([codes[label] for label in labels], dtype=np.int64)[scored.pair_group]
    right = credit(scored.difference, scored.win_prob)
    decided = np.isfinite(right)
    count = np.bincount(code[decided], minlength=len(codes))
    total = np.bincount(code[decided], right[decided], len(codes))
    out: dict[str, float] = {}
    worst = []
    for label, c in codes.items():
        if label is not None and count[c]:
            worst.append(float(total[c] / count[c]))
            out |= {f"pair_accuracy/{name}/{label}": worst[-1], f"n_pairs/{name}/{label}": int(count[c])}
    return out | ({f"pair_accuracy/worst_{name}": min(worst)} if len(worst) > 1 else {})


def worst_slice(kinds: list[tuple[Floats, Ints]], cluster: Ints, *, samples: int, seed: int) -> tuple[float, float]:
    """Interval of the lowest accuracy among all slices of all kinds.

    Args:
        kinds: credit [P] and slice [P] of every pair, by kind; NaN has no right answer, -1 belongs to no slice.
        cluster: [P] prompt of every pair.
        samples, seed: of the bootstrap.

    Returns:
        low and high; NaN for fewer than 2 slices, more than `MOST_SLICES`, or a slice with fewer than 2 prompts.
    """
    tops, bottoms = [], []
    for right, code in kinds:
        used = np.isfinite(right) & (code >= 0)
        codes = np.unique(code[used])
        if len(codes) > MOST_SLICES:
            return np.nan, np.nan
        place = np.where(used, np.searchsorted(codes, code), len(codes))
        tops.append(binned_sums(np.nan_to_num(right), place, len(codes) + 1, cluster)[:, :-1])
        bottoms.append(binned_sums(np.ones(len(right)), place, len(codes) + 1, cluster)[:, :-1])
    together = np.hstack([*tops, *bottoms])
    slices = together.shape[1] // 2
    if samples < 1 or slices < 2 or ((together[:, slices:] > 0).sum(0) < 2).any():
        return np.nan, np.nan
    drawn = np.vstack([together.sum(0), resampled_sums(together, samples=samples, seed=seed)])
    fewest = int((together[:, slices:] > 0).sum(0).min())
    lowest = float(ratio(drawn[:1, :slices], drawn[:1, slices:]).min())
    return share(lowest, *lowest_interval(drawn[:, :slices], drawn[:, slices:], fewest), fewest)[1:]


def _ends(key: str, low: float, high: float) -> dict[str, float]:
    return {f"{key}/ci_low": float(low), f"{key}/ci_high": float(high)}


def _mean(values: Floats) -> float:
    """Mean of what is defined; NaN for nothing."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
