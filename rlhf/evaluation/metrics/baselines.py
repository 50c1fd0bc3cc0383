"""The table printed beside every result: what the model must beat, and what people reach."""

import math
from collections.abc import Mapping

from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.scored import Scored
from rlhf.stats.arrays import Floats
from rlhf.stats.bootstrap import DIFFERENCE, SHARE, cluster_mean

ONE_SIDED = 0.95
"""From here on the order of the file, not the task, explains what a constant answer reaches."""


def against(name: str, other: Floats, scored: Scored, *, samples: int, seed: int) -> dict[str, float]:
    """Pair accuracy of other rewards on the same answers, and the model's lead over it, prompts resampled.

    Args:
        name: in the keys `baseline/<name>` and `pair_accuracy/minus_<name>`.
        other: [N] rewards of the answers.
        scored: the set, with the model's rewards.
        samples, seed: of the bootstrap; 0 samples = no intervals.
    """
    theirs = credit(other[scored.first] - other[scored.second], scored.win_prob)
    lead = credit(scored.difference, scored.win_prob) - theirs
    out: dict[str, float] = {}
    for key, values, within in ((f"baseline/{name}", theirs, SHARE), (f"pair_accuracy/minus_{name}", lead, DIFFERENCE)):
        found = cluster_mean(values, scored.pair_prompt, within=within, samples=samples, seed=seed).keys(key)
        out |= {name: value for name, value in found.items() if math.isfinite(value)}
    return out


def baseline_table(metrics: Mapping[str, float]) -> str:
    """Plain-text table of one split; a metric that the split does not define shows as `-`.

    Args:
        metrics: as `rlhf.evaluation.metrics.metrics.evaluate` gives them.
    """
    one_sided = metrics.get("baseline/majority", 0.0) >= ONE_SIDED
    words = "pair_accuracy/minus_bag_of_words" in metrics
    rows = [
        ("always the same side", "baseline/majority", "the file stores the winner there" if one_sided else ""),
        ("the longer answer", "baseline/length", ""),
        *([("a bag of words", "baseline/bag_of_words", "")] if words else []),
        ("this model", "pair_accuracy", ""),
        ("  when the longer won", "pair_accuracy/longer_won", ""),
        ("  when the shorter won", "pair_accuracy/shorter_won", ""),
        ("  lead over the longer answer", "pair_accuracy/minus_length", ""),
        *([("  lead over a bag of words", "pair_accuracy/minus_bag_of_words", "")] if words else []),
        ("one annotator against the others", "ceiling/annotators", ""),
        ("NLL in nats", "nll", f"least possible {_number(metrics, 'nll/votes_entropy')}, a coin 0.693"),
        ("ECE", "ece", f"before temperature {_number(metrics, 'ece_uncalibrated')}, "
                       f"by chance {_number(metrics, 'ece/by_chance')}"),
    ]  # fmt: skip
    width = max(len(name) for name, _, _ in rows)
    lines = [_head(metrics)]
    for name, key, remark in rows:
        more = "  ".join(part for part in (_interval(metrics, key), remark) if part)
        lines.append(f"  {name:<{width}}  {_number(metrics, key):>6}  {more}".rstrip())
    met = int(metrics.get("n_prompts_trained", 0) + metrics.get("n_prompts_validated", 0))
    if met:
        lines.append(f"no held-out result: {met} of these prompts were in the training or validation data")
    return "\n".join(lines)


def _head(metrics: Mapping[str, float]) -> str:
    ties = int(metrics.get("n_gold_ties", 0))
    even = f" ({ties} of them even, left out of accuracies)" if ties else ""
    pairs, prompts = int(metrics["n_pairs"]), int(metrics["n_prompts"])
    return f"{pairs} pairs{even} on {prompts} prompts, pair accuracy [95% interval]:"


def _number(metrics: Mapping[str, float], key: str) -> str:
    return f"{metrics[key]:.3f}" if key in metrics else "-"


def _interval(metrics: Mapping[str, float], key: str) -> str:
    low, high = metrics.get(f"{key}/ci_low"), metrics.get(f"{key}/ci_high")
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
