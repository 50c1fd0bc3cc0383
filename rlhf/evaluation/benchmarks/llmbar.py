"""LLMBar (Zeng et al. 2024): does the answer follow the instruction? One natural subset and four adversarial ones.

Files: `dataset.json` per subset, rows {input, output_1, output_2, label: 1 | 2}; the subset is the file's folder.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlhf.evaluation.benchmarks.items import (
    BenchmarkItem,
    by_subset,
    credits_of,
    leads,
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
    lead = leads(items, "llmbar compares one right with one wrong answer")
    places = by_subset(items, SUBSETS, "llmbar")
    groups = {name: (name,) for name in places} | {"adversarial": ADVERSARIAL, "score": SUBSETS}
    weights = {
        f"llmbar/{name}": subset_weights(places, dict.fromkeys(group, 1.0), len(items))
        for name, group in groups.items()
        if set(group) <= set(places)
    }
    found = weighted_means(items, credits_of(lead), weights, bootstrap=bootstrap, seed=seed)
    counts = row_counts(places, SUBSETS, "llmbar")
    return found | counts | {"llmbar/tie_rate": float((lead == 0).mean()), "llmbar/n": len(items)}
