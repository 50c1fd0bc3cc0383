"""Cross-validation: every group is scored by a model that never saw it, and one report judges all of these scores.

Folds share their settings; early stopping and temperature come from each fold's own validation groups. Rewards are
divided by the fold's temperature, so that folds can stand in one table. A fold that is done is never done twice.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytorch_lightning as pl
from scipy.stats import spearmanr

from rlhf.data.distinct import key_of
from rlhf.data.group_splits import FoldSplit
from rlhf.data.render import Renderer
from rlhf.data.source import RecordStream
from rlhf.evaluation.bag_of_words import BagOfWords
from rlhf.evaluation.metrics.baselines import baseline_table
from rlhf.evaluation.metrics.calibration import Calibration, nll
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.scored import Results
from rlhf.evaluation.report.section import Evaluation, Section, Table, cell
from rlhf.evaluation.run import EvaluationRun, SectionFunction
from rlhf.evaluation.score_pass import Pass
from rlhf.evaluation.score_source import Scores, ScoreSource
from rlhf.labels.label import Aggregation
from rlhf.records import Comparison, prompt_hash
from rlhf.records.tables import write_csv
from rlhf.reward.files import log_end, write_json
from rlhf.reward.training import SCORES, RewardRun, train_reward
from rlhf.stats.arrays import Floats
from rlhf.stats.t_interval import t_interval

WORDS = BagOfWords.name
COLUMNS = (
    "fold", "groups", "n_pairs", "pair_accuracy", "baseline/length", "baseline/bag_of_words", "lead/length",
    "lead/bag_of_words", "nll", "nll_uncalibrated", "ece", "ece_uncalibrated", "temperature", "seconds",
)  # fmt: skip
"""Columns of folds.csv; a coin has NLL log 2 = 0.693."""
LEADS = {
    "lead/length": "lead over the longer answer",
    "lead/bag_of_words": "lead over a bag of words",
    "nll/below_coin": "NLL below a coin's",
    "prompt/spearman": "Spearman with the votes, whole prompts",
}
"""Numbers over the groups that were left out, and what they are called."""


@dataclass
class CrossValidationRun:
    """Everything the task needs; `rlhf.assemble` builds it from the configuration.

    folder    of the whole; fold i lies in `folds/i`
    build     (fold, its folder) -> the training run of that fold
    splitter  deals records to folds; fitted
    records   all of them
    aggregation  votes to the labels that are evaluated on
    renderer  texts to tokens, as in training
    sections  of the report, by name
    trainer   for its loggers
    samples, seed  of the bootstrap
    """

    folder: Path
    build: Callable[[int, Path], RewardRun]
    splitter: FoldSplit
    records: RecordStream
    aggregation: Aggregation
    renderer: Renderer
    sections: Mapping[str, SectionFunction]
    trainer: pl.Trainer
    samples: int = 1000
    seed: int = 0
    name: str = "out of fold"


def cross_validate(run: CrossValidationRun) -> dict[str, float]:
    """Train the folds that are not done, and leave folds.csv, groups.csv, report.json, report.html and metrics.json.

    Returns:
        The report's numbers as `test/...`, the mean of the folds' validation as `val/...`.
    """
    folders = [run.folder / "folds" / str(fold) for fold in range(run.splitter.folds)]
    for fold, folder in enumerate(folders):
        if not (folder / "metrics.json").exists():
            started = time.monotonic()
            train_reward(run.build(fold, folder))
            write_json(folder / "seconds.json", time.monotonic() - started)
    if not run.trainer.is_global_zero:
        return {}
    found = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    report = _evaluation(run, [FoldScores(folder / SCORES, run.renderer) for folder in folders])()
    assert report is not None
    results = report.evaluation.results
    groups = of_groups(results)
    rows = _of_folds(run, found, results, folders)
    write_csv(run.folder / "folds.csv", rows, COLUMNS)
    write_csv(run.folder / "groups.csv", groups, list(groups[0]))
    metrics = {f"test/{key}": value for key, value in report.metrics.items()} | _means(found)
    write_json(run.folder / "metrics.json", metrics)
    log_end(run.trainer.loggers, metrics, run.folder)
    print("\n" + baseline_table(report.metrics))
    print(_summary(report.metrics, len(groups), run.splitter.key))
    print(f"report: {run.folder}", flush=True)
    return metrics


class FoldScores:
    """Rewards that a fold's model gave to the texts of its test part, calibrated.

    Args:
        file: as `train_reward` leaves it.
        renderer: texts to tokens, as in training.
    """

    name = "fold"
    calibration: Calibration | None = Calibration.identity()

    def __init__(self, file: Path, renderer: Renderer) -> None:
        table = pq.read_table(file)
        self._reward = dict(zip(table["key"].to_pylist(), table["reward"].to_pylist(), strict=True))
        self._renderer = renderer

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Rewards; NaN for a completion that was not read in training's test part."""
        return [self._of(record) for record in records]

    def _of(self, record: Comparison) -> Scores:
        found = self._renderer.encode(record.prompt, [c.text for c in record.completions])
        reward = np.full(len(record.completions), np.nan)
        for place, response in zip(found.kept, found.responses, strict=True):
            reward[place] = self._reward.get(key_of(found.prompt, response), np.nan)
        return replace(Scores.plain(reward.tolist()), trimmed=found.trimmed > 0)


