"""Every number of a report has its interval: what the cheap ones are compared with is resampling it all again."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import get_object
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf
from result_sets import results_of
from scipy.stats import spearmanr
from scored_sets import group, of_pairs, simulate
from sklearn.metrics import average_precision_score, roc_curve

import rlhf
from rlhf.assemble import CONF
from rlhf.evaluation.metrics.metrics import evaluate, worst_slice
from rlhf.evaluation.metrics.ood import detection
from rlhf.evaluation.metrics.ranking import spearman_influence
from rlhf.evaluation.metrics.scored import Scored
from rlhf.evaluation.metrics.selective import accuracy_at, area, selective_intervals
from rlhf.evaluation.report.section import Evaluation, flat, ranged
from rlhf.evaluation.report.sections.accuracy import accuracy, slices
from rlhf.evaluation.report.sections.calibration import selective
from rlhf.evaluation.report.sections.ensemble_members import comparison
from rlhf.evaluation.report.sections.ensemble_members import members as of_members
from rlhf.stats.bootstrap import lowest_interval

COUNTS = ("n_", "temperature", "members/n", "best_of_n/n_")
"""Begin counts and what was given."""
NO_INTERVAL = ("/p", "_p", "/kl_bound", "/r2", "by_chance", "/base_rate", "/n", "/n_pairs", "/largest", "/temperature")
"""Tests, formulas, descriptions of the mean curve, an expectation, counts, a maximum."""


def clusters(rng, prompts=60, k=4):
    """Rewards that know something, votes of three annotators, two domains, gold, members."""
    groups = []
    for number in range(prompts):
        truth = rng.normal(size=k)
        chance = 1 / (1 + np.exp(truth[None] - truth[:, None]))
        wins = rng.binomial(3, chance) / 3
        groups.append(group(truth + rng.normal(size=k), wins, prompt=str(number), domain="ab"[number % 2],
                            length=rng.integers(1, 100, k), rank=np.argsort(np.argsort(-truth)), votes=3))  # fmt: skip
    return Scored.from_groups(groups)


def report(seed=0):
    rng = np.random.default_rng(seed)
    scored = clusters(rng, k=8)
    members = scored.reward + rng.normal(size=(3, len(scored.reward)))
    ood_scores = {"mahalanobis": rng.normal(size=len(scored.reward)) ** 2}
    others = {"other": rng.normal(size=len(scored.reward))}
    results = results_of(scored, members=members, ood_scores=ood_scores, others=others)
    results = replace(results, gold=scored.reward + rng.normal(size=len(scored.reward)))
    shifted = replace(results, ood_scores={"mahalanobis": ood_scores["mahalanobis"] + 1})
    evaluation = Evaluation(
        "model",
        results,
        2.0,
        evaluate(scored, temperature=2.0, bootstrap=60),
        shifts={"far": shifted},
        probes={"filler": results},
        samples=60,
    )
    named = OmegaConf.load(CONF / "evaluate.yaml").sections
    made = [get_object(section._target_)(evaluation) for section in named.values()]
    return flat([section for section in made if section is not None])


def test_every_number_of_a_report_has_an_interval_around_it():
    found = report()
    bare = [
        key for key in found
        if not key.endswith(("/ci_low", "/ci_high", *NO_INTERVAL)) and not key.startswith(COUNTS)
        and "/n_pairs/" not in key and f"{key}/ci_low" not in found
    ]  # fmt: skip
    assert bare == []
    ends = [key.removesuffix("/ci_low") for key in found if key.endswith("/ci_low")]
    assert len(ends) > 100
    assert all(found[f"{key}/ci_low"] <= found[f"{key}/ci_high"] for key in ends)
    outside = [k for k in ends if not found[f"{k}/ci_low"] - 1e-9 <= found[k] <= found[f"{k}/ci_high"] + 1e-9]
    assert len(outside) <= 2, outside  # a resampled statistic may have a bias
    for key in (
        "pair_accuracy/longer_won", "ceiling/annotators", "ece/adaptive", "ece_uncalibrated", "baseline/majority",
        "pair_accuracy/worst_domain", "pair_accuracy/worst_part", "selective/margin/aurc", "reward/std_between",
        "ood/far/mahalanobis/aupr", "ood/far/mahalanobis/fpr95", "best_of_n/gold/alpha", "members/split",
    ):  # fmt: skip
        assert found[f"{key}/ci_low"] < found[f"{key}/ci_high"], key


def test_the_schema_wants_both_ends_of_an_interval():
    schema = json.loads(
        (Path(rlhf.__file__).parent / "evaluation" / "report" / "templates" / "report.schema.json").read_text()
    )
    found = report(1)
    validator = Draft202012Validator(schema)
    assert not [e.message for e in validator.iter_errors(found)]
    for key in ("ece/adaptive", "ceiling/annotators", "pair_accuracy/worst_domain"):
        half = {k: v for k, v in found.items() if k != f"{key}/ci_high"}
        assert [e for e in validator.iter_errors(half) if key in e.message]
    assert list(validator.iter_errors(found | {"selective/margin/aurc/ci_low": -0.1}))


@pytest.mark.parametrize(
    "key", ["surprise", "pair_accuracy/mood", "pair_accuracy/margin/2._0.22_to_0.36", "n_pairs/length/1._22_to_52",
            "model/a/b/nll", "model/a/loss", "ood/far/mahalanobis/auroc/ci_mid", "ece/by_luck", "members/gains"]
)  # fmt: skip
def test_the_schema_refuses_a_key_of_no_family(key):
    schema = json.loads(
        (Path(rlhf.__file__).parent / "evaluation" / "report" / "templates" / "report.schema.json").read_text()
    )
    found = report(1)
    (error,) = Draft202012Validator(schema).iter_errors(found | {key: 0.5})
    assert key in error.message
    own = f"own/{key}"
    assert not list(Draft202012Validator(schema).iter_errors(found | {own: 0.5}))


def test_answers_of_one_length_have_no_correlation_with_it_and_no_interval_of_one():
    scored = clusters(np.random.default_rng(0), k=3)
    found = evaluate(replace(scored, length=np.full(len(scored.length), 9.0)), bootstrap=20)
    assert not [key for key in found if key.startswith("length/spearman_pooled")]


def test_no_share_of_a_perfect_model_has_an_interval_without_width():
    truth = np.arange(6.0)
    scored = Scored.from_groups(
        [group([d + 1, 0.0], 1.0, prompt=f"{d}", length=[20, 10], rank=[0, 1], votes=3) for d in truth]
    )
    results = results_of(scored, members=np.stack([scored.reward, 2 * scored.reward]))
    evaluation = Evaluation("m", results, 1.0, evaluate(scored, bootstrap=50), probes={"swapped": results},
                    shifts={"far": replace(results, prompt_hash=[f"x{i}" for i in range(6)])}, samples=50)  # fmt: skip
    named = OmegaConf.load(CONF / "evaluate.yaml").sections
    found = flat([s for section in named.values() if (s := get_object(section._target_)(evaluation)) is not None])
    for key in ("pair_accuracy", "baseline/length", "baseline/majority", "top1"):
        assert found[key] == 1.0
        ends = found.get(f"{key}/ci_low"), found.get(f"{key}/ci_high")
        assert ends == pytest.approx((0.5407, 1.0), abs=1e-4), key
    assert found["spearman/ci_low"] == pytest.approx(0.0814, abs=1e-4)  # -1 is possible: 1 - 2 (1 - 0.5407)
    endless = r"(nll|brier|ece|reward/(mean|std)|best_of_n|model/[^/]+/(nll|brier|ece)|ood/far/(nll|ece|reward/mean)).*"
    endless = re.compile(rf"{endless}|.*/(effect|nll)/ci_low")  # no shares, or intervals of another kind
    for key, low in found.items():
        if key.endswith("/ci_low") and not endless.fullmatch(key):
            assert low < found[key.replace("ci_low", "ci_high")], key


def test_one_statistic_of_the_same_pairs_has_one_interval_wherever_it_stands():
    """Some prompts have even votes only: they carry no accuracy, but are drawn like the others."""
    rng = np.random.default_rng(5)
    groups = [
        group(rng.normal(size=3), 0.5 if i % 5 == 0 else rng.integers(0, 4, (3, 3)) / 3, prompt=str(i),
              length=rng.integers(1, 99, 3), domain="d", votes=3)
        for i in range(60)
    ]  # fmt: skip
    scored = Scored.from_groups(groups)
    assert 0 < evaluate(scored, bootstrap=0)["n_gold_ties"] < len(scored.first)
    members = scored.reward + rng.normal(size=(2, len(scored.reward)))
    others = {"bag of words": rng.normal(size=len(scored.reward))}
    results = results_of(scored, members=members, others=others)
    evaluation = Evaluation("m", results, 1.0, evaluate(scored, bootstrap=80), samples=80)
    made = {f.__name__: f(evaluation) for f in (accuracy, slices, selective, comparison, of_members)}
    found = flat([section for section in made.values() if section is not None])
    for one, other in (
        ("pair_accuracy", "model/m/pair_accuracy"),
        ("baseline/bag_of_words", "model/bag_of_words/pair_accuracy"),
        ("members/m0/pair_accuracy", "model/m0/pair_accuracy"),
    ):
        for end in ("", "/ci_low", "/ci_high"):
            assert found[f"{one}{end}"] == pytest.approx(found[f"{other}{end}"], abs=1e-12), (one, end)
    shown = ranged(*(found[f"pair_accuracy{end}"] for end in ("", "/ci_low", "/ci_high")))
    assert made["selective"].tables[0].rows[0][2] == shown  # 100 % answered
    assert made["members"].tables[0].rows[2][1] == shown


def test_two_sets_with_other_lengths_and_margins_have_the_same_keys():
    def keys(scale):
        scored = clusters(np.random.default_rng(0), k=3)
        scored = replace(scored, length=scale * scored.length, reward=scale * scored.reward)
        evaluation = Evaluation("m", results_of(scored), 1.0, evaluate(scored, bootstrap=20), samples=20)
        return slices(evaluation)

    one, other = keys(1.0), keys(7.3)
    assert set(one.metrics) == set(other.metrics)
    wanted = {f"margin/{i}_of_5" for i in range(1, 6)} | {f"length/{i}_of_4" for i in range(1, 5)}
    assert wanted <= {key.removeprefix("n_pairs/") for key in one.metrics}
    labels = [{row[0] for table in section.tables for row in table.rows} for section in (one, other)]
    assert labels[0] != labels[1]  # the bounds stand on the page


def again(values, cluster, statistic, rng, times=400):
    """Percentiles of a statistic over drawn clusters, the slow way: rows of the drawn ones, one after the other."""
    names = np.unique(cluster)
    rows = [np.flatnonzero(cluster == c) for c in names]
    drawn = []
    for _ in range(times):
        taken = np.concatenate([rows[i] for i in rng.integers(0, len(names), len(names))])
        drawn.append(statistic(*(v[taken] for v in values)))
    return np.quantile(drawn, [0.025, 0.975])


@pytest.mark.parametrize("ties", [False, True])
def test_intervals_of_coverage_curves_are_those_of_resampling_every_pair(ties):
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(100), 6)
    confidence = np.abs(rng.normal(size=600)) + np.repeat(rng.random(100), 6)
    confidence = confidence.round(0) if ties else confidence
    right = (rng.random(600) < 1 / (1 + np.exp(-confidence))).astype(float)
    whole, (half,) = selective_intervals(confidence, right, cluster, [0.5], samples=400, seed=0)
    width = np.diff(again((confidence, right), cluster, area, rng))[0]
    assert whole.high - whole.low == pytest.approx(width, rel=0.2)
    assert whole.low < area(confidence, right) < whole.high
    assert whole.value == area(confidence, right)
    if not ties:
        slow = again((confidence, right), cluster, lambda c, r: accuracy_at(c, r, 0.5), rng)
        assert half.high - half.low == pytest.approx(np.diff(slow)[0], rel=0.2)
        np.testing.assert_allclose(half[1:], slow, atol=0.015)


def test_intervals_of_detection_rates_are_those_of_resampling_every_answer():
    rng = np.random.default_rng(1)
    ordinary, shifted = rng.normal(size=300), rng.normal(1.5, 1, size=300)
    prompt = np.repeat(np.arange(100), 3)
    found = detection(ordinary, shifted, (prompt, prompt), samples=400, seed=0)
    scores, truth = np.concatenate([ordinary, shifted]), np.repeat([0, 1], 300)

    def fpr95(s, t):
        false, caught, _ = roc_curve(t, s, drop_intermediate=False)
        return false[caught >= 0.95].min()

    both = np.concatenate([prompt, prompt])
    aupr = again((scores, truth), both, lambda s, t: average_precision_score(t, s), rng)
    np.testing.assert_allclose(found.aupr[1:], aupr, atol=0.015)
    np.testing.assert_allclose(found.fpr95[1:], again((scores, truth), both, fpr95, rng), atol=0.06)
    alone = detection(ordinary, shifted, (prompt, prompt))
    assert np.isnan(alone.aupr[1:]).all()
    assert alone.aupr.value == found.aupr.value


@pytest.mark.parametrize("round_to", [8, 0])
def test_the_influence_on_a_rank_correlation_is_its_derivative(round_to):
    rng = np.random.default_rng(2)
    a = rng.normal(size=200).round(round_to)
    b = (a + rng.normal(size=200)).round(round_to)
    rho, influence = spearman_influence(a, b)
    assert rho == pytest.approx(spearmanr(a, b).statistic)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    copies = 30  # one entry is there once more among 30 copies of the set: a small change of its weight
    for i in (0, 57, 199):
        more = spearmanr(np.append(np.tile(a, copies), a[i]), np.append(np.tile(b, copies), b[i])).statistic
        assert (more - rho) * (200 * copies + 1) == pytest.approx(influence[i], abs=0.01)
    assert np.isnan(spearman_influence(a, np.ones(200))[0])


def test_the_interval_of_the_worst_of_equal_parts_holds_the_truth_and_resampled_minima_do_not():
    rng = np.random.default_rng(3)
    held = naive = 0
    for _ in range(200):
        sums = rng.binomial(100, 0.7, size=8) / 100
        drawn = rng.binomial(100, sums, size=(200, 8)) / 100
        low, high = lowest_interval(np.vstack([sums, drawn]), np.ones((201, 8)), 1000)
        held += low <= 0.7 <= high
        naive += np.quantile(drawn.min(1), 0.025) <= 0.7 <= np.quantile(drawn.min(1), 0.975)
    assert held >= 190
    assert naive < 60


def test_a_slice_of_one_prompt_leaves_the_worst_slice_without_an_interval():
    right, part = np.array([1.0, 0.0, 1.0, 0.0, np.nan]), np.array([0, 0, 1, 1, 1])
    known = worst_slice([(right, part)], np.array([0, 1, 2, 3, 4]), samples=50, seed=0)
    assert known[0] <= 0.5 <= known[1]
    assert np.isnan(worst_slice([(right, part)], np.array([0, 1, 2, 2, 4]), samples=50, seed=0)).all()
    assert np.isnan(worst_slice([(right, np.zeros(5, int))], np.arange(5), samples=50, seed=0)).all()


def test_accuracies_by_the_better_answers_length_have_the_intervals_of_their_own_pairs():
    scored = simulate(200, 3, np.random.default_rng(4), scale=0.7)
    found = evaluate(scored, bootstrap=1000)
    right = (scored.difference > 0) == (scored.win_prob > 0.5)
    longer = np.sign(scored.win_prob - 0.5) == np.sign(scored.longer)
    assert found["pair_accuracy/longer_won"] == pytest.approx(right[longer].mean())
    alone = of_pairs(scored.difference[longer], scored.win_prob[longer], scored.pair_prompt[longer])
    slow = evaluate(alone, bootstrap=1000)
    for end in ("ci_low", "ci_high"):
        assert found[f"pair_accuracy/longer_won/{end}"] == pytest.approx(slow[f"pair_accuracy/{end}"], abs=0.01)
