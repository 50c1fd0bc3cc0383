"""RM-Bench (Liu et al. 2024): three styles of a right answer against three styles of a wrong one.

Files: one row per prompt, {id, prompt, chosen: [3], rejected: [3], domain}; styles from plain to fancy. Domains
beginning with chat, code, math and safety.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlhf.evaluation.benchmarks.items import BenchmarkItem, credits_of, row_counts, subset_weights, weighted_means

STYLES = ("concise", "detailed", "markdown")
DOMAINS = ("chat", "math", "code", "safety")
LEVELS = (("hard", np.triu(np.ones((3, 3)), 1)), ("normal", np.eye(3)), ("easy", np.tril(np.ones((3, 3)), -1)))
"""Hard: the wrong answer is the fancier one (above the diagonal of chosen x rejected); normal: alike; easy: below."""


def rm_bench(items: Sequence[BenchmarkItem], *, bootstrap: int = 1000, seed: int = 0) -> dict[str, float]:
    """The style matrix, hard, normal and easy accuracy as means over domains, each domain, and the mean of domains.

    A domain's accuracy is the mean of its hard, normal and easy; `rm_bench/score` the mean over the four domains;
    `rm_bench/matrix/<chosen style>/<rejected style>` likewise. Where a domain has no row, everything is over those
    that are there, the score is called `rm_bench/partial_score`, `n_missing_domains` counts the domains that are not,
    and `rm_bench/n/<domain>` is 0 for them.

    Args:
        items: three chosen and three rejected answers each, in the order of STYLES.
        bootstrap, seed: resamples of prompts behind the intervals.

    Raises:
        ValueError: another number of styles, an unknown domain, or no rows.
    """
    bad = [item.id for item in items if (len(item.chosen), len(item.rejected)) != (3, 3)]
    if bad:
        raise ValueError(f"rm_bench needs 3 chosen and 3 rejected answers; row {bad[0]!r} has others")
    places: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        places.setdefault(_domain(item), []).append(i)
    if not items:
        raise ValueError("rm_bench got no rows")
    lead = np.stack([item.chosen[:, None] - item.rejected[None, :] for item in items])  # [I, 3, 3]
    cells, count = credits_of(lead), len(items)
    everywhere = subset_weights(places, dict.fromkeys(places, 1.0), count)
    levels = {
        name: {suffix: (cell * mask).sum((1, 2)) / mask.sum() for suffix, cell in cells.items()}
        for name, mask in LEVELS
    }
    out: dict[str, float] = {}
    for name, earned in levels.items():
        out |= weighted_means(items, earned, {f"rm_bench/{name}": everywhere}, bootstrap=bootstrap, seed=seed)
    mean = {suffix: np.mean([earned[suffix] for earned in levels.values()], axis=0) for suffix in cells}
    weights = {f"rm_bench/{domain}": subset_weights(places, {domain: 1.0}, count) for domain in places}
    missing = len(DOMAINS) - len(places)
    weights["rm_bench/partial_score" if missing else "rm_bench/score"] = everywhere
    out |= weighted_means(items, mean, weights, bootstrap=bootstrap, seed=seed)
    matrix = np.tensordot(everywhere / everywhere.sum(), cells[""], axes=1)
    for i, right in enumerate(STYLES):
        out |= {f"rm_bench/matrix/{right}/{wrong}": float(matrix[i, j]) for j, wrong in enumerate(STYLES)}
    out |= row_counts(places, DOMAINS, "rm_bench") | {"rm_bench/tie_rate": float((lead == 0).mean())}
    return out | {"rm_bench/n": len(items), "rm_bench/n_missing_domains": missing}


def _domain(item: BenchmarkItem) -> str:
    found = [d for d in DOMAINS if item.subset.lower().startswith(d)]
    if not found:
        raise ValueError(f"rm_bench has no domain {item.subset!r}; domains begin with {', '.join(DOMAINS)}")
    return found[0]