class OutOfFold:
    """Sources, one per fold, as one: a record is scored by the one that it tests.

    Args:
        name: heads its rows and columns.
        sources: of the folds.
        fold_of: the fold of a record.
    """

    calibration: Calibration | None = Calibration.identity()

    def __init__(self, name: str, sources: Sequence[ScoreSource], fold_of: Callable[[Comparison], int]) -> None:
        self.name, self.sources, self.fold_of = name, sources, fold_of

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """One `Scores` per record, in their order."""
        found: dict[int, Scores] = {}
        folds = [self.fold_of(record) for record in records]
        for fold in set(folds):
            own = [i for i, f in enumerate(folds) if f == fold]
            found |= zip(own, self.sources[fold].score([records[i] for i in own]), strict=True)
        return [found[i] for i in range(len(records))]


def _evaluation(run: CrossValidationRun, scores: Sequence[ScoreSource]) -> EvaluationRun:
    """The report's task: the models' scores and the bag of words', each out of fold."""
    words = []
    for fold in range(run.splitter.folds):
        splitter = replace(run.splitter, fold=fold)
        splitter.fit(run.records.records())
        train = (r for r in run.records.records() if splitter.split_of(r) == "train")
        words.append(BagOfWords(train, run.aggregation))
    fold_of = run.splitter.fold_of
    scoring = Pass(
        OutOfFold(run.name, scores, fold_of), run.aggregation, [OutOfFold(WORDS, words, fold_of)],
        cluster=run.splitter.group_of,
    )  # fmt: skip
    about = f"every record scored by a model that was not trained on its {run.splitter.key}; intervals resample these"
    sections = {**run.sections, "folds": lambda evaluation: folds_section(evaluation, run)}
    return EvaluationRun(
        run.folder, scoring, run.records, (run.name,), sections, about=about, part="all", samples=run.samples,
        seed=run.seed,
    )  # fmt: skip


def folds_section(evaluation: Evaluation, run: CrossValidationRun) -> Section:
    """Leads over the baselines, group by group, and how well the order inside whole prompts is met."""
    rows = of_groups(evaluation.results)
    metrics: dict[str, float] = {"n_groups_left_out": len(rows)}
    for name in ("length", "bag_of_words"):
        metrics |= mean_over_groups(f"lead/{name}", [row[f"lead/{name}"] for row in rows])
    metrics |= mean_over_groups("nll/below_coin", [np.log(2) - row["nll"] for row in rows])
    ranks = prompt_ranks(run, evaluation.models[0])
    if ranks:
        metrics |= {"prompt/spearman": float(np.mean(ranks)), "n_prompts_ranked": len(ranks)}
    text = (
        f"Out of fold: each {run.splitter.key} was left out of training as a whole. Means over the {len(rows)} groups "
        "with t intervals over groups. A lead is the share of pairs ordered right, less the baseline's."
    )
    shown = ("group", "n_pairs", "pair_accuracy", "lead/length", "lead/bag_of_words", "nll")
    leads = [(words, cell(metrics, key)) for key, words in LEADS.items() if key in metrics]
    tables = [
        Table("Over the groups that were left out", ("", "value"), leads),
        Table("Group by group", shown, [[row[key] for key in shown] for row in rows]),
    ]
    return Section("Cross-validation", text, metrics, tables)


