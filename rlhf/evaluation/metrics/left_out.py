"""What out-of-fold scores show: means per fold and per group that was left out, and intervals over groups.

A group counts once, however many pairs it has: it is what the test asks for more of. The interval is Student's over
groups. In simulations of groups of 1 to 40 pairs with effects of their own it held the truth 94 to 96 times in 100 at
3, 5, 9 and 18 groups.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from scipy.special import expit

from rlhf.data.merge import MergedRecord
from rlhf.evaluation.metrics.calibration import ece, nll
from rlhf.evaluation.metrics.ood import clustered_auroc
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.ranking import spearman
from rlhf.evaluation.metrics.scored import Results
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import DIFFERENCE, SHARE, Estimate, ResampleOptions, cluster_mean, unanimous
from rlhf.stats.ranks import ranks_of
from rlhf.stats.t_interval import t_interval

WORDS, BEFORE = "bag of words", "uncalibrated"
"""Other rewards on the same completions: the baseline trained in every fold, and the model's before the temperature."""
TWICE = (-2.0, 2.0)
"""Where a difference of two correlations can lie."""
DIGITS = 9
"""Vote shares that agree in so many are equal."""
DIFFERING = ("pair_accuracy", "nll", "spearman")
"""Columns of groups.csv that settings are compared by."""


def pair_values(results: Results) -> dict[str, Floats]:
    """Values [P] of every pair whose means are reported; NaN where a pair has no right answer."""
    scored = results.scored
    first, second, win_prob = scored.first, scored.second, scored.win_prob
    right = credit(scored.difference, win_prob)
    found = {"pair_accuracy": right}
    for name, values in _baselines(results).items():
        found[f"baseline/{name}"] = credit(values[first] - values[second], win_prob)
        found[f"lead/{name}"] = right - found[f"baseline/{name}"]
    found["nll"] = nll(scored.difference, win_prob)
    if BEFORE in results.others:
        raw = results.others[BEFORE]
        found["nll_uncalibrated"] = nll(raw[first] - raw[second], win_prob)
    return found


def _baselines(results: Results) -> dict[str, Floats]:
    """What the model must beat: name in keys -> [N]."""
    words = results.others.get(WORDS)
    return {"length": results.scored.length} | ({} if words is None else {"bag_of_words": words})


def rows(results: Results, code: Ints, count: int) -> list[dict[str, float]]:
    """One row per part: pairs, prompts, means over its pairs, calibration errors, mean Spearman over its prompts.

    Args:
        results: the set; its rewards are log-odds.
        code: [G] part of every record.
        count: parts.
    """
    scored, values = results.scored, pair_values(results)
    rho, prompts = share_spearman(results), np.array(results.prompt_hash, dtype=object)
    found = []
    for inside, own in zip(_places(code[scored.pair_group], count), _places(code, count), strict=True):
        row: dict[str, float] = {"n_pairs": len(inside), "n_prompts": len(set(prompts[own]))}
        row |= {name: _mean(column[inside]) for name, column in values.items()}
        for key, reward in {"ece": scored.reward, "ece_uncalibrated": results.others.get(BEFORE)}.items():
            if reward is not None and len(inside):
                difference = (reward[scored.first] - reward[scored.second])[inside]
                row[key] = ece(expit(difference), scored.win_prob[inside])
        row["spearman"] = _mean(rho[own])
        found.append(row)
    return found


def share_spearman(results: Results) -> Floats:
    """Spearman [G] of the rewards and the mean vote share of the answers (Borda), over the judged answers of a record.

    Of merged records it is about the votes' ranking over all records of a prompt. NaN for fewer than 3 answers, and
    where no vote prefers any; 0 where all rewards are equal.
    """
    scored, size = results.scored, len(results.scored.reward)
    sides = np.concatenate([scored.first, scored.second])
    won = np.bincount(sides, np.concatenate([scored.win_prob, 1 - scored.win_prob]), size)
    judged = np.bincount(sides, minlength=size)
    found = np.full(len(scored.prompt), np.nan)
    for group, places in enumerate(_places(scored.group, len(found))):
        own = places[judged[places] > 0]
        share = np.round(won[own] / judged[own], DIGITS)
        if len(own) >= 3 and len(np.unique(share)) > 1:
            found[group] = np.nan_to_num(spearman(scored.reward[None, own], share[None]))[0]
    return found


