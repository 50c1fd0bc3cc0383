"""Is the reward being exploited? Early stopping by what can be seen without gold, before gold falls.

Signs look at windows of steps, and at what was seen on samples of the reference:
    above    a column exceeds a level: `kl`, a budget in nats
    grown    a column exceeds so many times its value on the reference's samples: `disagreement`, `distance`, `length`
    apart    the optimised reward model runs ahead of the second one, in standard deviations of the reference
    fallen   a column falls from its best window by more than so many standard errors: `watch`, the second reward
             model (Bai et al. 2022: train and test reward models drift apart)

Which of them stop in time: docs/methods/optimising.md, `experiment=early_stopping`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhf.records import RecordError

Row = Mapping[str, float]
Sign = Callable[[Sequence[Row], int, Row], str | None]
"""`(trace of whole windows, steps per window, means on samples of the reference) -> why to stop, or None`."""


@dataclass(frozen=True)
class StoppingRule:
    """When to stop.

    Args:
        signs: name -> sign; None = switched off.
        window: steps that are averaged.
        stop: end the training at a sign; False only reports it.
    """

    signs: Mapping[str, Sign | None] = field(default_factory=dict)
    window: int = 5
    stop: bool = True

    def __post_init__(self) -> None:
        if self.window < 2:
            raise RecordError(f"{self.window}: at least 2 steps are averaged", key="early_stopping.window")

    def __call__(self, trace: Sequence[Row], reference: Row) -> str | None:
        """Why to stop after the last of these steps, or None. Looks at the end of every window but the first."""
        if len(trace) < 2 * self.window or len(trace) % self.window:
            return None
        reasons = (sign(trace, self.window, reference) for sign in self.signs.values() if sign is not None)
        return next((reason for reason in reasons if reason is not None), None)

    def check(self, reference: Row) -> None:
        """Look once. Raises ValueError where a sign needs what is not measured."""
        self([reference] * 2 * self.window, reference)

    def first(self, trace: Sequence[Row], reference: Row) -> int | None:
        """The step after which it would have stopped a run with this trace, or None."""
        ends = range(2 * self.window, len(trace) + 1, self.window)
        return next((end for end in ends if self(trace[:end], reference) is not None), None)


def above(trace: Sequence[Row], window: int, reference: Row, *, column: str, level: float) -> str | None:
    """The mean of the last window is more than `level`."""
    now = _mean(trace, window, column)
    return f"{column} is {now:.2f}, more than {level:g}" if now > level else None


def grown(trace: Sequence[Row], window: int, reference: Row, *, column: str, times: float) -> str | None:
    """The mean of the last window is more than `times` what it was on samples of the reference."""
    if not reference[column] > 0:
        raise ValueError(
            f"early_stopping: {column} is {reference[column]:g} on samples of the reference, its growth tells nothing "
            "(a single reward model has no disagreement: head=ensemble, or early_stopping=distance)"
        )
    ratio = _mean(trace, window, column) / reference[column]
    return f"{column} is {ratio:.2f} times the reference's, more than {times:g}" if ratio > times else None


def apart(trace: Sequence[Row], window: int, reference: Row, *, level: float) -> str | None:
    """`reward` less `watch` in the last window is more than `level` above what it was on samples of the reference."""
    gap = _mean(trace, window, "reward") - _mean(trace, window, "watch")
    gap -= reference["reward"] - reference["watch"]
    return f"the second reward model is {gap:.2f} behind, more than {level:g}" if gap > level else None


def fallen(trace: Sequence[Row], window: int, reference: Row, *, column: str, errors: float) -> str | None:
    """The last window lies below the best by more than `errors` standard errors of the difference."""
    values = np.array([_seen(row, column) for row in trace]).reshape(-1, window)
    means, error = values.mean(1), values.std(1, ddof=1) / np.sqrt(window)
    best = int(means.argmax())
    fall = means[best] - means[-1]
    if fall > errors * float(np.hypot(error[best], error[-1])):
        return f"{column} fell by {fall:.2f} from its best window"
    return None


def _mean(trace: Sequence[Row], window: int, column: str) -> float:
    return float(np.mean([_seen(row, column) for row in trace[-window:]]))


def _seen(row: Row, column: str) -> float:
    if column not in row:
        raise ValueError(
            f"early_stopping looks at {column}, which is not measured: {', '.join(row)} (watch: task.watch=<run>)"
        )
    return row[column]
