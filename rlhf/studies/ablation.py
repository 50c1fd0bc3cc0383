"""The same loop under several conditions and seeds: what each mitigation does, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.optimise.iterate.generation import Loop
from rlhf.optimise.iterate.progress import Progress
from rlhf.optimise.iterate.run import iterate
from rlhf.records.tables import markdown, write_csv
from rlhf.reward.files import log_end, write_json
from rlhf.stats.t_interval import t_interval
from rlhf.studies.study import cell

LoopOf = Callable[[Path, int], Loop]
"""`(folder, seed) -> loop`, fresh."""
COLUMNS = ("gold", "peak_gold", "lost", "reward", "kl", "length", "disagreement", "distance", "steps", "warnings")


@dataclass(frozen=True)
class AblationRun:
    """The task `iterate` under several conditions.

    Args:
        folder: of the results.
        trainer: its loggers get every loop's numbers, under `<condition>/seed-<seed>/`.
        loops: condition -> loop; the first is what the others are compared with.
        seeds: at least 2.
    """

    folder: Path
    trainer: Any
    loops: Mapping[str, LoopOf]
    seeds: Sequence[int]


def run_ablation(run: AblationRun) -> dict[str, float]:
    """Run every loop with every seed; see `ablation`."""
    loggers = run.trainer.loggers

    def one(name: str, seed: int, folder: Path) -> dict[str, float]:
        print(f"{name}, seed {seed}", flush=True)
        loop = run.loops[name](folder, seed)
        loop.progress = Progress(loggers, prefix=f"{name}/seed-{seed}/")
        return iterate(loop)

    metrics = ablation({name: partial(one, name) for name in run.loops}, run.seeds, run.folder)
    print(table(metrics, list(run.loops)))
    log_end(loggers, metrics, run.folder)
    return metrics


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
            write_csv(folder / "ablation.csv", rows)
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
    columns = ("gain", *COLUMNS)
    rows = ([name, *(cell(metrics, f"{name}/{column}", 2, ends="") for column in columns)] for name in names)
    return markdown(["condition", "gain in gold", *COLUMNS], rows)


def _summary(rows: Sequence[Mapping[str, float | str]], names: Sequence[str]) -> dict[str, float]:
    values = {(n, c): [float(r[c]) for r in rows if r["condition"] == n] for n in names for c in COLUMNS}
    first = values[names[0], "gold"]
    for name in names:
        values[name, "gain"] = [own - base for own, base in zip(values[name, "gold"], first, strict=True)]
    out: dict[str, float] = {}
    for (name, column), found in values.items():
        out |= with_ends(f"{name}/{column}", interval(found))
    return out


def with_ends(key: str, found: tuple[float, float, float]) -> dict[str, float]:
    """A mean and its interval as `<key>`, `<key>/low`, `<key>/high`."""
    return dict(zip((key, f"{key}/low", f"{key}/high"), found, strict=True))
