"""Accuracy by slice of a set, with intervals, and which slices differ from the rest by more than chance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from rlhf.evaluation.metrics.pair_credit import EVEN
from rlhf.evaluation.metrics.scored import Results, Scored
from rlhf.stats.arrays import Bools, Floats, Ints
from rlhf.stats.bootstrap import SHARE, Estimate, cluster_bootstrap, cluster_sums

SHOWN = 30
"""Slices of one kind, the largest first."""
SIMILAR = 0.1
"""Lengths within this share of the longer one are similar."""
VOTES = ((0.5, 0.6), (0.6, 0.8), (0.8, 1.0), (1.0, 1.0))
"""Classes of the majority's share of the votes, open below and closed above; the last is unanimity."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice: what people read, its name in keys, its pairs and prompts, accuracy with interval, the rest beside it.

    p is two-sided, from a normal approximation with standard errors clustered by prompt; NaN where fewer than
    10 prompts lie in the slice or outside it, where that approximation is not to be trusted.
    """

    label: str
    name: str
    pairs: int
    prompts: int
    accuracy: Estimate
    p: float


def slice_accuracy(
    right: Floats, code: Ints, names: Mapping[str, str], cluster: Ints, *, samples: int, seed: int
) -> list[Slice]:
    """Accuracy of every slice that has a pair with a right answer, in the order of their codes.

    Args:
        right: [P] credit of every pair, NaN = no right answer.
        code: [P] slice of every pair; -1 = none.
        names: what people read for the codes -> what stands in keys; the `SHOWN` largest are kept.
        cluster: [P] prompt of every pair; prompts without a pair in any slice are drawn too, as everywhere.
        samples, seed: of the bootstrap.
    """
    used = np.isfinite(right) & (code >= 0)
    count = np.bincount(code[used], minlength=len(names))
    kept = sorted(np.argsort(-count, kind="stable")[:SHOWN].tolist())
    kept = [c for c in kept if count[c]]
    if not kept:
        return []
    inside = used[:, None] & (code[:, None] == np.array(kept))
    tops = cluster_sums(inside * np.where(used, right, 0.0)[:, None], cluster)
    bottoms = cluster_sums(inside * 1.0, cluster)
    low, high = cluster_bootstrap(tops, bottoms, samples=samples, seed=seed, within=SHARE)
    accuracies = [Estimate(*map(float, row)) for row in zip(tops.sum(0) / bottoms.sum(0), low, high, strict=True)]
    prompts = (bottoms > 0).sum(0)
    p = difference_from_rest(right[used], inside[used], cluster[used])
    label, name = list(names), list(names.values())
    return [
        Slice(label[c], name[c], int(count[c]), int(prompts[i]), accuracies[i], float(p[i])) for i, c in enumerate(kept)
    ]


def difference_from_rest(right: Floats, inside: Bools, cluster: Ints, least: int = 10) -> Floats:
    """Two-sided p [S] of "the slice [P, S] is as accurate as the rest", by linearisation with clustered errors."""
    outside = ~inside
    n, m = inside.sum(0), outside.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = right @ inside / n, right @ outside / m
        influence = np.where(inside, (right[:, None] - a) / n, -(right[:, None] - b) / m)
        sums = cluster_sums(influence, cluster)
        error = np.sqrt((sums**2).sum(0) * len(sums) / max(1, len(sums) - 1))
        p = 2 * ndtr(-np.abs(a - b) / error)
    prompts = [(cluster_sums(side * 1.0, cluster) > 0).sum(0) for side in (inside, outside)]
    return np.where(np.minimum(*prompts) < least, np.nan, p)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm (1979); NaN is no test, and stays."""
    values = np.asarray(p, dtype=np.float64)
    tested = np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    steps = np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1))
    out = np.full(len(values), np.nan)
    out[order] = np.minimum(steps, 1.0)
    return out.tolist()


def slice_kinds(results: Results, temperature: float) -> Iterator[tuple[str, Ints, list[str]]]:
    """Every kind of slice, its code [P] of every pair (-1 = none), and the labels of the codes."""
    scored = results.scored
    yield "domain", scored.domain[scored.pair_group], list(scored.domains)
    yield ("source pair", *source_pairs(scored, results.source, results.sources))
    yield ("length", *length_classes(scored))
    yield ("votes", *vote_classes(scored))
    yield ("margin", *margin_classes(scored.difference / temperature))
    yield ("better answer", *better_length(scored))


def vote_classes(scored: Scored) -> tuple[Ints, list[str]]:
    """Code [P] of the majority's share of the votes, and the names of the classes."""
    share = np.maximum(scored.win_prob, 1 - scored.win_prob)
    code = np.full(len(share), -1)
    for i, (low, high) in enumerate(VOTES):
        code[(share > low + EVEN) & (share <= high + EVEN)] = i
    code[share >= 1 - EVEN] = len(VOTES) - 1
    names = [f"{low:.0%} to {high:.0%}" if low < high else "all agree" for low, high in VOTES]
    return code, names


def margin_classes(difference: Floats, classes: int = 5) -> tuple[Ints, list[str]]:
    """Code [P] of the fifth that |D| falls into, and labels with the bounds, which are those of this set."""
    return _quantile_classes(np.abs(difference), classes, ".2f")


def length_classes(scored: Scored, classes: int = 4) -> tuple[Ints, list[str]]:
    """Code [P] of the quarter that the mean length of the two answers falls into, in characters, and labels."""
    return _quantile_classes((scored.length[scored.first] + scored.length[scored.second]) / 2, classes, ".0f")


def _quantile_classes(values: Floats, classes: int, digits: str) -> tuple[Ints, list[str]]:
    """Code [P] of the class of equal count that every value falls into, and labels with the bounds."""
    edges = np.quantile(values, np.linspace(0, 1, classes + 1)) if len(values) else np.zeros(classes + 1)
    code = np.searchsorted(edges[1:-1], values, side="right").astype(np.int64)
    return code, [f"{i + 1}. {edges[i]:{digits}} to {edges[i + 1]:{digits}}" for i in range(classes)]


def better_length(scored: Scored) -> tuple[Ints, list[str]]:
    """Code [P]: is the better answer shorter, of similar length (within `SIMILAR`), or longer; -1 = none is better."""
    lead = scored.longer * np.sign(scored.win_prob - 0.5)
    longest = np.maximum(np.maximum(scored.length[scored.first], scored.length[scored.second]), 1)
    code = np.where(np.abs(lead) <= SIMILAR * longest, 1, np.where(lead > 0, 2, 0))
    code[np.abs(scored.win_prob - 0.5) < EVEN] = -1
    return code.astype(np.int64), ["shorter", "similar", "longer"]


def source_pairs(scored: Scored, source: Ints, sources: Sequence[str]) -> tuple[Ints, list[str]]:
    """Code [P] of who wrote the two answers, order aside; -1 where one of them is not named."""
    a, b = source[scored.first], source[scored.second]
    low, high = np.minimum(a, b), np.maximum(a, b)
    keys = np.where(low < 0, -1, low * len(sources) + high)
    found, code = np.unique(keys, return_inverse=True)
    names = ["" if k < 0 else " vs ".join(sorted((sources[k // len(sources)], sources[k % len(sources)])))
             for k in found.tolist()]  # fmt: skip
    return np.where(keys < 0, -1, code).astype(np.int64), names
