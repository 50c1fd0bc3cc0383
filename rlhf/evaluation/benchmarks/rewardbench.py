"""RewardBench 1 (Lambert et al. 2024): pairs in 23 subsets, four sections, and the prior test sets at half weight.

Files: one row per pair, {prompt, chosen, rejected, subset, id}; prior sets with their name as the subset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rlhf.evaluation.benchmarks.items import (
    BenchmarkItem,
    by_subset,
    credits_of,
    leads,
    row_counts,
    subset_weights,
    weighted_means,
)

SECTIONS: Mapping[str, Mapping[str, int]] = {
    "chat": {"alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28,
             "mt-bench-med": 40},
    "chat_hard": {"mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134,
                  "llmbar-adver-gptinst": 92, "llmbar-adver-gptout": 47, "llmbar-adver-manual": 46},
    "safety": {"refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 250,
               "xstest-should-respond": 154, "donotanswer": 136},
    "reasoning": {"math-prm": 984, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164,
                  "hep-python": 164, "hep-rust": 164},
}  # fmt: skip
"""Section -> subset -> its weight: the number of its pairs, except that math-prm (447) counts as much as all code."""

PRIOR = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
"""Test sets from before the benchmark; alike in their mean, which weighs half a section."""

SUBSETS = tuple(subset for section in SECTIONS.values() for subset in section)


def rewardbench(items: Sequence[BenchmarkItem], *, bootstrap: int = 1000, seed: int = 0) -> dict[str, float]:
    """Accuracy of every subset and section, and the score over sections.

    `rewardbench/score` = (chat + chat_hard + safety + reasoning + prior/2) / 4.5, or the mean of the four where
    there are no prior sets; only where every subset has a row. `n_missing_subsets` counts what the file lacks,
    `rewardbench/n/<subset>` is 0 for it: sections are then means over what is there, and so is, where all four have a
    row, `rewardbench/partial_score`, which no published score can be compared with.

    Args:
        items: one chosen and one rejected answer each.
        bootstrap: resamples of prompts behind the intervals.
        seed: of the resampling.

    Raises:
        ValueError: a subset that the benchmark does not have, or not one answer on each side.
    """
    lead = leads(
        items, "rewardbench compares one chosen with one rejected answer; benchmark=rewardbench2 takes more"
    )
    places = by_subset(items, (*SUBSETS, *PRIOR), "rewardbench")
    count = len(items)
    parts = {name: subset_weights(places, {name: 1.0}, count) for name in places}
    sections = {s: subset_weights(places, weight, count) for s, weight in SECTIONS.items()}
    sections["prior"] = subset_weights(places, dict.fromkeys(PRIOR, 1.0), count)
    sections = {name: w / w.sum() for name, w in sections.items() if w.any()}
    known = (*SUBSETS, *(PRIOR if "prior" in sections else ()))
    missing = len(set(known) - set(places))
    total = sum(w * (0.5 if s == "prior" else 1.0) for s, w in sections.items())
    score = {"partial_score" if missing else "score": total} if set(SECTIONS) <= set(sections) else {}
    weights = {f"rewardbench/{name}": np.asarray(w) for name, w in (parts | sections | score).items()}
    found = weighted_means(items, credits_of(lead), weights, bootstrap=bootstrap, seed=seed)
    counts = row_counts(places, known, "rewardbench")
    sizes = {"rewardbench/n": count, "rewardbench/n_missing_subsets": missing}
    return found | counts | sizes | {"rewardbench/tie_rate": float((lead == 0).mean())}
