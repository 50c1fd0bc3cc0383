"""The agreement and quality report of a set of votes: one flat JSON and four lists beside it.

<out>            flat numbers, intervals 95% with prompts resampled; keys without an answer are left out. Where another
                 report of the folder has the names below, the lists are <out without .json>.annotators.csv and so on
annotators.csv   one row per annotator, worst first: see `rlhf.annotate.quality.Quality`; flags and bonus
reannotate.csv   which units the next vote should go to, most valuable first
spot_check.csv   a random sample of every annotator's votes for somebody to look at
adjudicate.jsonl the records whose votes disagree, as tasks for an expert (`aggregation=adjudicated`)
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlhf.annotate.agreement import (
    LEVELS,
    alpha_interval,
    cohen_interval,
    cohen_kappas,
    complete,
    fleiss_interval,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
    percent_interval,
)
from rlhf.annotate.quality import bonus, displayed, quality, rows, shared
from rlhf.labels.aggregation import count
from rlhf.labels.vote_table import FIRST, SECOND, TIE, UNKNOWN, Ratings, VoteTable, VoteTableBuilder, table
from rlhf.records import Comparison
from rlhf.records.tables import write_csv
from rlhf.stats.arrays import Ints

SLICES = 50  # domains and criteria shown one by one, the largest first
COHEN_PAIRS = 20  # pairs of annotators with the most units in common whose kappa is shown
COHEN_UNITS = 20  # units that two annotators must share for a kappa
CALIBRATION = "calibration"  # `meta.session` of records that everybody votes on before the real work begins


@dataclass(frozen=True)
class ReportOptions:
    """How the report is made.

    Args:
        samples: bootstrap resamples behind every interval.
        seed: of resamples and of the spot check.
        per_vote: bonus per vote of perfect quality, in your currency; 0 leaves the bonus out.
        spot_checks: votes per annotator to look at.
        reannotate: units listed for another vote.
    """

    samples: int = 1000
    seed: int = 0
    per_vote: float = 0.0
    spot_checks: int = 3
    reannotate: int = 100


def report(box: VoteTableBuilder, options: ReportOptions) -> dict[str, float]:
    """All numbers of the report, flat."""
    everything, ratings = box.vote_table(), box.ratings()
    vote_table = everything.of(~everything.check)
    flat = _sizes(vote_table, everything) | agreement(vote_table, options)
    flat |= _cohen(vote_table, options)
    names = {"criterion": vote_table.criteria, "domain": vote_table.domains}
    codes = {"criterion": vote_table.criterion, "domain": vote_table.domain}
    for kind in names:
        for code, name in _largest(codes[kind][vote_table.unit], names[kind]):
            part = vote_table.of(codes[kind][vote_table.unit] == code)
            flat |= {f"{kind}/{name}/{key}": v for key, v in agreement(part, options).items()}
    flat |= _graded(vote_table, options) | _likert(ratings, options)
    session = vote_table.of(vote_table.session[vote_table.unit])
    flat |= {f"calibration/{key}": v for key, v in agreement(session, options).items()}
    return {key: float(value) for key, value in flat.items() if np.isfinite(value)}


def agreement(vote_table: VoteTable, options: ReportOptions) -> dict[str, float]:
    """Percent, Fleiss' kappa and the three alphas of the verdicts, each with its interval."""
    if not len(vote_table.unit):
        return {}
    voted, codes = np.unique(vote_table.unit, return_inverse=True)
    counts, cluster = table(codes, vote_table.verdict, len(voted), 3), vote_table.prompt[voted]
    found = {
        "percent": percent_agreement(counts),
        "kappa/fleiss": fleiss_kappa(counts),
        "kappa/fleiss/n_units": float(complete(counts).sum()),
    }
    drawn = {"samples": options.samples, "seed": options.seed}
    found |= _bounds("percent", percent_interval(counts, cluster, **drawn))
    found |= _bounds("kappa/fleiss", fleiss_interval(counts, cluster, **drawn))
    return found | _alphas("alpha", counts, cluster, LEVELS, None, options)


def _alphas(
    key: str, counts: Ints, cluster: Ints, levels: Iterable[str], values: list[float] | None, options: ReportOptions
) -> dict[str, float]:
    """Krippendorff's alpha of every level with its interval."""
    found: dict[str, float] = {}
    for level in levels:
        scale: dict[str, Any] = {"level": level, "values": values}
        found[f"{key}/{level}"] = krippendorff_alpha(counts, **scale)
        bounds = alpha_interval(counts, cluster, **scale, samples=options.samples, seed=options.seed)
        found |= _bounds(f"{key}/{level}", bounds)
    return found


