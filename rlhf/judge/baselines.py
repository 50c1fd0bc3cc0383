"""The table printed beside every result: what the model must beat, and what people reach."""

from __future__ import annotations

from collections.abc import Mapping


def baseline_table(metrics: Mapping[str, float]) -> str:
    """Plain-text table of one split.

    Args:
        metrics: as `rlhf.judge.metrics.evaluate` gives them.
    """
    rows = [
        ("always the same side", _number(metrics, "baseline/majority"), ""),
        ("the longer answer", _number(metrics, "baseline/length"), ""),
        ("this model", _number(metrics, "pair_accuracy"), _interval(metrics, "pair_accuracy")),
        ("  when the longer won", _number(metrics, "pair_accuracy/longer_won"), ""),
        ("  when the shorter won", _number(metrics, "pair_accuracy/shorter_won"), ""),
        ("  lead over the longer answer", _number(metrics, "pair_accuracy/minus_length"),
         _interval(metrics, "pair_accuracy/minus_length")),
        ("one annotator against the others", _number(metrics, "ceiling/annotators"), ""),
        ("NLL (least possible)", _number(metrics, "nll"),
         f"{_interval(metrics, 'nll')} ({_number(metrics, 'nll/votes_entropy')})"),
        ("ECE (before temperature)", _number(metrics, "ece"),
         f"{_interval(metrics, 'ece')} ({_number(metrics, 'ece_uncalibrated')})"),
    ]  # fmt: skip
    width = max(len(name) for name, _, _ in rows)
    head = f"{int(metrics['n_pairs'])} test pairs on {int(metrics['n_prompts'])} prompts, pair accuracy:"
    return "\n".join(
        [head, *(f"  {name:<{width}}  {value:>6}  {more}".rstrip() for name, value, more in rows)]
    )


def _number(metrics: Mapping[str, float], key: str) -> str:
    return f"{metrics[key]:.3f}" if key in metrics else "-"


def _interval(metrics: Mapping[str, float], key: str) -> str:
    low, high = metrics.get(f"{key}/ci_low"), metrics.get(f"{key}/ci_high")
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
