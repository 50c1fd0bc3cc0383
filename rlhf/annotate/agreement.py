"""How far annotators agree: percent, Cohen's and Fleiss' kappa, Krippendorff's alpha, with intervals over prompts.

All but Cohen's kappa read a table of counts [U, V]: how many annotators gave unit u the value v. Units with fewer than
two values say nothing about agreement and are left out; any number of annotators and missing votes are fine.

What has no answer is NaN, never 0 or 1: no unit with two values, or a chance-corrected coefficient where every value
given is the same (0/0: there was no chance to disagree). Reports leave such keys out.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from rlhf.stats.arrays import Bools, Floats, Ints
from rlhf.stats.bootstrap import bounds, cluster_sums, resampled_sums

Level = Callable[[Floats, Floats], Floats]
"""Squared difference [..., V, V] of two values, from how often each occurs [..., V] and the values [V]."""


def nominal(totals: Floats, values: Floats) -> Floats:
    """Values are equal or not: δ² = 1 unless equal."""
    return np.broadcast_to(1 - np.eye(len(values)), (*totals.shape, len(values)))


def interval(totals: Floats, values: Floats) -> Floats:
    """Distances between values count: δ² = (v - w)²."""
    return np.broadcast_to((values[:, None] - values[None, :]) ** 2, (*totals.shape, len(values)))


def ordinal(totals: Floats, values: Floats) -> Floats:
    """The order of the values counts: δ² = (Σ_{g=v..w} n_g - (n_v + n_w) / 2)², as many steps as values lie between.

    `values` are in ascending order.
    """
    middle = np.cumsum(totals, -1) - totals / 2
    square: Floats = (middle[..., :, None] - middle[..., None, :]) ** 2
    return square


LEVELS: Mapping[str, Level] = {"nominal": nominal, "ordinal": ordinal, "interval": interval}


def percent_agreement(counts: ArrayLike) -> float:
    """Share of the pairs of annotators of a unit who gave it the same value, mean over units.

    (1/U) Σ_u Σ_v c_uv (c_uv - 1) / (m_u (m_u - 1)): Fleiss' observed agreement, for any number m_u of annotators.

    Args:
        counts: [U, V] annotators who gave unit u the value v.
    """
    table = np.asarray(counts, dtype=np.float64)
    kept = table[table.sum(1) > 1]
    return float(_agreeing(kept).mean()) if len(kept) else float("nan")


def cohen_kappa(a: ArrayLike, b: ArrayLike) -> float:
    """Cohen's kappa (1960) of two annotators: (p_o - p_e) / (1 - p_e), p_e = Σ_v p_a(v) p_b(v).

    Args:
        a, b: [U] the values each gave the same units, in the same order; any comparable type.

    Raises:
        ValueError: different lengths.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape or first.ndim != 1:
        shapes = f"shapes {first.shape} and {second.shape}"
        raise ValueError(f"{shapes}: two flat lists of the same units are needed")
    codes = np.unique(np.concatenate([first, second]), return_inverse=True)[1]
    return float(cohen_kappas(np.add.reduce(_cells(codes[: len(first)], codes[len(first) :]))))