def over_groups(values: Sequence[float] | Floats, within: tuple[float, float] | None = DIFFERENCE) -> Estimate:
    """Mean over groups with Student's interval; NaN is left out, and so are the ends of fewer than two groups.

    Args:
        values: one per group.
        within: where the mean can lie, for `rlhf.stats.bootstrap.unanimous`; None = anywhere.
    """
    found = np.asarray(values, dtype=np.float64)
    found = found[np.isfinite(found)]
    if len(found) < 2:
        return Estimate(_mean(found), np.nan, np.nan)
    low, high = (float(end) for end in t_interval(found))
    if within is not None:
        ends = unanimous(found.mean(), max(low, within[0]), min(high, within[1]), len(found), within=within)
        low, high = (float(end) for end in ends)
    return Estimate(float(found.mean()), low, high)


def gold_pairs(group: MergedRecord) -> list[tuple[int, int]]:
    """Places (better, worse) of the pairs that the data itself has an answer to: `meta.gold`, a completion's id.

    Where the data marks a cleaned subset, `meta.in_strict`, only its pairs; a gold tie is none.
    """
    found = []
    for record, places in group.parts:
        gold = record.places.get(str(record.meta.get("gold")))
        if gold is not None and record.meta.get("in_strict") in (None, True):
            found += [(places[gold], place) for i, place in enumerate(places) if i != gold]
    return found


def gold_metrics(
    results: Results, gold: Mapping[int, Sequence[tuple[int, int]]], unit: Ints, **resamples: Unpack[ResampleOptions]
) -> dict[str, float]:
    """Accuracy, AUC and cross-entropy (nats) on gold pairs, for the model and what it must beat; {} where none is.

    Every pair counts in both orders in the AUC, so that it does not depend on which side a file stores first. `auc` is
    over all pairs, whose scales are those of several models; `auc/mean` is the mean of every group's own.

    Args:
        results: the set; its rewards are log-odds.
        gold: number of a record -> places (better, worse).
        unit: [G] what intervals take as one.
        resamples: of their bootstrap.
    """
    scored = results.scored
    item = {
        (int(results.record[g]), int(place)): i
        for i, (g, place) in enumerate(zip(scored.group, results.place, strict=True))
    }
    pairs = [
        (item[number, a], item[number, b])
        for number, places in gold.items()
        for a, b in places
        if (number, a) in item and (number, b) in item
    ]
    if not pairs:
        return {}
    better, worse = np.array(pairs).T
    cluster = unit[scored.group[better]]
    found: dict[str, float] = {"gold/n_pairs": len(pairs)}
    baselines = {f"baseline/{name}/": values for name, values in _baselines(results).items()}
    raw = results.others.get(BEFORE)
    rewards = {"": scored.reward} | ({} if raw is None else {f"{BEFORE}/": raw}) | baselines
    one, right = np.ones(len(pairs)), dict[str, Floats]()
    apart = [own for own in _places(cluster, int(cluster.max()) + 1) if len(own)]
    for name, reward in rewards.items():
        lead = reward[better] - reward[worse]
        right[name] = credit(lead, one)
        found |= cluster_mean(right[name], cluster, **resamples, within=SHARE).keys(f"gold/{name}pair_accuracy")
        found |= clustered_auroc(-lead, lead, (cluster, cluster)).keys(f"gold/{name}auc")
        areas = [_area(lead[own]) for own in apart]
        found |= over_groups(areas, SHARE).keys(f"gold/{name}auc/mean")
        if reward is not scored.length:  # whose scale is no log-odds
            found |= cluster_mean(nll(lead, one), cluster, **resamples).keys(f"gold/{name}nll")
    for name in baselines:
        difference = right[""] - right[name]
        found |= over_groups([_mean(difference[own]) for own in apart]).keys(f"gold/lead/{name.split('/')[1]}")
    return {key: value for key, value in found.items() if np.isfinite(value)}


def _area(lead: Floats) -> float:
    """AUC of leads of the right answer, each in both orders."""
    both = ranks_of(np.concatenate([lead, -lead]))
    n = len(lead)
    return float((both[:n].sum() - n * (n + 1) / 2) / n**2)


def paired(one: Path, other: Path) -> dict[str, Estimate] | None:
    """Differences of two runs on the same folds, `other` less `one`, from their groups.csv; None for other folds."""
    first, second = (_read(path) for path in (one, other))
    if [(r["group"], r["fold"]) for r in first] != [(r["group"], r["fold"]) for r in second]:
        return None
    found = {}
    for key in DIFFERING:
        values = [[float(row.get(key) or "nan") for row in table] for table in (first, second)]
        difference = np.array(values[1]) - np.array(values[0])
        if np.isfinite(difference).any():
            found[key] = over_groups(difference, None if key == "nll" else TWICE if key == "spearman" else DIFFERENCE)
    return found


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return sorted(csv.DictReader(file), key=lambda row: row["group"])


def _places(code: Ints, count: int) -> list[Ints]:
    """Where every code stands, in order."""
    return np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code, minlength=count))[:-1])


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
