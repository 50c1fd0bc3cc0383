"""95 % intervals of the numbers of `rlhf.evaluation.metrics.metrics`, prompts resampled: `<key>/ci_low` and
`<key>/ci_high`.

Every number is a function of sums over pairs or completions, so that all of them come from one set of resamples. NaN
(for one prompt alone, nothing is known about the spread) is left to `rlhf.evaluation.metrics.metrics.evaluate` to drop.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import entr, expit

from rlhf.evaluation.metrics.calibration import BINS, equal_count, equal_width, fold, nll
from rlhf.evaluation.metrics.pair_credit import credit, held_out_votes
from rlhf.evaluation.metrics.ranking import spearman_influence
from rlhf.evaluation.metrics.scored import Scored
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import (
    DIFFERENCE,
    SHARE,
    binned_sums,
    bounds,
    cluster_bootstrap,
    cluster_sums,
    ece_bounds,
    lowest_interval,
    ratio,
    resampled_sums,
    unanimous,
)  # fmt: skip

WITHIN = {
    **dict.fromkeys(("pair_accuracy", "pair_accuracy/longer_won", "pair_accuracy/shorter_won"), SHARE),
    **dict.fromkeys(("reward/tie_rate", "ceiling/annotators"), SHARE),
    "pair_accuracy/minus_length": DIFFERENCE,
}
"""Shares, and where they can lie: what `rlhf.stats.bootstrap.unanimous` needs."""
ANY = (-np.inf, np.inf)
NEVER_NEGATIVE = dict.fromkeys(
    ("nll", "nll_uncalibrated", "nll/votes_entropy", "brier", "brier_uncalibrated"), (0.0, np.inf)
)
MOST_SLICES = 200
"""With more domains the worst one has no interval: memory."""


def intervals(scored: Scored, temperature: float, samples: int, seed: int) -> dict[str, float]:
    """Of everything that is counted in pairs, and `ece/by_chance` of every calibration error.

    `.../by_chance` is the error that a calibrated model would show on as many pairs. Bins of equal count stay those
    of the set itself. `baseline/majority` is the better of two sides in every resample, as it is in the set.
    """
    ratios = _ratios(scored, temperature)
    keys, first_wins = list(ratios), (scored.win_prob > 0.5).astype(float)
    weights = {key: np.where(np.isfinite(value), weight, 0.0) for key, (value, weight) in ratios.items()}
    tops = [np.where(weights[key] > 0, value, 0.0) for key, (value, _) in ratios.items()]
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
        low[i] = max(low[i], WITHIN.get(key, NEVER_NEGATIVE.get(key, ANY))[0])
        if key in WITHIN:
            value = float(ratio(full[i], full[count + i]))
            high[i] = min(high[i], WITHIN[key][1])
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


def _ratios(scored: Scored, temperature: float) -> dict[str, tuple[Floats, Floats]]:
    """Numerator [P] and weight [P] of everything that is a mean over some of the pairs; NaN does not count."""
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


def _gaps(scored: Scored, temperature: float) -> Mapping[str, tuple[Floats, Ints]]:
    """Agreement less confidence [P] and bin [P] of every calibration error."""
    found: dict[str, tuple[Floats, Ints]] = {}
    for t, end in ((temperature, ""), (1.0, "_uncalibrated")):
        confidence, agreement = fold(expit(scored.difference / t), scored.win_prob)
        found[f"ece{end}"] = agreement - confidence, equal_width(confidence)
        found[f"ece/adaptive{end}"] = agreement - confidence, equal_count(confidence)
    return found


def worst_domain(scored: Scored, samples: int, seed: int) -> dict[str, float]:
    """Of `pair_accuracy/worst_domain`; see `rlhf.stats.bootstrap.lowest_interval`."""
    right, domain = credit(scored.difference, scored.win_prob), scored.domain[scored.pair_group]
    low, high = worst_slice([(right, domain)], scored.pair_prompt, samples=samples, seed=seed)
    return _ends("pair_accuracy/worst_domain", low, high)


def worst_slice(
    kinds: list[tuple[Floats, Ints]], cluster: Ints, *, samples: int, seed: int
) -> tuple[float, float]:
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
        sums = [
            binned_sums(values, place, len(codes) + 1, cluster)[:, :-1]
            for values in (np.nan_to_num(right), np.ones(len(right)))
        ]
        tops.append(sums[0])
        bottoms.append(sums[1])
    together = np.hstack([*tops, *bottoms])
    slices = together.shape[1] // 2
    if samples < 1 or slices < 2 or ((together[:, slices:] > 0).sum(0) < 2).any():
        return np.nan, np.nan
    drawn = np.vstack([together.sum(0), resampled_sums(together, samples=samples, seed=seed)])
    fewest = int((together[:, slices:] > 0).sum(0).min())
    low, high = lowest_interval(drawn[:, :slices], drawn[:, slices:], fewest)
    lowest = float(ratio(drawn[:1, :slices], drawn[:1, slices:]).min())
    ends = unanimous(lowest, low, high, fewest)
    return float(ends[0]), float(ends[1])


def reward_intervals(scored: Scored, samples: int, seed: int) -> dict[str, float]:
    """Of the mean and the spread of the reward over completions, and of its pooled rank correlation with length.

    The latter from its influence function: exact to first order, as the resamples of a rank correlation are.
    """
    if not len(scored.reward) or samples < 1:
        return {}
    prompt = scored.prompt[scored.group]
    sizes = np.bincount(scored.group, minlength=len(scored.prompt))
    reward = scored.reward - scored.reward.mean()
    means = np.bincount(scored.group, reward, len(scored.prompt)) / np.maximum(sizes, 1)
    freedom = (1 - 1 / sizes)[scored.group]
    columns = [reward, reward**2, (reward - means[scored.group]) ** 2, freedom, np.ones(len(reward))]
    sums = cluster_sums(columns, prompt)
    if len(sums) < 2:
        return {}
    s1, s2, within, free, count = resampled_sums(sums, samples=samples, seed=seed).T
    spread = np.sqrt(np.maximum(s2 / count - (s1 / count) ** 2, 0))
    out = _ends("reward/mean", *(bounds(s1 / count, len(sums)) + scored.reward.mean()))
    for key, several in {"reward/std": spread, "reward/std_within": np.sqrt(ratio(within, free))}.items():
        out |= _ends(key, *np.maximum(bounds(several, len(sums)), 0.0))
    rho, influence = spearman_influence(scored.reward, scored.length)
    sums = cluster_sums([rho + influence, np.ones(len(influence))], prompt)
    low, high = cluster_bootstrap(sums[:, :1], sums[:, 1:], samples=samples, seed=seed)
    return out | _ends("length/spearman_pooled", *np.clip([low[0], high[0]], -1.0, 1.0))


def _ends(key: str, low: float, high: float) -> dict[str, float]:
    return {f"{key}/ci_low": float(low), f"{key}/ci_high": float(high)}