def _bounds(key: str, interval: tuple[float, float]) -> dict[str, float]:
    return {f"{key}/ci_low": interval[0], f"{key}/ci_high": interval[1]}


def _sizes(vote_table: VoteTable, everything: VoteTable) -> dict[str, float]:
    counts = vote_table.counts
    voted = counts.sum(1)
    shown = displayed(vote_table)
    decided = shown[(shown == FIRST) | (shown == SECOND)]
    several = voted > 1
    return {
        "n_votes": float(round(vote_table.share.sum())),
        "n_verdicts": float(len(vote_table.unit)),
        "n_units": float((voted > 0).sum()),
        "n_prompts": float(len(np.unique(vote_table.prompt[voted > 0]))),
        "n_annotators": float(len(np.unique(vote_table.annotator))),
        "n_gold_checks": float(everything.check.sum()),
        "votes_per_unit": float(voted[voted > 0].mean()) if voted.any() else np.nan,
        "ties": float((vote_table.verdict == TIE).mean()) if len(vote_table.verdict) else np.nan,
        "unanimous": float((counts.max(1) == voted)[several].mean()) if several.any() else np.nan,
        "first_side": float((decided == FIRST).mean()) if len(decided) else np.nan,
    }


def _cohen(vote_table: VoteTable, options: ReportOptions) -> dict[str, float]:
    """Kappas of the pairs of annotators who share most units; gives the mean over all pairs that share enough."""
    pairs = shared(vote_table, COHEN_UNITS)
    kappas = cohen_kappas(pairs.tables)
    found: dict[str, float] = {}
    for pair in range(min(COHEN_PAIRS, len(kappas))):
        key = f"kappa/cohen/{vote_table.annotators[pairs.a[pair]]}/{vote_table.annotators[pairs.b[pair]]}"
        units, first, second = pairs.units(pair)
        bounds = cohen_interval(first, second, vote_table.prompt[units], samples=options.samples, seed=options.seed)
        found |= {key: float(kappas[pair])} | _bounds(key, bounds)
    known = kappas[np.isfinite(kappas)]
    return found | {"kappa/cohen/mean": float(known.mean()) if len(known) else np.nan}


def _graded(vote_table: VoteTable, options: ReportOptions) -> dict[str, float]:
    """Alphas of the signed strengths (-2 = the first is better by two steps), over ties and verdicts that state one."""
    stated = vote_table.of(np.isfinite(vote_table.strength))
    if not stated.strength.any():
        return {}
    values, columns = np.unique(stated.strength, return_inverse=True)
    units, rows = np.unique(stated.unit, return_inverse=True)
    counts, cluster = table(rows, columns, len(units), len(values)), stated.prompt[units]
    sizes = {"graded/n_verdicts": float(len(columns))}
    return sizes | _alphas("graded", counts, cluster, ("ordinal", "interval"), values.tolist(), options)


def _likert(ratings: Ratings, options: ReportOptions) -> dict[str, float]:
    """Alphas of the ratings themselves, per criterion."""
    found: dict[str, float] = {}
    for code, name in _largest(ratings.criterion[ratings.unit], ratings.criteria):
        own = ratings.criterion[ratings.unit] == code
        values, columns = np.unique(ratings.value[own], return_inverse=True)
        units, rows = np.unique(ratings.unit[own], return_inverse=True)
        counts, cluster = table(rows, columns, len(units), len(values)), ratings.prompt[units]
        found |= _alphas(f"likert/{name}/alpha", counts, cluster, ("ordinal", "interval"), values.tolist(), options)
    return found


def _largest(codes: Ints, names: tuple[str, ...]) -> list[tuple[int, str]]:
    """The most frequent codes with their names, where there is more than one."""
    number = np.bincount(codes[codes != UNKNOWN], minlength=len(names))
    order = [int(c) for c in np.argsort(-number, kind="stable") if number[c]]
    return [(c, names[c]) for c in order[:SLICES]] if len(order) > 1 or len(names) == 1 else []


