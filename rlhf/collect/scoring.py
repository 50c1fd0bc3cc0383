"""A trained reward model as the function that picking completions needs."""

from __future__ import annotations

from collections.abc import Sequence

import rlhf
from rlhf.collect.pick import Reward
from rlhf.records import Prompt


def reward_of(folder: str) -> Reward:
    """Rewards by the run or exported model in `folder`, scaled by its normalisation to mean 0 and std 1."""
    scorer = rlhf.load(folder)

    def reward(prompt: Prompt, texts: Sequence[str]) -> list[float]:
        return [float(scorer.calibration.normalise(r)) for r in scorer.score(prompt, texts)]

    return reward
