"""The loop over folds, from plain Python: complete, out of fold, and never done twice."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from rlhf.data.fold_split import FoldSplit
from rlhf.evaluation.crossvalidation import CrossValidation, FoldModel, crossvalidate
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.report.sections.accuracy import accuracy
from rlhf.evaluation.score_source import Scores
from rlhf.labels.aggregation import soft
from rlhf.records import Comparison, Completion, RecordError, Vote, prompt_hash

GROUPS, PROMPTS, ANSWERS = 6, 2, 4


def records():
    """Pair records: of 4 answers to each of 2 prompts in 6 groups, the one with more `good` wins."""
    found = []
    for group in range(GROUPS):
        for prompt in range(PROMPTS):
            answers = [Completion(f"c{n}", f"{'good ' * n}answer {n} to {prompt}") for n in range(ANSWERS)]
            for a in range(ANSWERS):
                for b in range(a):
                    both = (answers[a], answers[b])
                    votes = tuple(
                        Vote(f"w{n}", pair=(both[0].id, both[1].id), choice=both[n == 2].id) for n in range(3)
                    )
                    text = f"question {prompt} of group {group}"
                    meta = {"gold": both[0].id}
                    found.append(Comparison(text, text, both, votes, domain=f"d{group}", meta=meta))
    return found


class Stream:
    def __init__(self, kept):
        self.kept = kept

    def records(self):
        return iter(self.kept)


class Counts:
    """Scores an answer by its number of `good`, on the scale and from the origin of its fold."""

    def __init__(self, fold):
        self.name, self.fold, self.asked = "counts", fold, []
        scale, origin = fold + 1.0, 10.0 * fold
        self.calibration = Calibration(scale, origin, 1.0, 1, 1, "hash")

    def score(self, records):
        self.asked += records
        scale, origin = self.calibration.temperature, self.calibration.reward_mean
        return [Scores.plain([origin + scale * c.text.count("good") for c in r.completions]) for r in records]


class Folds:
    """`train`: knows every prompt outside the fold's test, and what it was asked to do."""

    def __init__(self, kept, leak=None, stop=None):
        self.kept, self.leak, self.stop, self.trained, self.models = kept, leak, stop, [], {}

    def __call__(self, fold, folder):
        if fold == self.stop:
            raise KeyboardInterrupt
        self.trained.append(fold)
        splitter = FoldSplit(k=3, key="domain", fold=fold)
        splitter.fit(self.kept)
        seen = {prompt_hash(r.prompt) for r in self.kept if splitter.split_of(r) != "test"}
        if fold == self.leak:
            seen.add(next(prompt_hash(r.prompt) for r in self.kept if splitter.split_of(r) == "test"))
        self.models[fold] = Counts(fold)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        return FoldModel(self.models[fold], seen, {"val/nll": 0.1 * fold, "val/x": 1.0})


def validation(folder, train, kept=None):
    return CrossValidation(
        folder, Stream(kept or records()), FoldSplit(k=3, key="domain"), train, soft, {"accuracy": accuracy}, samples=50
    )


def test_every_completion_is_scored_once_by_the_model_that_has_not_seen_its_group(tmp_path):
    train = Folds(records())
    report = crossvalidate(validation(tmp_path, train))
    asked = {fold: [(r.domain, r.prompt) for r in model.asked] for fold, model in train.models.items()}
    assert len({prompt for prompts in asked.values() for prompt in prompts}) == GROUPS * PROMPTS
    assert sum(map(len, asked.values())) == GROUPS * PROMPTS  # merged: 12 prompts, not 72 pairs
    groups = list(csv.DictReader((tmp_path / "groups.csv").open()))
    for row in groups:
        assert row["group"] in {domain for domain, _ in asked[int(row["fold"])]}
    m = report.metrics
    assert (m["n_pairs"], m["n_prompts"], m["n_clusters"], m["n_folds"]) == (72, 12, 6, 3)
    assert (m["pair_accuracy"], m["prompt/spearman"], m["gold/auc"]) == (1.0, 1.0, 1.0)
    assert m["lead/length"] == 0.0
    scores = [pq.read_table(tmp_path / "folds" / str(fold) / "scores.parquet") for fold in range(3)]
    assert sum(len(table) for table in scores) == GROUPS * PROMPTS * ANSWERS
    folds = list(csv.DictReader((tmp_path / "folds.csv").open()))
    assert [(int(r["fold"]), float(r["temperature"])) for r in folds] == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert json.loads((tmp_path / "report.json").read_text()) == m
    assert m["val/nll"] == pytest.approx(0.1)


def test_pooled_probabilities_are_those_of_each_fold_s_own_temperature(tmp_path):
    """A lead of n `good` is log-odds n in every fold, whatever its scale; two of three votes are for it."""
    m = crossvalidate(validation(tmp_path, Folds(records()))).metrics
    leads = np.array([1, 2, 1, 3, 2, 1])
    expected = np.logaddexp(0, -leads) + leads / 3
    assert m["nll"] == pytest.approx(expected.mean())
    raw = [np.logaddexp(0, -s * leads) + s * leads / 3 for s in (1, 2, 3)]
    assert m["nll_uncalibrated"] == pytest.approx(np.mean(raw))
    assert m["nll/minus_uncalibrated"] == pytest.approx(m["nll"] - m["nll_uncalibrated"])


def test_a_model_that_saw_a_prompt_of_its_test_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"fold 1: its model was trained.*1 prompts.*not out of fold"):
        crossvalidate(validation(tmp_path, Folds(records(), leak=1)))
    assert not (tmp_path / "folds" / "1" / "scores.parquet").exists()


def test_stopped_and_started_again_no_fold_is_trained_twice_and_the_report_is_the_same(tmp_path):
    whole = crossvalidate(validation(tmp_path / "whole", Folds(records()))).metrics
    with pytest.raises(KeyboardInterrupt):
        crossvalidate(validation(tmp_path / "parts", Folds(records(), stop=2)))
    assert not (tmp_path / "parts" / "folds" / "0" / "checkpoints" / "last.ckpt").exists()
    again = Folds(records())
    assert crossvalidate(validation(tmp_path / "parts", again)).metrics == whole
    assert again.trained == [2]
    idle = Folds(records())
    assert crossvalidate(validation(tmp_path / "parts", idle)).metrics == whole
    assert idle.trained == []


def test_data_that_changed_under_finished_folds_are_refused(tmp_path):
    crossvalidate(validation(tmp_path, Folds(records())))
    kept = records()
    changed = Completion("c1", "another answer")
    both = (kept[0].completions[0], changed)
    kept[0] = Comparison(
        kept[0].prompt_id, kept[0].prompt, both, (Vote("w", pair=(both[0].id, "c1"), choice="c1"),), kept[0].domain
    )
    with pytest.raises(RecordError, match=r"has no score of an answer.*start a new run"):
        crossvalidate(validation(tmp_path, Folds(kept), kept))
