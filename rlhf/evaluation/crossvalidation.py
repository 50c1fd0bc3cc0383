"""Every fold trained and scored, then one report of scores that no model gave to a group it had seen.

The loop takes objects and knows no model: `train` gives whatever scores records. A fold that is finished has its scores
in a file and is not done again.
"""

import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlhf.data.fold_split import FoldSplit
from rlhf.data.merge import merged_records
from rlhf.data.source import RecordStream
from rlhf.data.splits import SplitRecords
from rlhf.evaluation.bag_of_words import BagOfWords
from rlhf.evaluation.metrics.calibration import Calibration, fit_temperature_with_prior, nll
from rlhf.evaluation.metrics.left_out import BEFORE, WORDS, gold_metrics, gold_pairs, rows, share_spearman
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.metrics.scored import Results
from rlhf.evaluation.report.section import Evaluation, Section
from rlhf.evaluation.report.sections.folds import LeftOut, Row, folds
from rlhf.evaluation.report.write import Report, write_report
from rlhf.evaluation.run import SectionFunction
from rlhf.evaluation.score_pass import Pass, results_from
from rlhf.evaluation.score_source import Scores, ScoreSource
from rlhf.labels.label import Aggregation
from rlhf.records import Comparison, RecordError, as_messages, prompt_hash
from rlhf.records.tables import write_csv
from rlhf.stats.bootstrap import DIFFERENCE, cluster_mean

NAME = "out of fold"
"""Of the model that every record is scored by: the one that was trained without its group."""
SCORES, ABOUT = "scores.parquet", b"rlhf"
"""A fold's own file, written last and whole; the key of its own words."""
COLUMNS = (NAME, WORDS, BEFORE)
BLOCK = 32
"""Records scored together."""
CHOSEN_BY = ("val/pair_accuracy", "val/nll", "val/ece")
"""Of the folds' own validation parts: their means are what settings are chosen by."""
PROBABILITIES = ("nll", "brier", "ece", "ece/adaptive")
ENDS = ("", "/ci_low", "/ci_high", "/by_chance")


@dataclass(frozen=True)
class FoldModel:
    """What training on a fold gives.

    source   the model, with a calibration of its own
    prompts  hashes of the prompts that it was trained on, chosen by or calibrated on
    metrics  of its validation part: those of `CHOSEN_BY` are kept
    """

    source: ScoreSource
    prompts: Collection[str]
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass
class CrossValidation:
    """Everything a cross-validation needs; `rlhf.assemble` builds it from the configuration.

    folder       of the report; folds/<i>/ in it is each fold's own
    data         all the records
    splitter     any fold of them
    train        `(fold, folder) -> FoldModel`; goes on where it was stopped, if the folder holds something
    aggregation  votes to the labels of evaluation and of the bag of words
    sections     name -> function that makes a section of the report, in order
    about        one line that says which data this is
    samples, seed  of every interval
    """

    folder: Path
    data: RecordStream
    splitter: FoldSplit
    train: Callable[[int, Path], FoldModel]
    aggregation: Aggregation
    sections: Mapping[str, SectionFunction]
    about: str = ""
    samples: int = 1000
    seed: int = 0


class MergedRecords:
    """A stream in which the records of a prompt are one, so that a completion is scored once and ranks are whole."""

    def __init__(self, stream: RecordStream) -> None:
        self.stream = stream

    def records(self) -> Iterator[Comparison]:
        """From the start."""
        return (group.record for group in merged_records(self.stream))