def cohen_kappas(tables: ArrayLike) -> Floats:
    """Cohen's kappa [...] of tables [..., V, V]: how often the two said v and w of a unit; NaN where p_e = 1."""
    joint = np.asarray(tables, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        joint = joint / joint.sum((-2, -1), keepdims=True)
    chance = np.asarray((joint.sum(-1) * joint.sum(-2)).sum(-1))
    observed = np.asarray(np.trace(joint, axis1=-2, axis2=-1))
    return _ratio(observed - chance, 1 - chance)


def _cells(a: Ints, b: Ints) -> Floats:
    """[U, V, V] one-hot tables of what two annotators said of each unit."""
    size = int(max(a.max(initial=0), b.max(initial=0))) + 1
    cells: Floats = np.eye(size * size)[a * size + b].reshape(-1, size, size)
    return cells


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' kappa (1971): (P - P_e) / (1 - P_e), P the percent agreement, P_e = Σ_v p_v².

    It is defined for equally many annotators per unit: where numbers differ, the units with the most frequent number
    of annotators (of at least two) count, see `complete`.

    Args:
        counts: [U, V] annotators who gave unit u the value v.
    """
    table = np.asarray(counts, dtype=np.float64)
    kept = table[complete(table)]
    if not len(kept):
        return float("nan")
    return float(_fleiss(np.array(_agreeing(kept).sum()), np.array(float(len(kept))), kept.sum(0)))


def complete(counts: ArrayLike) -> Bools:
    """[U] which units have the most frequent number of annotators, of at least two: what Fleiss' kappa reads."""
    raters = np.asarray(counts).sum(1).astype(np.int64)
    several = raters[raters > 1]
    if not len(several):
        return np.zeros(len(raters), dtype=bool)
    return np.asarray(raters == np.bincount(several).argmax())


def krippendorff_alpha(
    counts: ArrayLike, *, level: str | Level = "nominal", values: Sequence[float] | None = None
) -> float:
    """Krippendorff's alpha: 1 - D_o / D_e, over the coincidences o_vw = Σ_u c_uv (c_uw - [v=w]) / (m_u - 1).

    D_o = Σ o_vw δ²_vw,  D_e = Σ n_v n_w δ²_vw / (n - 1),  n_v = Σ_w o_vw  (Krippendorff 2019, ch. 12).

    Args:
        counts: [U, V] annotators who gave unit u the value v; columns in ascending order of the values.
        level: nominal, ordinal or interval, or a function of your own.
        values: [V] the values behind the columns, for `interval`; 0, 1, 2, ... by default.

    Raises:
        ValueError: an unknown level.
    """
    table = np.asarray(counts, dtype=np.float64)
    size = table.shape[1]
    coincidences = _coincidences(table).sum(0).reshape(size, size)
    return float(_alpha(coincidences, _level(level), _values(values, size)))


def fleiss_interval(counts: ArrayLike, cluster: Ints, *, samples: int, seed: int) -> tuple[float, float]:
    """95% percentile interval of `fleiss_kappa`; clusters (prompts) [U] are resampled."""
    table = np.asarray(counts, dtype=np.float64)
    which = complete(table)
    kept = table[which]
    sums = cluster_sums(np.column_stack([_agreeing(kept), np.ones(len(kept)), kept]), cluster[which])
    return _quantiles(sums, lambda s: _fleiss(s[:, 0], s[:, 1], s[:, 2:]), samples, seed)


def percent_interval(counts: ArrayLike, cluster: Ints, *, samples: int, seed: int) -> tuple[float, float]:
    """95% percentile interval of `percent_agreement`; clusters (prompts) [U] are resampled."""
    table = np.asarray(counts, dtype=np.float64)
    which = table.sum(1) > 1
    sums = cluster_sums(np.column_stack([_agreeing(table[which]), np.ones(int(which.sum()))]), cluster[which])
    return _quantiles(sums, lambda s: s[:, 0] / s[:, 1], samples, seed)


def alpha_interval(
    counts: ArrayLike, cluster: Ints, *, level: str | Level = "nominal", values: Sequence[float] | None = None,
    samples: int, seed: int,
) -> tuple[float, float]:  # fmt: skip
    """95% percentile interval of `krippendorff_alpha`; clusters (prompts) [U] are resampled."""
    table = np.asarray(counts, dtype=np.float64)
    size, measure = table.shape[1], _level(level)
    numbers = _values(values, size)
    sums = cluster_sums(_coincidences(table), cluster)
    return _quantiles(sums, lambda s: _alpha(s.reshape(-1, size, size), measure, numbers), samples, seed)


def cohen_interval(a: Ints, b: Ints, cluster: Ints, *, samples: int, seed: int) -> tuple[float, float]:
    """95% percentile interval of `cohen_kappa` of two annotators' codes [U]; clusters (prompts) [U] are resampled."""
    cells = _cells(a, b)
    sums = cluster_sums(cells.reshape(len(cells), -1), cluster)
    return _quantiles(sums, lambda s: cohen_kappas(s.reshape(-1, *cells.shape[1:])), samples, seed)


def _agreeing(counts: Floats) -> Floats:
    """[U] share of the pairs of annotators who agree, for units with at least two."""
    raters = counts.sum(1)
    share: Floats = (counts * (counts - 1)).sum(1) / (raters * (raters - 1))
    return share


def _fleiss(agreeing: Floats, units: Floats, totals: Floats) -> Floats:
    """Kappa from sums: [...] agreement, [...] units, [..., V] values."""
    share = totals / totals.sum(-1, keepdims=True)
    chance = np.asarray((share**2).sum(-1))
    return _ratio(agreeing / units - chance, 1 - chance)


def _coincidences(counts: Floats) -> Floats:
    """Per unit [U, V * V]: c_v (c_w - [v=w]) / (m - 1); zero where fewer than two annotators voted."""
    raters = counts.sum(1)
    scaled = np.where(raters > 1, 1 / np.maximum(raters - 1, 1), 0)[:, None] * counts
    cells: Floats = scaled[:, :, None] * (counts[:, None, :] - np.eye(counts.shape[1]))
    return cells.reshape(len(counts), counts.shape[1] ** 2)


def _alpha(coincidences: Floats, level: Level, values: Floats) -> Floats:
    """Alpha [...] from coincidences [..., V, V]."""
    totals = coincidences.sum(-1)
    number = totals.sum(-1)
    square = level(totals, values)
    observed = (coincidences * square).sum((-2, -1))
    expected = (totals[..., :, None] * totals[..., None, :] * square).sum((-2, -1))
    return 1 - _ratio(observed * (number - 1), expected)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """The quotient, NaN where the bottom is 0 (up to rounding)."""
    fine = np.abs(bottom) > 1e-12
    return np.where(fine, top / np.where(fine, bottom, 1), np.nan)


def _quantiles(sums: Floats, statistic: Callable[[Floats], Floats], samples: int, seed: int) -> tuple[float, float]:
    if len(sums) < 2 or samples < 1:
        return float("nan"), float("nan")
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = statistic(resampled_sums(sums, samples=samples, seed=seed))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = bounds(drawn, len(sums))
    return float(low), min(1.0, float(high))


def _level(level: str | Level) -> Level:
    if callable(level):
        return level
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: one of {', '.join(LEVELS)}")
    return LEVELS[level]


def _values(values: Sequence[float] | None, size: int) -> Floats:
    numbers = np.arange(size, dtype=np.float64) if values is None else np.asarray(values, dtype=np.float64)
    if numbers.shape != (size,):
        raise ValueError(f"{len(numbers)} values for {size} columns of counts")
    return numbers