def of_groups(results: Results) -> list[dict[str, Any]]:
    """Per group that was left out: pairs, accuracies, leads over both baselines, NLL of the calibrated rewards."""
    scored, words = results.scored, results.others[WORDS]
    right = credit(scored.difference, scored.win_prob)
    length = credit(scored.longer, scored.win_prob)
    bag = credit(words[scored.first] - words[scored.second], scored.win_prob)
    loss = nll(scored.difference, scored.win_prob)
    rows = []
    for code in np.unique(scored.pair_prompt):
        own = scored.pair_prompt == code
        first = int(np.flatnonzero(scored.prompt == code)[0])
        model, longer, bag_right = (float(np.nanmean(x[own])) for x in (right, length, bag))
        rows.append(
            {
                "group": _name(results, first), "record": int(results.record[first]), "n_pairs": int(own.sum()),
                "pair_accuracy": model, "baseline/length": longer, "baseline/bag_of_words": bag_right,
                "lead/length": model - longer, "lead/bag_of_words": model - bag_right, "nll": float(loss[own].mean()),
            }
        )  # fmt: skip
    return rows


def _name(results: Results, group: int) -> str:
    """The domain of a group of records where it has one, else its first prompt_id."""
    code = results.scored.domain[group]
    return results.prompt_id[group] if code < 0 else results.scored.domains[code]


def mean_over_groups(name: str, values: Sequence[float]) -> dict[str, float]:
    """The mean over groups with its 95 % t interval; keys as in every report."""
    known = np.array([v for v in values if np.isfinite(v)])
    low, high = t_interval(known) if len(known) > 1 else (np.nan, np.nan)
    found = {name: float(known.mean()), f"{name}/ci_low": float(low), f"{name}/ci_high": float(high)}
    return {key: value for key, value in found.items() if np.isfinite(value)}


def prompt_ranks(run: CrossValidationRun, source: ScoreSource) -> list[float]:
    """Spearman of the rewards with the mean vote share, per prompt with 3 or more answers, over all its records."""
    reward: dict[tuple[str, str], float] = {}
    share: dict[tuple[str, str], list[float]] = {}
    for record in run.records.records():
        label, prompt = run.aggregation(record), prompt_hash(record.prompt)
        rewards: Floats = source.score([record])[0].reward
        for i, completion in enumerate(record.completions):
            others = label.observed[i]
            if others.any() and np.isfinite(rewards[i]):
                reward[prompt, completion.text] = rewards[i]
                share.setdefault((prompt, completion.text), []).extend(label.win_prob[i][others].tolist())
    of_prompt: dict[str, list[tuple[float, float]]] = {}
    for key, value in reward.items():
        of_prompt.setdefault(key[0], []).append((value, float(np.mean(share[key]))))
    found = [float(spearmanr(*np.array(pairs).T).statistic) for pairs in of_prompt.values() if len(pairs) >= 3]
    return [value for value in found if np.isfinite(value)]


def _of_folds(
    run: CrossValidationRun, found: Sequence[Mapping[str, float]], results: Results, folders: Sequence[Path]
) -> list[dict[str, Any]]:
    """Rows of folds.csv: each fold's own test numbers, and the bag of words on the same pairs."""
    fold_of = {n: run.splitter.fold_of(r) for n, r in enumerate(run.records.records())}
    groups: dict[int, set[str]] = {}
    for record in run.records.records():
        groups.setdefault(run.splitter.fold_of(record), set()).add(run.splitter.group_of(record))
    scored = results.scored
    fold = np.array([fold_of[int(n)] for n in results.record])[scored.pair_group]
    words = results.others[WORDS]
    bag = credit(words[scored.first] - words[scored.second], scored.win_prob)
    rows = []
    for number, metrics in enumerate(found):
        own = {key: metrics.get(f"test/{key}") for key in COLUMNS if f"test/{key}" in metrics}
        baseline = float(np.nanmean(bag[fold == number]))
        accuracy = metrics["test/pair_accuracy"]
        seconds = json.loads((folders[number] / "seconds.json").read_text())
        rows.append(
            own
            | {
                "fold": number, "groups": " ".join(sorted(groups[number])), "baseline/bag_of_words": baseline,
                "lead/length": metrics["test/pair_accuracy/minus_length"], "lead/bag_of_words": accuracy - baseline,
                "seconds": seconds,
            }
        )  # fmt: skip
    return rows


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over folds of their validation."""
    keys = set.intersection(*(set(metrics) for metrics in found))
    wanted = sorted(key for key in keys if key.startswith("val/") and "/ci_" not in key)
    return {key: float(np.mean([metrics[key] for metrics in found])) for key in wanted}


def _summary(metrics: Mapping[str, float], groups: int, key: str) -> str:
    lines = [f"over the {groups} groups left out (split.key={key}), mean [95% t interval]:"]
    for name, words in list(LEADS.items())[:2]:
        lines.append(f"  {words:<30}  {cell(metrics, name)}")
    return "\n".join(lines)
