"""What a pool, labels or an option must be before any selector sees them; what is not is named with its key."""

import math

import numpy as np

from rlhf.records import RecordError
from rlhf.stats.arrays import Floats

BLOCK = 65_536
"""Rows looked at together, so that memory stays flat in a large pool."""


def finite(key: str, values: Floats | None) -> None:
    """Every number of values [N] or [N, d].

    Raises:
        RecordError: a row with NaN or an infinity: the key, the first such row, and how many there are.
    """
    if values is None:
        return
    bad: list[int] = []
    for start in range(0, len(values), BLOCK):
        block = np.isfinite(values[start : start + BLOCK])
        bad += (start + np.flatnonzero(~block.reshape(len(block), -1).all(1))).tolist()
    if bad:
        raise RecordError(
            f"{len(bad)} of {len(values)} rows are not finite, first row {bad[0]}: {values[bad[0]]}", key=key,
            remedy="selectors compare numbers; mend or leave out these completions",
        )  # fmt: skip


def within(key: str, values: Floats, low: float, high: float = math.inf, *, unknown: bool = False) -> None:
    """Every number of values [m] lies in low..high; NaN only where it may be `unknown`.

    Raises:
        RecordError: the key, the range and the first row that does not.
    """
    values = np.asarray(values)
    fits = (values >= low) & (values <= high) & (np.isfinite(values))
    if unknown:
        fits |= np.isnan(values)
    if not fits.all():
        row = int(np.flatnonzero(~fits)[0])
        said = f"{low:g}..{high:g}" if math.isfinite(high) else f"{low:g} or more"
        raise RecordError(f"{values[row]} in row {row} must be {said}", key=key)


def option(key: str, value: float | None, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """An option of a selector lies in low..high, or above `low`; None is let through.

    Raises:
        RecordError: it does not.
    """
    if value is None:
        return
    if not math.isfinite(value) or value > high or value < low or (above and value == low):
        said = f"{'above' if above else 'at least'} {low:g}"
        said += f" and at most {high:g}" if math.isfinite(high) else ""
        raise RecordError(f"selector.{key}={value} must be {said}")
