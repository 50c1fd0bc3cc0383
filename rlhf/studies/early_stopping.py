"""Does early stopping come before gold falls? Runs that nothing stops, and where each sign would have stopped them.

A rule looks at the trace up to a step only, so a stopped run is the beginning of the run that nothing stops: one run
evaluates all signs. Gold is that of the policy after every step, without sampling error
(`TabularPolicy.expected_gold`). Levels are chosen on some worlds and evaluated on others.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.optimise.iterate.generation import Loop, exact_gold, module_of, optimise, reward_sources_of
from rlhf.optimise.policy.early_stopping import StoppingRule
from rlhf.optimise.policy.module import Trace
from rlhf.records.tables import markdown, write_csv
from rlhf.reward.files import log_end, write_json
from rlhf.studies.ablation import LoopOf, interval, with_ends
from rlhf.studies.study import cell

Make = Callable[[float], StoppingRule]
"""Level -> rule."""


@dataclass(frozen=True)
class Unstopped:
    """One run. gold[t] after t steps; trace[t] is the batch on which step t + 1 is taken."""

    world: str
    seed: int
    trace: list[Trace]
    reference: Trace
    gold: list[float]


@dataclass(frozen=True)
class StopOutcome:
    """Where a rule stops one run: `step`, or None.

    fell       gold ends more than `margin` below its peak
    in_time    stopped while gold was within `margin` of its peak or had not reached it yet
    """

    step: int | None
    stopped: float
    peak: float
    end: float
    fell: bool
    in_time: bool
    before_peak: bool


@dataclass(frozen=True)
class EarlyStoppingRun:
    """The task `early_stopping`.

    Args:
        folder: of the results; runs that are there already are taken as they are.
        trainer: its loggers get the numbers.
        worlds: name -> the loop of a seed in this world.
        seeds: on which signs are evaluated, in all worlds.
        chosen_on, chosen_seeds: worlds and seeds on which their levels are chosen.
        signs: name -> (level -> rule, the levels to choose from).
        margin: fall in gold that counts as one, log-odds.
    """

    folder: Path
    trainer: Any
    worlds: Mapping[str, LoopOf]
    seeds: Sequence[int]
    chosen_on: Sequence[str]
    chosen_seeds: Sequence[int]
    signs: Mapping[str, tuple[Make, Sequence[float]]]
    margin: float

    def unstopped(self, names: Iterable[str], seeds: Sequence[int]) -> list[Unstopped]:
        """The runs of these worlds and seeds."""
        return [
            unstopped(self.worlds[name](self.folder / name / f"seed-{seed}", seed), name)
            for name in names
            for seed in seeds
        ]


def run_early_stopping(run: EarlyStoppingRun) -> dict[str, float]:
    """Train what is not there yet, then evaluate the signs; see `study`."""
    calibration = run.unstopped(run.chosen_on, run.chosen_seeds)
    runs = run.unstopped(run.worlds, run.seeds)
    metrics = study(calibration, runs, run.signs, run.folder, margin=run.margin)
    print((run.folder / "warnings.md").read_text())
    log_end(run.trainer.loggers, metrics, run.folder)
    return metrics


def unstopped(loop: Loop, world: str) -> Unstopped:
    """One generation to its end; kept in the loop's folder and taken from there the next time."""
    path = loop.folder / "unstopped.json"
    if not path.is_file():
        loop.folder.mkdir(parents=True, exist_ok=True)
        module = module_of(loop, reward_sources_of(loop, loop.start), 0)
        optimise(loop, module, 0)
        end = exact_gold(loop.policy, loop.eval_tasks)
        gold = [*(row["exact_gold"] for row in module.trace), end]
        write_json(path, {"trace": module.trace, "reference": module.reference, "gold": gold})
    return Unstopped(world, loop.seed, **json.loads(path.read_text()))


def outcome(run: Unstopped, rule: StoppingRule, margin: float) -> StopOutcome:
    """What the rule would have done to the run; see `StopOutcome`. margin: fall in gold that counts, log-odds."""
    step = rule.first(run.trace, run.reference)
    gold, end = np.array(run.gold), run.gold[-1]
    top = int(gold.argmax())
    low = np.flatnonzero(gold[top:] < gold[top] - margin)
    falls = top + int(low[0]) if len(low) else len(gold)
    return StopOutcome(
        step, end if step is None else run.gold[step], float(gold[top]), end, bool(gold[top] - end > margin),
        step is not None and step < falls, step is not None and step <= top,
    )  # fmt: skip


