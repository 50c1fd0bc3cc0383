"""What the calibration section says about its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rlhf.evaluation.report.section import cell

ROWS = (
    ("NLL in nats", "nll", "nll_uncalibrated"), ("Brier", "brier", "brier_uncalibrated"),
    ("ECE, 15 equal bins", "ece", "ece_uncalibrated"),
    ("by chance at this n", "ece/by_chance", "ece_uncalibrated/by_chance"),
    ("ECE, equal counts", "ece/adaptive", "ece/adaptive_uncalibrated"),
    ("by chance at this n, equal counts", "ece/adaptive/by_chance", "ece/adaptive_uncalibrated/by_chance"),
)  # fmt: skip
"""Name, key after the temperature, key before."""


def verdict(m: Mapping[str, float]) -> str:
    """Is the calibration error larger than chance, in bins of equal width and in bins of equal counts?"""
    kinds = {"bins of equal width": "ece", "bins of equal counts": "ece/adaptive"}
    if any(f"{key}/ci_low" not in m or f"{key}/by_chance" not in m for key in kinds.values()):
        return ""
    said = " and ".join(
        f"{cell(m, key)} in {kind} (chance {m[f'{key}/by_chance']:.3f})" for kind, key in kinds.items()
    )
    larger = [kind for kind, key in kinds.items() if m[f"{key}/ci_low"] > 0]
    verdict = (
        "Neither is larger than chance explains: this set does not show that it is badly calibrated." if not larger
        else "Both are larger than chance explains." if len(larger) == len(kinds)
        else f"In {larger[0]} it is larger than chance explains, which makes bad calibration likely but not sure."
    )  # fmt: skip
    return (
        f"The calibration error is {said}, chance being what a perfectly calibrated model would show on as many pairs. "
        f"{verdict}"
    )


def what_temperature_did(m: Mapping[str, float]) -> str:
    """Did dividing by the temperature help on this set, and what did it make worse?"""
    low, high = (m.get(f"nll/minus_uncalibrated/{end}", math.nan) for end in ("ci_low", "ci_high"))
    interval = f" [{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else ""
    sure = (
        "no interval, so nothing is sure" if not interval
        else "it surely helped" if high < 0
        else "it surely hurt" if low > 0
        else "not told apart from no effect"
    )  # fmt: skip
    worse = [
        f"{name} from {m[before]:.3f} to {m[key]:.3f}"
        for name, key, before in ROWS
        if not key.endswith("by_chance") and m[key] > m[before] + 5e-4
    ]
    return (
        f"What the temperature did to the NLL here, after less before on the same pairs: "
        f"{m['nll/minus_uncalibrated']:+.3f}{interval} nats, {sure}."
        + (f" The temperature made worse on this set: {'; '.join(worse)}." if worse else "")
    )
