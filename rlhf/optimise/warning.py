"""Is the reward being exploited? A warning from what can be seen without gold.

Two signs, looked at in windows of steps:
    second opinion   a reward model trained on other votes stops rising and falls below its best window, by more than
                     `errors` standard errors (Bai et al. 2022: train and test reward models drift apart)
    distance         completions lie further from the reference samples than `distance` times as far as these
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EarlyWarning:
    """When to stop.

    Args:
        window: steps that are averaged.
        errors: standard errors that the second opinion may lie below its best.
        distance: mean squared distance over that of the reference samples (about 1); null in YAML = do not look.
        stop: end the training at a warning; False only reports it.
    """

    window: int = 10
    errors: float = 3.0
    distance: float | None = 3.0
    stop: bool = True

    def __call__(self, trace: Sequence[Mapping[str, float]]) -> str | None:
        """Why to stop after the last of these steps, or None. Looks at `watch` and `distance` where they are there."""
        if len(trace) < 2 * self.window or len(trace) % self.window:
            return None
        if self.distance is not None and "distance" in trace[-1]:
            far = float(np.mean([row["distance"] for row in trace[-self.window :]]))
            if far > self.distance:
                return f"completions are {far:.1f} times as far out as the reference's"
        return self._second_opinion(trace) if "watch" in trace[-1] else None

    def _second_opinion(self, trace: Sequence[Mapping[str, float]]) -> str | None:
        values = np.array([row["watch"] for row in trace]).reshape(-1, self.window)
        means = values.mean(1)
        errors = values.std(1, ddof=1) / np.sqrt(self.window)
        best = int(means.argmax())
        fall = means[best] - means[-1]
        if fall > self.errors * float(np.hypot(errors[best], errors[-1])):
            return f"the second reward model fell by {fall:.2f} from its best window"
        return None
