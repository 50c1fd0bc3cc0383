"""Prompts that do not fit beside a completion lose their beginning before a policy reads them: counted, and said."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from rlhf.collect.prompts import Task
from rlhf.optimise.policy.rollout import Speaker


def count_trimmed(
    speaker: Speaker, groups: Mapping[str, Sequence[Task]], *, key: str = "task.max_new_tokens"
) -> dict[str, float]:
    """How many prompts of every group the policy cannot read whole; warns where there are any.

    Args:
        speaker: the policy.
        groups: name -> prompts.
        key: of the length limit of a completion.

    Returns:
        `prompts/<name>/count` and `prompts/<name>/trimmed`.
    """
    found = {name: speaker.trimmed(tasks) for name, tasks in groups.items()}
    if any(found.values()):
        said = ", ".join(f"{n} of {len(groups[name])} ({name})" for name, n in found.items())
        warnings.warn(
            f"prompts that lose their beginning before the policy reads them: {said}; whoever judges its answers may "
            f"see them whole (max_length is for prompt and completion: a larger max_length, or a smaller {key})",
            stacklevel=2,
        )  # fmt: skip
    counts: dict[str, float] = {}
    for name, n in found.items():
        counts |= {f"prompts/{name}/count": float(len(groups[name])), f"prompts/{name}/trimmed": float(n)}
    return counts