def next_votes(vote_table: VoteTable, limit: int) -> list[dict[str, object]]:
    """Units in the order in which another vote would tell most: the expected drop in the variance of the share.

    The share is s = P(first) + P(tie) / 2. With votes n_k for first, tie and second, c = (1, 1/2, 0) and a flat
    Dirichlet prior, alpha_k = n_k + 1 of sum A and p_k = alpha_k / A, a further vote moves the expected share by a
    variance of (sum c_k^2 p_k - s^2) / (A + 1)^2 (law of total variance): large where few voted and they disagree,
    small where they agree, on a tie too.
    """
    counts = vote_table.counts
    votes = counts.sum(1)
    alpha = counts + 1.0
    total = alpha.sum(1)
    worth = np.array([1.0, 0.5, 0.0])
    spread = alpha @ worth**2 / total - (alpha @ worth / total) ** 2
    value = np.where(votes > 0, spread / (total + 1) ** 2, -1.0)
    found = []
    for unit in np.argsort(-value, kind="stable")[: min(limit, int((votes > 0).sum()))]:
        said = {"first_better": FIRST, "ties": TIE, "second_better": SECOND}
        numbers = {name: int(counts[unit, verdict]) for name, verdict in said.items()}
        found.append(_unit(vote_table, unit) | numbers | {"value": round(float(value[unit]), 6)})
    return found


def spot_check(vote_table: VoteTable, each: int, seed: int) -> list[dict[str, object]]:
    """`each` random verdicts of every annotator: unbiased, unlike looking where trouble is suspected."""
    order = np.random.default_rng(seed).permutation(len(vote_table.unit))
    chosen = pd.Series(vote_table.annotator[order], index=order).groupby(vote_table.annotator[order]).head(each)
    found = []
    for v, who in chosen.sort_index().sort_values(kind="stable").items():
        unit = _unit(vote_table, vote_table.unit[v])
        said = (unit["first"], "tie", unit["second"])[vote_table.verdict[v]]
        found.append({"annotator": vote_table.annotators[who], **unit, "said": said})
    return found


def _unit(vote_table: VoteTable, unit: int) -> dict[str, object]:
    """What names a unit in the lists."""
    prompt, first, second = vote_table.keys[unit]
    criterion = vote_table.criteria[vote_table.criterion[unit]]
    record = int(vote_table.record[unit])
    return {"record": record, "prompt_id": prompt, "first": first, "second": second, "criterion": criterion}


def annotator_rows(vote_table: VoteTable, options: ReportOptions) -> list[dict[str, object]]:
    """annotators.csv: quality, flags and bonus, flagged and least agreeing first."""
    table = quality(vote_table)
    found = rows(table)
    if options.per_vote > 0:
        for row, amount in zip(found, bonus(table, per_vote=options.per_vote).tolist(), strict=True):
            row["bonus"] = round(amount, 2)
    return sorted(found, key=lambda r: (r["flags"] == "", r["leave_one_out"] or 0.0))


def disputed(records: Iterable[Comparison], agreement: float) -> Iterator[Comparison]:
    """The records with a pair of at least two votes whose most frequent answer has a share below `agreement`."""
    for record in records:
        counts = count(record)
        most = np.maximum(np.maximum(counts.wins, counts.wins.T), counts.ties)
        if ((counts.votes > 1) & (most < agreement * counts.votes)).any():
            yield record


def beside(out: Path) -> Callable[[str], Path]:
    """Where the lists of a report go: plain names, or with the report's where another one of the folder has those."""
    own = out.with_name(f"{out.stem}.annotators.csv")
    taken = own.exists() or (not out.exists() and out.with_name("annotators.csv").exists())
    return lambda name: out.with_name(f"{out.stem}.{name}" if taken else name)


def write_report(
    out: Path, box: VoteTableBuilder, options: ReportOptions, place: Callable[[str], Path]
) -> dict[str, float]:
    """Write `out` and the CSV files, where `place` says; returns the numbers."""
    vote_table = box.vote_table()
    numbers = report(box, options)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(numbers, indent=2) + "\n")
    write_csv(place("annotators.csv"), annotator_rows(vote_table, options))
    write_csv(place("reannotate.csv"), next_votes(vote_table.of(~vote_table.check), options.reannotate))
    write_csv(place("spot_check.csv"), spot_check(vote_table, options.spot_checks, options.seed))
    return numbers


def printed(numbers: Mapping[str, float]) -> str:
    """The few lines that a person reads first."""
    lines = [
        f"{numbers.get('n_votes', 0):.0f} votes of {numbers.get('n_annotators', 0):.0f} annotators on "
        f"{numbers.get('n_units', 0):.0f} units of {numbers.get('n_prompts', 0):.0f} prompts"
    ]
    for key in ("percent", "kappa/fleiss", "kappa/cohen/mean", "alpha/nominal", "alpha/ordinal", "graded/ordinal"):
        if key in numbers:
            low, high = numbers.get(f"{key}/ci_low"), numbers.get(f"{key}/ci_high")
            interval = "" if low is None or high is None else f"  [{low:.3f}, {high:.3f}]"
            lines.append(f"  {key:<18} {numbers[key]:6.3f}{interval}")
    return "\n".join(lines)
