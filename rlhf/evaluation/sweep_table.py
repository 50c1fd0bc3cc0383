"""The jobs of a sweep as one table: comparison.csv for programs, comparison.md for people."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from rlhf.evaluation.metrics.left_out import paired
from rlhf.records.tables import markdown, write_csv

KEYS = (
    "val/pair_accuracy", "test/pair_accuracy", "test/pair_accuracy/ci_low", "test/pair_accuracy/ci_high",
    "test/nll", "test/ece", "test/baseline/length",
)  # fmt: skip
"""Metrics of a row, as metrics.json names them."""

CHOSEN_BY = "val/pair_accuracy"
"""What marks the best job: validation, because a choice made on test numbers spoils them."""

SWEEP_METRICS_FILE = "headline.json"
"""A task that measures something else than KEYS names its own, a list, in this file of its run folder."""

GROUPS_FILE = "groups.csv"
"""What a cross-validation says of every group that it left out."""

FIXED = ("job", "status", "overrides", "folder")

Job = dict[str, Any]


def compare(folders: Sequence[Path], keys: Sequence[str] = KEYS) -> list[Job]:
    """One row per job, in numeric order of the folders' names.

    Args:
        folders: run folders, each with `.hydra/overrides.yaml` and, if the job came to its end, metrics.json.
        keys: the metrics to take.

    Returns:
        Per job: `job` (the folder's name), `status` (done or failed), `overrides`, a column per overridden key,
        the metrics ("" where there is none, as everywhere in a failed job), `folder`.
    """
    jobs: list[Job] = []
    for folder in sorted(folders, key=_order):
        overrides, metrics = _overrides(folder), _metrics(folder)
        jobs.append(
            {
                "job": folder.name,
                "status": "failed" if metrics is None else "done",
                "overrides": " ".join(overrides),
                **dict(_assignment(o) for o in overrides),
                **{key: (metrics or {}).get(key, "") for key in keys},
                "folder": str(folder),
            }
        )
    return jobs


def write_comparison(root: Path) -> tuple[Path, Path]:
    """Write comparison.csv and comparison.md over the jobs below `root`; returns both paths."""
    folders = sorted((p.parent.parent for p in root.rglob(".hydra/overrides.yaml")), key=_order)
    paths = [path for folder in folders if (path := folder / SWEEP_METRICS_FILE).is_file()]
    named = dict.fromkeys(key for path in paths for key in json.loads(path.read_text(encoding="utf-8")))
    keys = tuple(named) or KEYS
    jobs = compare(folders, keys)
    differences = _differences(jobs)
    columns = ["job", "status", "overrides", *_settings(jobs, keys), *keys, "folder"]
    columns += dict.fromkeys(key for found in differences.values() for key in found)
    table, page = root / "comparison.csv", root / "comparison.md"
    write_csv(table, [job | differences.get(job["job"], {}) for job in jobs], columns)
    page.write_text(_markdown(jobs, keys) + _paired(differences), encoding="utf-8")
    return table, page


def _differences(jobs: Sequence[Job]) -> dict[str, dict[str, float]]:
    """Job -> `<key>/minus_<first job>` with its ends, of cross-validations on the folds of the first of them."""
    paths = {job["job"]: Path(job["folder"]) / GROUPS_FILE for job in jobs if job["status"] == "done"}
    (first, one), *others = [(job, path) for job, path in paths.items() if path.is_file()] or [("", Path())]
    found: dict[str, dict[str, float]] = {}
    for job, path in others:
        values = (d.keys(f"{key}/minus_{first}") for key, d in (paired(one, path) or {}).items())
        found[job] = {name: number for several in values for name, number in several.items()}
    return found


def _paired(differences: Mapping[str, Mapping[str, float]]) -> str:
    """The same as a table; "" where nothing is compared."""
    keys = dict.fromkeys(k for found in differences.values() for k in found if "/ci_" not in k)
    if not keys:
        return ""
    rows = [
        [job, *(f"{d[k]:+.4f} [{d[f'{k}/ci_low']:+.4f}, {d[f'{k}/ci_high']:+.4f}]" if k in d else "" for k in keys)]
        for job, d in differences.items()
    ]
    other = [job for job, found in differences.items() if not found]
    note = f"Job {', '.join(other)}: other folds, not compared.\n" if other else ""
    return (
        "\nDifferences on the same folds, paired by the group that was left out, each group once; 95% Student's "
        f"intervals over groups, each row alone:\n\n{markdown(['job', *keys], rows)}{note}"
    )


def _settings(jobs: Sequence[Job], keys: Sequence[str]) -> list[str]:
    """The keys that any job overrides, in order of appearance."""
    return list(dict.fromkeys(key for job in jobs for key in job if key not in (*keys, *FIXED)))


def _markdown(jobs: Sequence[Job], keys: Sequence[str]) -> str:
    """The table with the best job in bold, and means over seeds where only seeds differ."""
    columns = ["job", "status", *_settings(jobs, keys), *keys]
    best = max((job[CHOSEN_BY] for job in jobs if job.get(CHOSEN_BY, "") != ""), default=None)
    rows = []
    for job in jobs:
        cells = [_cell(job.get(column, "")) for column in columns]
        marked = best is not None and job.get(CHOSEN_BY) == best
        rows.append([f"**{cell}**" if cell and marked else cell for cell in cells])
    chosen = f"Bold: highest {CHOSEN_BY}. Test numbers are for reporting, not for choosing.\n"
    note = chosen if CHOSEN_BY in keys else ""
    return f"{markdown(columns, rows)}\n{note}{_over_seeds(jobs, keys)}"


def _over_seeds(jobs: Sequence[Job], keys: Sequence[str]) -> str:
    """Mean and sample standard deviation over the seeds of each setting that was run with several."""
    others = [key for key in _settings(jobs, keys) if key != "seed"]
    runs: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if job["status"] == "done" and "seed" in job:
            runs[" ".join(f"{k}={job[k]}" for k in others if k in job) or "all"].append(job)
    metrics = [key for key in keys if "/ci_" not in key]
    rows = []
    for setting, repeats in runs.items():
        if len(repeats) > 1:
            values = [[job[key] for job in repeats if job[key] != ""] for key in metrics]
            spread = [f"{mean(v):.4f} ± {stdev(v):.4f}" if len(v) > 1 else "" for v in values]
            rows.append([_cell(setting), str(len(repeats)), *spread])
    if not rows:
        return ""
    return f"\nMean ± standard deviation over seeds:\n\n{markdown(['setting', 'seeds', *metrics], rows)}"


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _order(folder: Path) -> tuple[bool, int, str]:
    """Numbered folders by number, others behind them by name."""
    number = folder.name.isdigit()
    return not number, int(folder.name) if number else 0, str(folder)


def _assignment(override: str) -> tuple[str, str]:
    """Key and value of `key=value`, `+key=value`, `++key=value`; a deletion `~key` has the value "deleted"."""
    key, _, value = override.lstrip("+~").partition("=")
    return key, "deleted" if override.startswith("~") else value


def _overrides(folder: Path) -> list[str]:
    path = folder / ".hydra" / "overrides.yaml"
    return [str(o) for o in yaml.safe_load(path.read_text(encoding="utf-8")) or []] if path.is_file() else []


def _metrics(folder: Path) -> Mapping[str, float] | None:
    """metrics.json; None where there is none, or a job that was stopped left half of one."""
    path = folder / "metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None