class OutOfFold:
    """Scores that are there already, each from the fold that tested its record; a `ScoreSource`.

    Args:
        column: which of `COLUMNS`.
        tables: of every fold, key of a completion -> its row.
        splitter: fitted.
    """

    calibration: Calibration | None = Calibration.identity()

    def __init__(self, column: str, tables: Sequence[Mapping[str, Mapping[str, float]]], splitter: FoldSplit) -> None:
        self.name, self.tables, self.splitter = column, tables, splitter

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Looked up. Raises RecordError for a completion that its fold has not scored."""
        return [self._one(record) for record in records]

    def _one(self, record: Comparison) -> Scores:
        fold = self.splitter.fold_of(prompt_hash(record.prompt))
        try:
            assert fold is not None
            found = [self.tables[fold][_key(record, c.text)] for c in record.completions]
        except KeyError:
            raise RecordError(
                f"fold {fold} has no score of an answer of record {record.prompt_id}: the data are not those it scored",
                remedy="start a new run, without ckpt",
            ) from None
        scores = Scores.plain([row[self.name] for row in found])
        return replace(scores, tokens=np.array([row["tokens"] for row in found]))


def crossvalidate(run: CrossValidation) -> Report:
    """Train the folds that are not finished; write folds.csv, groups.csv and the report of all out-of-fold scores.

    Raises:
        RecordError: a model has seen a prompt of the fold that it is to be tested on, or the data changed meanwhile.
    """
    splitter = run.splitter
    splitter.fit(run.data.records())
    names = list(splitter.names)
    print(f"{len(names)} groups ({splitter.key}) in {splitter.n_folds} folds", flush=True)
    finished = [run.folder / "folds" / str(fold) for fold in range(splitter.n_folds)]
    for fold, folder in enumerate(finished):
        if not (folder / SCORES).is_file():
            print(f"fold {fold}", flush=True)
            _finish(run, fold, folder)
    abouts, tables = zip(*map(_read, finished), strict=True)
    evaluation, left_out = _out_of_fold(run, abouts, tables)
    write_csv(run.folder / "folds.csv", left_out.folds)
    write_csv(run.folder / "groups.csv", left_out.groups)
    made = [make(evaluation) for make in run.sections.values()]
    sections = [_without_raw(section) for section in made if section is not None]
    sections.insert(1, folds(evaluation, left_out))
    return write_report(run.folder, evaluation, sections, run.about)


def _without_raw(section: Section) -> Section:
    """What a comparison of models calls uncalibrated has been divided by the folds' temperatures already."""
    kept = {k: v for k, v in section.metrics.items() if not (k.startswith("model/") and "_uncalibrated" in k)}
    return replace(section, metrics=kept)


def _finish(run: CrossValidation, fold: int, folder: Path) -> None:
    """Train and score one fold. The file of its scores appears whole, and says that the fold is done."""
    started = time.process_time()
    folder.mkdir(parents=True, exist_ok=True)
    model = run.train(fold, folder)
    seen = [p for p in model.prompts if run.splitter.fold_of(p) == fold]
    if seen:
        raise RecordError(
            f"fold {fold}: its model was trained, chosen or calibrated on {len(seen)} prompts of the groups that it is "
            f"to be tested on, such as {seen[0]}: its scores are not out of fold"
        )
    own = replace(run.splitter, fold=fold)
    train, val, test = (MergedRecords(SplitRecords(run.data, own, part)) for part in ("train", "val", "test"))
    words = BagOfWords(train.records(), run.aggregation)
    held = results_from(Pass(words, run.aggregation).entries(val.records()), (words.name,)).scored
    temperature = fit_temperature_with_prior(held.difference, held.win_prob, held.pair_prompt)
    words.calibration = replace(Calibration.identity(), temperature=temperature)
    scores = _scored(model.source, words, test)
    about = {
        "seconds": time.process_time() - started,
        "temperature": (model.source.calibration or Calibration.identity()).temperature,
        "metrics": {key: model.metrics[key] for key in CHOSEN_BY if key in model.metrics},
    }
    unfinished = folder / f"{SCORES}.part"
    pq.write_table(scores.replace_schema_metadata({ABOUT: json.dumps(about)}), unfinished)
    unfinished.replace(folder / SCORES)
    (folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)  # nothing goes on from it any more


def _scored(model: ScoreSource, words: ScoreSource, test: MergedRecords) -> pa.Table:
    """One row per distinct completion: its key, calibrated rewards of both, the raw one, tokens."""
    found: dict[str, list[Any]] = {name: [] for name in ("key", "prompt_id", "completion", *COLUMNS, "tokens")}
    records = test.records()
    while block := list(islice(records, BLOCK)):
        for record, own, other in zip(block, model.score(block), words.score(block), strict=True):
            found["key"] += [_key(record, c.text) for c in record.completions]
            found["prompt_id"] += [record.prompt_id] * len(record.completions)
            found["completion"] += [c.id for c in record.completions]
            found[NAME] += _log_odds(own, model.calibration)
            found[WORDS] += _log_odds(other, words.calibration)
            found[BEFORE] += own.reward.tolist()
            found["tokens"] += own.tokens.tolist()
    return pa.table(found)


def _log_odds(scores: Scores, calibration: Calibration | None) -> list[float]:
    c = calibration or Calibration.identity()
    found: list[float] = ((scores.reward - c.reward_mean) / c.temperature).tolist()
    return found


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """What a finished fold says of itself, and key of a completion -> its row."""
    table = pq.read_table(folder / SCORES)
    return json.loads(table.schema.metadata[ABOUT]), {row["key"]: row for row in table.to_pylist()}


