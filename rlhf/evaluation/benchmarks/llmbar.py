"""LLMBar (Zeng et al. 2024): does the answer follow the instruction? One natural subset and four adversarial ones.

Files: `dataset.json` per subset, rows {input, output_1, output_2, label: 1 | 2}; the subset is the file's folder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlhf.evaluation.benchmarks.items import (
    BenchmarkItem,
    by_subset,
    credit,
    row_counts,
    subset_weights,
    weighted_means,
)

ADVERSARIAL = ("neighbor", "gptinst", "gptout", "manual")
SUBSETS = ("natural", *ADVERSARIAL)


def llmbar(items: Sequence[BenchmarkItem], *, bootstrap: int = 1000, seed: int = 0) -> dict[str, float]:
    """Accuracy of every subset; `llmbar/adversarial`, the mean of the four; `llmbar/score`, the mean of the five.

    The two means are given where all their subsets are there; `llmbar/n/<subset>` counts rows.

    Args:
        items: one chosen and one rejected answer each.
        bootstrap: resamples of prompts behind the intervals.
        seed: of the resampling.

    Raises:
        ValueError: a subset that the benchmark does not have, or not one answer on each side.
    """
    if any((len(item.chosen), len(item.rejected)) != (1, 1) for item in items):
        raise ValueError("llmbar compares one right with one wrong answer")
    places = by_subset(items, SUBSETS, "llmbar")
    lead = np.array([item.chosen[0] - item.rejected[0] for item in items])
    groups = {name: (name,) for name in places} | {"adversarial": ADVERSARIAL, "score": SUBSETS}
    weights = {
        f"llmbar/{name}": subset_weights(places, dict.fromkeys(group, 1.0), len(items))
        for name, group in groups.items()
        if set(group) <= set(places)
    }
    found = weighted_means(
        {"": credit(lead), "/strict": (lead > 0).astype(float)},
        weights,
        [item.prompt for item in items],
        bootstrap=bootstrap,
        seed=seed,
    )
    counts = row_counts(places, SUBSETS, "llmbar")
    return found | counts | {"llmbar/tie_rate": float((lead == 0).mean()), "llmbar/n": len(items)}
