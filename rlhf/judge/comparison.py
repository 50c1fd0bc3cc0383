"""The jobs of a sweep as one table: comparison.csv for programs, comparison.md for people."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

KEYS = (
    "val/pair_accuracy", "test/pair_accuracy", "test/pair_accuracy/ci_low", "test/pair_accuracy/ci_high",
    "test/nll", "test/ece", "test/baseline/length",
)  # fmt: skip
"""Metrics of a row, as metrics.json names them."""

Job = dict[str, Any]


def compare(folders: Sequence[Path], keys: Sequence[str] = KEYS) -> list[Job]:
    """One row per job: number, status, a column per overridden key, the metrics, the folder.

    A job without metrics.json has the status `failed` and empty metrics.
    """
    jobs: list[Job] = []
    for folder in sorted(folders, key=_number):
        overrides = dict(o.lstrip("+~").split("=", 1) for o in _overrides(folder))
        metrics = _metrics(folder)
        status = "failed" if metrics is None else "done"
        values = {key: (metrics or {}).get(key, "") for key in keys}
        jobs.append({"job": folder.name, "status": status, **overrides, **values, "folder": str(folder)})
    return jobs


def write_comparison(root: Path) -> tuple[Path, Path]:
    """Write comparison.csv and comparison.md over the jobs below `root`; returns both paths."""
    jobs = compare([p.parent.parent for p in root.glob("*/.hydra/overrides.yaml")])
    columns = _columns(jobs)
    table, page = root / "comparison.csv", root / "comparison.md"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(jobs)
    page.write_text(_markdown(jobs, columns))
    return table, page


def _columns(jobs: Sequence[Job]) -> list[str]:
    overridden = {k: None for job in jobs for k in job if k not in (*KEYS, "job", "status", "folder")}
    return ["job", "status", *overridden, *KEYS, "folder"]


def _markdown(jobs: Sequence[Job], columns: Sequence[str]) -> str:
    """The table with the best test accuracy in bold, and means over seeds where only seeds differ."""
    shown = [c for c in columns if c != "folder"]
    best = max((j["test/pair_accuracy"] for j in jobs if j["status"] == "done"), default=None)
    lines = ["| " + " | ".join(shown) + " |", "|" + " --- |" * len(shown)]
    for job in jobs:
        cells = [_cell(job.get(c, "")) for c in shown]
        if job["status"] == "done" and job["test/pair_accuracy"] == best:
            cells = [f"**{c}**" if c else c for c in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_over_seeds(jobs), ""])


def _over_seeds(jobs: Sequence[Job]) -> list[str]:
    """Mean and standard deviation over the seeds of each setting."""
    settings: dict[str, list[Job]] = defaultdict(list)
    fixed = ("job", "status", "folder", "seed", *KEYS)
    for job in jobs:
        if job["status"] == "done" and "seed" in job:
            settings[" ".join(f"{k}={v}" for k, v in job.items() if k not in fixed) or "all"].append(job)
    repeated = {s: rows for s, rows in settings.items() if len(rows) > 1}
    if not repeated:
        return []
    metrics = [k for k in KEYS if "/ci_" not in k]
    lines = [
        "",
        "Mean ± standard deviation over seeds:",
        "",
        "| setting | seeds | " + " | ".join(metrics) + " |",
    ]
    lines.append("|" + " --- |" * (len(metrics) + 2))
    for setting, rows in repeated.items():
        cells = [[r[k] for r in rows if r[k] != ""] for k in metrics]
        spread = [f"{mean(c):.4f} ± {stdev(c):.4f}" if len(c) > 1 else "" for c in cells]
        lines.append(f"| {setting} | {len(rows)} | " + " | ".join(spread) + " |")
    return lines


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdigit() else 10**9, folder.name)


def _overrides(folder: Path) -> list[str]:
    path = folder / ".hydra" / "overrides.yaml"
    return list(yaml.safe_load(path.read_text()) or []) if path.is_file() else []


def _metrics(folder: Path) -> Mapping[str, float] | None:
    path = folder / "metrics.json"
    found: Mapping[str, float] | None = json.loads(path.read_text()) if path.is_file() else None
    return found