def best_level(runs: Sequence[Unstopped], make: Make, levels: Sequence[float], margin: float) -> float:
    """The level that leaves the most gold at the end, on average over the runs; the highest of equal ones."""
    mean = {x: np.mean([outcome(run, make(x), margin).stopped for run in runs]) for x in levels}
    return max(levels, key=lambda level: (mean[level], level))


def study(
    calibration: Sequence[Unstopped], runs: Sequence[Unstopped], signs: Mapping[str, tuple[Make, Sequence[float]]],
    folder: Path, *, margin: float,
) -> dict[str, float]:  # fmt: skip
    """Choose every sign's level on the calibration runs, evaluate it on the others.

    Leaves warnings.csv (a row per sign and run) and warnings.md (a row per sign and world).

    Returns:
        `<world>/<sign>/level`, `/gain` (gold where it stopped less gold at the end) and `/regret` (the peak less gold
        where it stopped) with `/low`, `/high` (95%, t over seeds), `/fell` runs whose gold falls, `/in_time` and
        `/before_peak` of these, `/held` runs whose gold does not fall, `/false` of these that it stopped.
    """
    if len({run.seed for run in runs}) < 2:
        raise ValueError("task.seeds: an interval needs at least 2")
    seen = {(run.world, run.seed) for run in calibration} & {(run.world, run.seed) for run in runs}
    if seen:
        raise ValueError(f"levels must be evaluated on other runs than they were chosen on, not on {sorted(seen)}")
    rows: list[dict[str, Any]] = []
    metrics: dict[str, float] = {}
    for name, (make, levels) in signs.items():
        level = best_level(calibration, make, levels, margin)
        for run in runs:
            found = outcome(run, make(level), margin)
            rows.append({"world": run.world, "sign": name, "level": level, "seed": run.seed} | vars(found))
    for world in (*dict.fromkeys(run.world for run in runs), "all"):
        for name in signs:
            own = [row for row in rows if row["sign"] == name and world in (row["world"], "all")]
            metrics |= {f"{world}/{name}/{key}": value for key, value in _summary(own).items()}
    write_csv(folder / "warnings.csv", rows)
    (folder / "warnings.md").write_text(table(metrics, list(signs)), encoding="utf-8")
    write_json(folder / "metrics.json", metrics)
    return metrics


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {"level": rows[0]["level"]}
    seeds = dict.fromkeys(row["seed"] for row in rows)
    for name, (more, less) in {"gain": ("stopped", "end"), "regret": ("peak", "stopped")}.items():
        values = [np.mean([r[more] - r[less] for r in rows if r["seed"] == seed]) for seed in seeds]
        found |= with_ends(name, interval([float(value) for value in values]))
    fell, held = [r for r in rows if r["fell"]], [r for r in rows if not r["fell"]]
    return found | {
        "fell": len(fell),
        "in_time": sum(r["in_time"] for r in fell),
        "before_peak": sum(r["before_peak"] for r in fell),
        "late": sum(r["step"] is not None and not r["in_time"] for r in fell),
        "held": len(held),
        "false": sum(r["step"] is not None for r in held),
    }


def table(metrics: Mapping[str, float], signs: Sequence[str]) -> str:
    """Markdown: a row per world and sign."""
    head = ["world", "sign, level", "gold over the end", "short of the peak", "in time", "before the peak", "false"]
    rows = []
    for world in dict.fromkeys(key.split("/")[0] for key in metrics):
        for sign in signs:
            m = {k.removeprefix(f"{world}/{sign}/"): v for k, v in metrics.items()}
            cells = [cell(m, name, 2, "+", ends="") for name in ("gain", "regret")]
            cells += [f"{m[n]:.0f} of {m['fell']:.0f}" for n in ("in_time", "before_peak")]
            rows.append([world, f"{sign} {m['level']:g}", *cells, f"{m['false']:.0f} of {m['held']:.0f}"])
    return markdown(head, rows)
