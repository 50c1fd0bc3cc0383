"""Reward models from human preferences: the life of a preference, read top to bottom.

`rlhf.load(folder)` gives a trained reward model with `.score(prompt, completions)` and `.compare(prompt, a, b)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhf.reward.scoring.scorer import Scorer


def load(folder: str | Path, *, device: str = "cpu", batch_tokens: int = 8192) -> Scorer:
    """The reward model of a run folder or an exported folder; see `rlhf.reward.scoring.scorer.load`."""
    from rlhf.reward.scoring.scorer import load as load_scorer  # torch is imported only when it is needed

    return load_scorer(folder, device=device, batch_tokens=batch_tokens)
