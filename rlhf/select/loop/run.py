"""The task `active`: every selector on every seed, what they chose, and whether it helped."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from rlhf.labels.label import Aggregation, FittedAggregation
from rlhf.select.loop.budget import LabelBudget
from rlhf.select.loop.label_sources import LabelSource, Waiting
from rlhf.select.loop.learners import Labels, Learner
from rlhf.select.loop.learning_curve import curves, page, write_comparison, write_rows
from rlhf.select.loop.selector_run import SelectorRun, pair_metrics
from rlhf.select.pool_builder import BuiltPool
from rlhf.select.strategies.selector import Selector

OF_A_ROUND = ("selector", "seed", "round", "labels", "cost", "ece", "regularisation", "out_of_fold_nll", "seconds")
"""What shift.json says of a round beside the shift."""


@dataclass
class ActiveRun:
    """Everything the loop needs; `rlhf.assemble` builds it from the configuration.

    Args:
        folder: of the run.
        trainer: its loggers get the curves (W&B, CSV).
        pool_builder: seed -> pool and test of that repetition.
        selectors: name -> selector; the first is the one in question, the others are compared with it.
        seeds: repetitions.
        learner: trains every round.
        label_source: gives votes; where they are costly there is one selector and one seed.
        aggregation: votes to labels.
        plan: how much is obtained.
        plans: name -> a plan of its own, for runs that are there to compare how votes are spent.
        ceiling: also train on all votes of the pool, where these are there.
    """

    folder: Path
    trainer: pl.Trainer
    pool_builder: Callable[[int], BuiltPool]
    selectors: Mapping[str, Selector]
    seeds: Sequence[int]
    learner: Learner
    label_source: LabelSource
    aggregation: Aggregation | FittedAggregation
    plan: LabelBudget
    plans: Mapping[str, LabelBudget] = field(default_factory=dict)
    ceiling: bool = True

    def __post_init__(self) -> None:
        if self.label_source.costly:
            name = next(iter(self.selectors))
            self.selectors, self.seeds = {name: self.selectors[name]}, self.seeds[:1]


def run_active(run: ActiveRun) -> dict[str, float]:
    """Run or go on; leaves curve.csv, curve.png, curve.md, selected.jsonl, shift.json and metrics.json.

    Returns:
        metrics.json: `test/pair_accuracy` and `test/nll` after the last round, means over seeds; the comparison
        with random under `compare/<selector>/...`; `baseline/length`, and `ceiling/...` of the whole pool, all votes.
        Empty while votes of people are awaited.
    """
    results: list[dict[str, Any]] = []
    chosen: list[dict[str, Any]] = []
    lines: list[dict[str, float]] = []
    waiting: Waiting | None = None
    for seed in run.seeds:
        built = run.pool_builder(seed)
        lines.append(_reference(run, built, seed))
        for name, selector in run.selectors.items():
            selector_run = SelectorRun(name, selector, seed, built, run.learner, run.label_source, run.aggregation,
                      run.plans.get(name, run.plan), run.folder / "arms" / f"{name}-{seed}")  # fmt: skip
            try:
                for result in selector_run.rounds():
                    results.append(result)
                    _log(run.trainer, result)
            except Waiting as signal:
                waiting = signal
            chosen.extend(_chosen(selector_run))
            _write(run.folder, results, chosen)
    if waiting is not None:
        print(f"{waiting}\nand then the same command with ckpt={run.folder} goes on", flush=True)
        return {}
    return _report(run, results, lines)


def _log(trainer: pl.Trainer, result: Mapping[str, Any]) -> None:
    for logger in trainer.loggers:
        numbers = {k: result[k] for k in ("labels", "pair_accuracy", "nll", "ece")}
        logger.log_metrics({f"{result['selector']}/{result['seed']}/{k}": float(v) for k, v in numbers.items()},
                           step=result["round"])  # fmt: skip


def _report(run: ActiveRun, results: list[dict[str, Any]], lines: list[dict[str, float]]) -> dict[str, float]:
    found = curves(results)
    first = next(iter(run.selectors))
    reference = {key: float(np.mean([line[key] for line in lines])) for key in lines[0]}
    numbers = write_comparison(found, reference, run.folder)
    print(page(numbers), end="")
    print("  " + ", ".join(f"{key} {value:.4f}" for key, value in reference.items()))
    last = {metric: float(values[:, -1].mean()) for metric, values in found[first].values.items()}
    metrics = {"test/pair_accuracy": last["pair_accuracy"], "test/nll": last["nll"]} | reference
    metrics |= {"test/baseline/length": reference["baseline/length"], "n_labels": float(found[first].labels[-1])}
    metrics |= {f"compare/{name}/{key}": v for name, part in numbers.items() for key, v in part.items()}
    (run.folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
    return metrics


def _reference(run: ActiveRun, built: BuiltPool, seed: int) -> dict[str, float]:
    """What costs no choice: the longer answer, and a head on all votes of the pool where these cost nothing."""
    by_length = pair_metrics(built, np.sign(built.longer[built.test]))["pair_accuracy"]
    out = {"baseline/length": by_length, "pool/pairs": float(built.pool.selectable.sum()),
           "test/pairs": float(len(built.test))}  # fmt: skip
    labels = _everything(run, built) if run.ceiling else None
    if labels is not None:
        trained = run.learner.begin(built, run.folder / "ceiling")(built.pool, labels, seed)
        ceiling = pair_metrics(built, built.pool.reward_differences(trained.rewards, built.test))
        out |= {"ceiling/pair_accuracy": ceiling["pair_accuracy"], "ceiling/nll": ceiling["nll"]}
    return out


def _everything(run: ActiveRun, built: BuiltPool) -> Labels | None:
    """All held-back votes of the pool as labels; None where the pool holds none."""
    rows = np.array([r for r in np.flatnonzero(built.pool.selectable) if built.held_back[r]], dtype=np.int64)
    if run.label_source.costly or not len(rows):
        return None
    records = [replace(built.task(row), votes=tuple(built.held_back[row])) for row in rows]
    label = run.aggregation
    if isinstance(label, FittedAggregation):
        label = label.fit(records)
    found = [label(record) for record in records]
    seen = np.array([f.observed[0, 1] for f in found])
    share, votes = (np.array([getattr(f, k)[0, 1] for f in found]) for k in ("win_prob", "votes"))
    return Labels(rows[seen], share[seen], votes[seen])


def _chosen(selector_run: SelectorRun) -> list[dict[str, Any]]:
    """Lines of selected.jsonl: every pair with its reason."""
    lines = []
    for event in selector_run.journal.of("selected"):
        for pair in event["pairs"]:
            row = selector_run.row[pair["pair_id"]]
            task = selector_run.built.task(row)
            lines.append({
                "selector": selector_run.name, "seed": selector_run.seed, "round": event["round"],
                "prompt_id": task.prompt_id, "completions": [c.id for c in task.completions],
                "domain": task.domain, **pair,
            })  # fmt: skip
    return lines


def _write(folder: Path, results: Sequence[Mapping[str, Any]], chosen: Sequence[Mapping[str, Any]]) -> None:
    write_rows(folder / "curve.csv", results)
    with (folder / "selected.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in chosen)
    rounds = [{key: result.get(key) for key in OF_A_ROUND} | result["shift"] for result in results]
    (folder / "shift.json").write_text(json.dumps(rounds, indent=1))
