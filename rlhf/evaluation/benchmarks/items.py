"""What a benchmark reads: per prompt, the rewards of right and of wrong answers; and how credits are averaged."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.records import Comparison, RecordError
from rlhf.stats.arrays import Bools, Floats
from rlhf.stats.bootstrap import SHARE, cluster_bootstrap, cluster_sums


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One row of a benchmark, scored.

    id        the row's own id, "" where it has none
    subset    which part of the benchmark it belongs to
    prompt    key of the prompt: what intervals resample
    chosen    [C] rewards of the right answers, in the order of the file
    rejected  [R] rewards of the wrong ones
    """

    id: str
    subset: str
    prompt: str
    chosen: Floats
    rejected: Floats


Columns = Mapping[str, Floats]
"""Name -> [I] numbers of the items."""
Benchmark = Callable[..., dict[str, float]]
"""`(items, *, bootstrap=1000, seed=0) -> metrics`: flat, `<benchmark>/<part>`, in 0..1, with intervals that resample
the prompts so often. Raises ValueError for items of another form."""


def items(scored: Iterable[tuple[Comparison, Floats]]) -> Iterator[BenchmarkItem]:
    """Items of records with the rewards [K] of their completions.

    The right answers are those that the record's one vote puts first, as the importers of benchmarks store it.

    Raises:
        RecordError: a record without a subset (its domain), or whose votes are not one that tells right from wrong.
    """
    for record, reward in scored:
        right = _right(record)
        if record.domain is None:
            raise RecordError("a row without a subset belongs to no part", key="subset", place=record.prompt_id)
        yield BenchmarkItem(
            id=str(record.meta.get("row_id", "")),
            subset=record.domain,
            prompt=record.prompt_id,
            chosen=np.asarray(reward)[right],
            rejected=np.asarray(reward)[~right],
        )


def _right(record: Comparison) -> Bools:
    best: set[str | None] = set()
    if len(record.votes) == 1:
        (vote,) = record.votes
        best = set(vote.ranking[0]) if vote.ranking else {vote.choice}
    right = np.array([c.id in best for c in record.completions], dtype=np.bool_)
    if not right.any() or right.all():
        remedy = "benchmark records hold one vote, as data=rewardbench, rm_bench or llmbar_pairs read them"
        raise RecordError("no single vote tells right from wrong", key="votes", place=record.prompt_id, remedy=remedy)
    return right


def credit(lead: Floats) -> Floats:
    """1 for a lead above 0, half for none, 0 below."""
    return np.asarray(np.sign(lead) / 2 + 0.5)


def credits_of(lead: Floats) -> dict[str, Floats]:
    """Credit of every lead under the suffix "", and under "/strict" the same with nothing for ties."""
    return {"": credit(lead), "/strict": (lead > 0).astype(float)}


def leads(items: Sequence[BenchmarkItem], otherwise: str) -> Floats:
    """Reward of the right answer less that of the wrong one [I]. Raises ValueError `otherwise` for other numbers."""
    if any((len(item.chosen), len(item.rejected)) != (1, 1) for item in items):
        raise ValueError(otherwise)
    return np.array([item.chosen[0] - item.rejected[0] for item in items])


def share_of_best(item: BenchmarkItem) -> float:
    """Probability that the pick of the highest reward is right, equal ones being picked alike (RewardBench 2)."""
    best = max(item.chosen.max(), item.rejected.max())
    right, wrong = int((item.chosen == best).sum()), int((item.rejected == best).sum())
    return right / (right + wrong)


def by_subset(items: Sequence[BenchmarkItem], known: Iterable[str], benchmark: str) -> dict[str, list[int]]:
    """Places of the items of every known subset, lower case, in the order of `known`; empty ones left out.

    Raises:
        ValueError: no items, or a subset that the benchmark does not have.
    """
    places: dict[str, list[int]] = {name: [] for name in known}
    unknown = sorted({item.subset for item in items if item.subset.lower() not in places})
    if not items or unknown:
        found = f"has no subset {', '.join(unknown)}" if unknown else "got no rows"
        raise ValueError(f"{benchmark} {found}; its subsets are {', '.join(places)}")
    for i, item in enumerate(items):
        places[item.subset.lower()].append(i)
    return {name: rows for name, rows in places.items() if rows}


def row_counts(places: Mapping[str, list[int]], known: Iterable[str], benchmark: str) -> dict[str, float]:
    """`<benchmark>/n/<subset>`: rows of every known subset, 0 for one that is missing."""
    return {f"{benchmark}/n/{name.replace(' ', '_')}": len(places.get(name, [])) for name in known}


def subset_weights(places: Mapping[str, list[int]], weight: Mapping[str, float], count: int) -> Floats:
    """Weight [I] of every item so that the weighted mean of items is the weighted mean of subset means.

    Args:
        places: subset -> its items.
        weight: subset -> its weight; subsets left out count nothing.
        count: I, the number of items.
    """
    out = np.zeros(count)
    for name, rows in places.items():
        out[rows] = weight.get(name, 0.0) / len(rows)
    return out


def weighted_means(
    items: Sequence[BenchmarkItem], credits: Columns, weights: Columns, *, bootstrap: int, seed: int
) -> dict[str, float]:
    """Weighted means of credits, under every name, with intervals that resample prompts.

    Args:
        items: I rows, of which the prompts are the clusters.
        credits: suffix -> [I] credit of every item ("" and "/strict").
        weights: name -> [I] weights, not negative, not all 0.
        bootstrap, seed: resamples.

    Returns:
        `<name><suffix>`, and `<name>/ci_low`, `/ci_high` for the suffix "".
    """
    columns = np.stack(list(weights.values()), axis=1)
    out: dict[str, float] = {}
    for suffix, earned in credits.items():
        mean = earned @ columns / columns.sum(0)
        out |= {f"{name}{suffix}": float(m) for name, m in zip(weights, mean, strict=True)}
    codes = np.unique(np.asarray([item.prompt for item in items]), return_inverse=True)[1]
    tops, bottoms = cluster_sums(credits[""][:, None] * columns, codes), cluster_sums(columns, codes)
    low, high = cluster_bootstrap(tops, bottoms, samples=bootstrap, seed=seed, within=SHARE)
    for i, name in enumerate(weights):
        if np.isfinite(low[i]):
            out |= {f"{name}/ci_low": float(low[i]), f"{name}/ci_high": float(high[i])}
    return out
