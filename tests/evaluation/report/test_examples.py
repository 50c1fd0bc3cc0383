"""Scores read back from Parquet: the report they came from, and files that anybody can write."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from result_sets import results_of
from scipy.stats import rankdata
from scored_sets import simulate

from rlhf.evaluation.report.examples import ranks, read_examples, write_examples
from rlhf.evaluation.report.section import Evaluation
from rlhf.evaluation.report.sections.accuracy import accuracy, slices
from rlhf.evaluation.report.sections.best_of_n import best_of_n
from rlhf.evaluation.report.sections.bias import bias
from rlhf.evaluation.report.sections.calibration import calibration, selective
from rlhf.evaluation.report.sections.ensemble_members import comparison, members
from rlhf.evaluation.report.sections.rankings import rankings, rewards
from rlhf.evaluation.report.write import write_report
from rlhf.evaluation.run import EvaluationRun
from rlhf.evaluation.score_pass import Pass
from rlhf.evaluation.score_source import Ensemble, Scores
from rlhf.labels.aggregation import soft
from rlhf.records import RecordError
from rlhf.toy.world import ToyWorld

SECTIONS = {f.__name__: f for f in (accuracy, slices, rankings, calibration, selective, comparison, members, bias,
                                    rewards, best_of_n)}  # fmt: skip


class Noisy:
    """Gold and a little of the length; its out-of-distribution score is how many letters an answer has."""

    calibration = None

    def __init__(self, name, share):
        self.name, self.share = name, share

    def score(self, records):
        out = []
        for r in records:
            reward = np.array([c.meta["gold"] + self.share * len(c.text) for c in r.completions])
            ood_scores = {"mahalanobis": np.array([float(len(set(c.text))) for c in r.completions])}
            out.append(Scores(reward, reward[None], np.arange(len(reward)) + 7.0, ood_scores=ood_scores))
        return out


class Whole:
    """Toy records in which every answer was compared: an answer in no labelled pair is not in the file."""

    def records(self):
        return (r for r in ToyWorld(size=80).records() if soft(r).observed.any(1).all())


@pytest.mark.slow
def test_the_report_of_the_scores_is_byte_for_byte_the_report_they_come_from(tmp_path):
    world = Whole()
    set_of_runs = Ensemble([Noisy("a", 0.01), Noisy("b", -0.02)])
    more = [Noisy("bag of words", 0.1)]
    scoring = Pass(set_of_runs, soft, more, block=16)
    evaluation_run = EvaluationRun(tmp_path / "live", scoring, world, ("a", "b"), SECTIONS, about="x", samples=50)
    live = evaluation_run()
    evaluation = read_examples(tmp_path / "live" / "examples.parquet", samples=50)
    found = [section for make in SECTIONS.values() if (section := make(evaluation)) is not None]
    assert len(found) == len(SECTIONS)
    write_report(tmp_path / "again", evaluation, found, "x")
    for name in ("report.json", "report.html", "examples.parquet"):
        assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    before, after = live.evaluation.results, evaluation.results
    for column in ("record", "place", "source", "annotators", "tokens", "trimmed", "finished", "gold", "members"):
        np.testing.assert_array_equal(getattr(before, column), getattr(after, column))
    for column in ("group", "reward", "length", "rank", "prompt", "domain", "first", "second", "win_prob", "votes"):
        np.testing.assert_array_equal(getattr(before.scored, column), getattr(after.scored, column))
    assert (before.sources, before.annotator_sets, before.counts) == (after.sources, after.annotator_sets, after.counts)


def own(tmp_path, **columns):
    """Three pairs of two prompts by hand; columns replace or join."""
    table = {"prompt_id": ["p", "p", "q"], "reward_a": [2.0, 0.0, 1.0], "reward_b": [1.0, 1.0, 1.0],
             "win_prob": [1.0, 1.0, 0.0], "chars_a": [5, 9, 3], "chars_b": [4, 10, 8]}  # fmt: skip
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({k: v for k, v in (table | columns).items() if v is not None}), path)
    return path


def test_a_file_of_ones_own_needs_six_columns_and_further_models_are_compared(tmp_path):
    evaluation = read_examples(own(tmp_path, other_a=[1.0, 1.0, 0.0], other_b=[0.0, 0.0, 1.0]), samples=20)
    assert evaluation.name == "mine"
    assert evaluation.metrics["pair_accuracy"] == pytest.approx(0.5)  # right, wrong, tied
    assert evaluation.metrics["baseline/length"] == pytest.approx(2 / 3)
    assert (evaluation.metrics["n_pairs"], evaluation.metrics["n_prompts"]) == (3, 2)
    assert evaluation.uncalibrated == {"mine", "other"}
    found = comparison(evaluation).metrics
    assert found["model/other/pair_accuracy"] == 1.0
    assert found["compare/mine/other/accuracy"] == pytest.approx(-0.5)


def test_answers_of_a_record_are_one_group(tmp_path):
    path = own(tmp_path, record=[4, 4, 4], a=[0, 0, 1], b=[1, 2, 2], prompt_id=["p"] * 3, win_prob=[1.0, 1.0, 1.0],
               reward_a=[3.0, 3.0, 2.0], reward_b=[2.0, 1.0, 1.0], chars_a=[5, 5, 6], chars_b=[6, 7, 7])  # fmt: skip
    results = read_examples(path, samples=0).results
    assert results.scored.reward.tolist() == [3, 2, 1]
    assert results.scored.rank.tolist() == [0, 1, 2]
    assert (results.scored.first.tolist(), results.scored.second.tolist()) == ([0, 0, 1], [1, 2, 2])
    assert results.record.tolist() == [4]


def test_ranks_by_shares_are_those_of_scipy():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(50), 5)
    i, j = np.triu_indices(5, 1)
    first, second = ((np.arange(50)[:, None] * 5 + k).ravel() for k in (i, j))
    win_prob = rng.integers(0, 4, len(first)) / 3
    share = np.zeros((50, 5))
    for a, b, p in zip(first, second, win_prob, strict=True):
        share[a // 5, a % 5] += p / 4
        share[b // 5, b % 5] += (1 - p) / 4
    expected = rankdata(-share.round(9), method="dense", axis=1) - 1
    np.testing.assert_array_equal(ranks(group, first, second, win_prob).reshape(50, 5), expected)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 2], [1, 3], [0, 1, 0, 1]),  # two sets that nobody compared
        ([0, 1, 2], [1, 2, 3], [0, 1, 2, 3]),  # a chain
        ([0, 0, 0], [1, 2, 3], [-1] * 4),  # a star: the losers have no order
    ],
    ids=["disjoint", "chain", "star"],
)
def test_answers_are_ranked_as_far_as_votes_compare_them(tmp_path, first, second, expected):
    count = len(first)
    columns = {"a": first, "b": second, "win_prob": [1.0] * count, "prompt_id": ["p"] * count,
               "reward_a": [-float(a) for a in first], "reward_b": [-float(b) for b in second],
               "chars_a": [a + 1 for a in first], "chars_b": [b + 1 for b in second]}  # fmt: skip
    found = read_examples(own(tmp_path, record=[3] * count, **columns), samples=0)
    assert found.results.scored.rank.tolist() == expected
    assert found.metrics["spearman"] == 1


def test_rows_of_a_file_may_come_in_any_order(tmp_path):
    rng = np.random.default_rng(1)
    i, j = np.triu_indices(4, 1)
    a, b = np.tile(i, 6), np.tile(j, 6)
    record, keep = np.repeat(np.arange(6), 6), rng.random(36) < 0.7
    reward, chars = rng.normal(size=(6, 4)), rng.integers(5, 50, (6, 4))
    columns = {"record": record, "a": a, "b": b, "prompt_id": [f"p{r}" for r in record], "win_prob": rng.random(36),
               "reward_a": reward[record, a], "reward_b": reward[record, b],
               "chars_a": chars[record, a], "chars_b": chars[record, b]}  # fmt: skip
    orders = np.flatnonzero(keep), rng.permutation(np.flatnonzero(keep))
    one, other = (
        read_examples(own(tmp_path, **{name: np.array(values)[rows] for name, values in columns.items()}), samples=0)
        for rows in orders
    )
    assert one.metrics == pytest.approx(other.metrics, nan_ok=True)
    assert one.results.scored.rank.tolist() == other.results.scored.rank.tolist()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"reward_b": None}, "mine.parquet: key 'reward_b': missing"),
        ({"win_prob": [1.0, 1.5, 0.0]}, "row 1: key 'win_prob': is 1.5, not in 0..1"),
        ({"win_prob": [1.0, None, 0.0]}, "row 1: key 'win_prob': is missing or NaN"),
        ({"reward_a": ["good", "bad", "1"]}, "key 'reward_a': is not numbers"),
        ({"record": [0, 0, 1], "a": [0, 0, 0], "b": [1, 1, 1]}, "row 1: key 'reward_a': is not what it is in another"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, columns, message):
    with pytest.raises(RecordError, match=message):
        read_examples(own(tmp_path, **columns))


def test_no_file_and_another_kind_of_file(tmp_path):
    with pytest.raises(RecordError, match="no such file"):
        read_examples(tmp_path / "nothing.parquet")
    (tmp_path / "text.parquet").write_text("reward,1")
    with pytest.raises(RecordError, match="is not Parquet"):
        read_examples(tmp_path / "text.parquet")


def test_the_file_says_which_model_it_is_and_at_which_temperature(tmp_path):
    scored = simulate(10, 2, np.random.default_rng(0))
    written = Evaluation("model", results_of(scored), 2.5, samples=0)
    write_examples(tmp_path / "e.parquet", written)
    evaluation = read_examples(tmp_path / "e.parquet", samples=0)
    assert (evaluation.name, evaluation.temperature, evaluation.uncalibrated) == ("model", 2.5, frozenset())
    assert evaluation.metrics["temperature"] == 2.5


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("reward_b", float("nan"), "row 2: key 'reward_b': is missing or NaN, and 1 of 4 rows"),
        ("reward_a", float("inf"), "row 2: key 'reward_a': is inf, and 1 of 4 rows"),
        ("reward_a", None, "row 2: key 'reward_a': is missing or NaN"),
        ("chars_b", float("nan"), "row 2: key 'chars_b': is missing or NaN"),
        ("other_a", float("nan"), "row 2: key 'other_a': is missing or NaN"),
        ("win_prob", float("nan"), "row 2: key 'win_prob': is missing or NaN, not in 0..1"),
    ],
)
def test_a_number_that_is_none_is_told_with_file_row_column_and_remedy(tmp_path, column, value, said):
    names = ("reward_a", "reward_b", "win_prob", "chars_a", "chars_b", "other_a", "other_b")
    columns = {name: [0.5, 1.0, 0.25, 0.75] for name in names}
    columns[column][2] = value
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"prompt_id": ["a", "b", "c", "d"], **columns}), path)
    with pytest.raises(RecordError) as caught:
        read_examples(path)
    assert f"{path}:{said}" in str(caught.value)
    assert caught.value.remedy
