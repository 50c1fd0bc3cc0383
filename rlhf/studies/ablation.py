"""The same loop under several conditions and seeds: what each mitigation does, with intervals."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rlhf.reward.files import write_json
from rlhf.stats.t_interval import t_interval

COLUMNS = (
    "gold",
    "peak_gold",
    "lost",
    "reward",
    "kl",
    "length",
    "disagreement",
    "distance",
    "steps",
    "warnings",
)


def ablation(
    conditions: Mapping[str, Callable[[int, Path], dict[str, float]]], seeds: Sequence[int], folder: Path
) -> dict[str, float]:
    """Run every condition with every seed; leaves ablation.csv (a row per run), ablation.md (means and intervals).

    Args:
        conditions: name -> `(seed, folder) -> metrics` of one loop; the first is what the others are compared with.
        seeds: at least 2.
        folder: of the results; runs that are there already are not repeated by the loop.

    Returns:
        `<condition>/<column>`, with `/low` and `/high` (95%, t over seeds), and `<condition>/gain` in gold over the
        first condition, paired by seed.
    """
    if len(seeds) < 2:
        raise ValueError(f"task.seeds={len(seeds)}: an interval needs at least 2")
    rows: list[dict[str, float | str]] = []
    for seed in seeds:
        for name, run in conditions.items():
            found = run(seed, folder / name / f"seed-{seed}")
            found = found | _golds(found)
            row: dict[str, float | str] = {"condition": name, "seed": float(seed)}
            row.update({c: found.get(c, np.nan) for c in COLUMNS})
            rows.append(row)
            with (folder / "ablation.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    metrics = _summary(rows, list(conditions))
    (folder / "ablation.md").write_text(table(metrics, list(conditions)), encoding="utf-8")
    write_json(folder / "metrics.json", metrics)
    return metrics


def _golds(found: Mapping[str, float]) -> dict[str, float]:
    """Gold at the end, its peak and the fall between them.

    Where exact gold is known, all three are exact. Elsewhere the peak is the best block of sampled answers to training
    prompts, and the end a mean over held-out prompts: a maximum of noisy means lies too high, and so does the fall.
    """
    end = found.get("exact_gold", found.get("gold", np.nan))
    peak = found.get("exact_peak_gold", found.get("peak_gold", np.nan))
    return {"gold": end, "peak_gold": peak, "lost": peak - end}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95% t interval."""
    array = np.asarray(values, dtype=np.float64)
    low, high = t_interval(array)
    return float(array.mean()), float(low), float(high)


def table(metrics: Mapping[str, float], names: Sequence[str]) -> str:
    """Markdown: a row per condition."""
    head = ["condition", "gain in gold", *COLUMNS]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for name in names:
        cells = [_cell(metrics, f"{name}/{column}") for column in ("gain", *COLUMNS)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _summary(rows: Sequence[Mapping[str, float | str]], names: Sequence[str]) -> dict[str, float]:
    values = {(n, c): [float(r[c]) for r in rows if r["condition"] == n] for n in names for c in COLUMNS}
    first = values[names[0], "gold"]
    for name in names:
        values[name, "gain"] = [own - base for own, base in zip(values[name, "gold"], first, strict=True)]
    out: dict[str, float] = {}
    for (name, column), found in values.items():
        mean, low, high = interval(found)
        out |= {f"{name}/{column}": mean, f"{name}/{column}/low": low, f"{name}/{column}/high": high}
    return out


def _cell(metrics: Mapping[str, float], key: str) -> str:
    return f"{metrics[key]:.2f} [{metrics[key + '/low']:.2f}, {metrics[key + '/high']:.2f}]"
