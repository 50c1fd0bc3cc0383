"""A benchmark in a report: every model on the benchmark's own files."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import rlhf.data.importers as importers
from rlhf.data.source import Source
from rlhf.evaluation.benchmarks import BenchmarkSection, llmbar, rewardbench, rewardbench2, rm_bench
from rlhf.evaluation.report.section import Evaluation
from rlhf.evaluation.score_pass import Pass, results_from
from rlhf.evaluation.score_source import Scores
from rlhf.labels.aggregation import soft

GOLDEN = Path(__file__).parent / "golden"


@dataclass
class Bracket:
    """Reads the reward in an answer's brackets, times `sign`; cannot read answers that hold `blind`."""

    name: str
    sign: float = 1.0
    blind: str = "nothing holds this"
    calibration = None

    def score(self, records):
        return [Scores.plain([self._one(c.text) for c in r.completions]) for r in records]

    def _one(self, text):
        return np.nan if self.blind in text else self.sign * float(re.match(r"\[(.*?)\]", text)[1])


def section(name, benchmark, importer, path, *models):
    source = Source(importer, path=str(GOLDEN / path))
    evaluation = Evaluation(models[0].name, None, 1.0, models=models, samples=50)
    return BenchmarkSection(name, benchmark, source)(evaluation)


ALL = [
    ("rewardbench", rewardbench, importers.rewardbench, "rewardbench.jsonl"),
    ("rewardbench2", rewardbench2, importers.rewardbench, "rewardbench2.jsonl"),
    ("rm_bench", rm_bench, importers.rm_bench, "rm_bench.json"),
    ("llmbar", llmbar, importers.llmbar_pairs, "LLMBar"),
]


@pytest.mark.parametrize(("name", "benchmark", "importer", "path"), ALL)
def test_every_model_and_the_longer_answer_stand_in_one_table(name, benchmark, importer, path):
    found = section(name, benchmark, importer, path, Bracket("one"), Bracket("two", -1.0))
    (table,) = found.tables
    assert table.columns == ["", "one", "ties count nothing", "two", "the longer answer"]
    score = "partial_score" if name == "rewardbench" else "score"  # its golden rows lack subsets
    assert table.rows[0][0] == score
    m = found.metrics
    assert {
        f"{name}/{score}",
        f"{name}/{score}/ci_low",
        f"others/two/{name}/{score}",
        f"baseline/length/{name}/{score}",
    } <= set(m)
    assert f"{m[f'{name}/{score}']:.3f}; the longer answer {m[f'baseline/length/{name}/{score}']:.3f}" in found.text
    assert not [row[0] for row in table.rows if row[0].startswith("n/")]
    assert len({row[0] for row in table.rows}) == len(table.rows)
    assert not [row[0] for row in table.rows if row[0].rpartition("/")[2] in ("strict", "n", "tie_rate")]


def test_a_model_and_its_opposite_add_up_to_one_where_pairs_are_compared():
    m = section(*ALL[3], Bracket("one"), Bracket("two", -1.0)).metrics
    assert m["llmbar/score"] + m["others/two/llmbar/score"] == pytest.approx(1)
    assert m["llmbar/natural"] == pytest.approx(2 / 3)


def test_rows_that_a_model_cannot_read_are_left_out_and_counted():
    found = section(*ALL[2], Bracket("one", blind="[5] right 1"))
    assert found.metrics["rm_bench/n_left_out"] == 1
    assert found.metrics["rm_bench/n"] == 5
    assert found.metrics["rm_bench/n_missing_domains"] == 1
    assert "rm_bench/score" not in found.metrics
    assert "no overall score. Without rows: code. The mean over what is there, " in found.text
    assert "1 rows are left out" in found.text
    with pytest.raises(ValueError, match="can read none of the 6 rows of rm_bench"):
        section(*ALL[2], Bracket("one", blind="["))


@pytest.mark.parametrize(("name", "benchmark", "importer", "path"), ALL)
def test_rewards_that_the_report_has_already_give_the_same(name, benchmark, importer, path):
    """The benchmark's rows as the evaluated data: nothing is scored twice."""
    source = Source(importer, path=str(GOLDEN / path))
    models = (Bracket("one"), Bracket("two", -1.0))
    one_pass = Pass(models[0], soft, others=models[1:])
    records = list(source.records())
    found = results_from(one_pass.entries(records, len(records)), ("one",))
    evaluation = Evaluation("one", found, 1.0, models=models, look_up=lambda n: {i: records[i] for i in n}, samples=50)
    scored = BenchmarkSection(name, benchmark, source)(evaluation).metrics
    assert BenchmarkSection(name, benchmark)(evaluation).metrics == pytest.approx(scored)


def test_evaluated_rows_with_unread_answers_are_left_out():
    source = Source(importers.rm_bench, path=str(GOLDEN / "rm_bench.json"))
    records = list(source.records())
    found = results_from(Pass(Bracket("one", blind="[5] right 1"), soft).entries(records, 6), ("one",))
    evaluation = Evaluation("one", found, 1.0, look_up=lambda n: {i: records[i] for i in n})
    m = BenchmarkSection("rm_bench", rm_bench)(evaluation).metrics
    assert (m["rm_bench/n"], m["rm_bench/n_left_out"]) == (5, 1)