def _key(record: Comparison, text: str) -> str:
    """Names a prompt and an answer exactly as they are written."""
    written = json.dumps([as_messages(record.prompt), text])
    return blake2b(written.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _out_of_fold(
    run: CrossValidation, abouts: Sequence[Mapping[str, Any]], tables: Sequence[Mapping[str, Mapping[str, float]]]
) -> tuple[Evaluation, LeftOut]:
    """All records under the scores of the folds that tested them; clusters are the groups that were left out."""
    splitter, data = run.splitter, MergedRecords(run.data)
    source, *others = (OutOfFold(column, tables, splitter) for column in COLUMNS)
    found = results_from(Pass(source, run.aggregation, others).entries(data.records()), (NAME,))
    names = splitter.names
    units = [splitter.unit_of(prompt) for prompt in found.prompt_hash]
    if splitter.key == "prompt":  # hashes say nothing to people
        names |= dict(zip(units, found.prompt_id, strict=True))
    code = {unit: number for number, unit in enumerate(names)}
    unit = np.array([code[u] for u in units], dtype=np.int64)
    counted: dict[str, float] = {"n_prompts": len(np.unique(found.scored.prompt)), "n_clusters": len(np.unique(unit))}
    counted |= {"temperature": float(np.median([about["temperature"] for about in abouts]))}
    counts = {**found.counts, "prompts_trained": 0, "prompts_validated": 0}
    found = replace(found, scored=replace(found.scored, prompt=unit), counts=counts)
    gold = {number: pairs for number, group in enumerate(merged_records(run.data)) if (pairs := gold_pairs(group))}
    left_out = LeftOut(
        folds=_folds(run, found, [names[u] for u in splitter.folds], abouts),
        groups=_groups(run, found, names),
        gold=gold_metrics(found, gold, unit, samples=run.samples, seed=run.seed),
        spearman=cluster_mean(share_spearman(found), unit, samples=run.samples, seed=run.seed, within=DIFFERENCE),
        validation={
            key: float(np.mean([about["metrics"][key] for about in abouts]))
            for key in CHOSEN_BY
            if all(key in about["metrics"] for about in abouts)
        },
    )
    evaluation = Evaluation(
        name=NAME,
        results=replace(found, others={WORDS: found.others[WORDS]}),
        temperature=1.0,
        metrics=_metrics(run, found) | counted,
        temperatures={NAME: 1.0, WORDS: 1.0},
        look_up=lambda numbers: {n: r for n, r in enumerate(data.records()) if n in numbers},
        part=NAME,
        unit=splitter.key,
        samples=run.samples,
        seed=run.seed,
    )
    return evaluation, left_out


def _groups(run: CrossValidation, results: Results, names: Mapping[str, str]) -> list[Row]:
    """A row per group that was left out."""
    folds_of, measured = run.splitter.folds, rows(results, results.scored.prompt, len(names))
    return [
        {"group": name, "fold": folds_of[unit], **row}
        for (unit, name), row in zip(names.items(), measured, strict=True)
    ]


def _folds(
    run: CrossValidation, results: Results, names: Sequence[str], abouts: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """A row per fold; `names` of the groups in the order of `FoldSplit.folds`."""
    tested = list(run.splitter.folds.values())
    fold = np.array([run.splitter.fold_of(prompt) for prompt in results.prompt_hash], dtype=np.int64)
    found: list[Row] = []
    for number, (row, about) in enumerate(zip(rows(results, fold, len(abouts)), abouts, strict=True)):
        groups = "; ".join(sorted(name for name, f in zip(names, tested, strict=True) if f == number))
        own = {"nll/coin": math.log(2), "temperature": about["temperature"], "seconds": about["seconds"]}
        found.append({"fold": number, "groups": groups, **row, **own})
    return found


def _metrics(run: CrossValidation, results: Results) -> dict[str, float]:
    """Of the calibrated rewards; what is called uncalibrated is of the raw ones."""
    scored, raw = results.scored, results.others[BEFORE]
    found = evaluate(scored, bootstrap=run.samples, seed=run.seed)
    before = evaluate(replace(scored, reward=raw), bootstrap=run.samples, seed=run.seed)
    found |= {
        f"{key}_uncalibrated{end}": before[f"{key}{end}"]
        for key in PROBABILITIES
        for end in ENDS
        if f"{key}{end}" in before
    }
    won = scored.win_prob
    change = nll(scored.difference, won) - nll(raw[scored.first] - raw[scored.second], won)
    gain = cluster_mean(change, scored.pair_prompt, samples=run.samples, seed=run.seed)
    return found | {k: v for k, v in gain.keys("nll/minus_uncalibrated").items() if math.isfinite(v)}
