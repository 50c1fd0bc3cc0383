"""Accuracy, proper scores and baselines against closed forms and independent libraries."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scored_sets import group, of_pairs, pair, ranked, simulate, swapped
from sklearn.metrics import brier_score_loss, log_loss

from rlhf.evaluation.metrics.metrics import by_group, evaluate, pair_metrics
from rlhf.evaluation.metrics.scored import Scored


def annotator_ceiling(scored):
    return pair_metrics(scored, 1.0).get("ceiling/annotators")


RIGHT, WRONG = pair(1, 0, 1, 0, 0), pair(0, 1, 1, 0, 0)
CONTRACT = (
    "pair_accuracy", "pair_accuracy/ci_low", "pair_accuracy/ci_high", "pair_accuracy/longer_won",
    "pair_accuracy/shorter_won", "pair_accuracy/minus_length", "pair_accuracy/minus_length/ci_low",
    "pair_accuracy/minus_length/ci_high", "baseline/length", "baseline/majority", "nll", "nll/ci_low",
    "nll/ci_high", "brier", "brier/ci_low", "brier/ci_high", "ece", "ece/ci_low", "ece/ci_high", "ece/adaptive",
    "ece_uncalibrated", "temperature", "spearman", "kendall", "n_rank_undefined", "top1", "length/spearman",
    "length/spearman_pooled", "n_pairs", "n_prompts", "n_groups", "n_gold_ties", "reward/mean", "reward/std",
    "reward/std_within", "reward/tie_rate",
)  # fmt: skip


def of(*groups, **kwargs):
    return evaluate(Scored.from_groups(groups), **{"bootstrap": 0} | kwargs)


def test_every_key_of_the_contract_is_there():
    found = evaluate(simulate(20, 3, np.random.default_rng(0)), bootstrap=50)
    assert [key for key in CONTRACT if key not in found] == []
    assert "ceiling/annotators" in of(pair(1, 0, 2, 0, 1))


# ----------------------------------------------------------------------------------------------- accuracy


def test_equal_rewards_get_half_the_credit_and_gold_ties_none():
    found = of(RIGHT, pair(0, 0, 1, 0, 0), WRONG, pair(5, 0, 1, 0, 1), pair(5, 0, 0, 2, 0))
    assert found["pair_accuracy"] == 0.5
    assert found["n_gold_ties"] == 2
    assert found["n_pairs"] == 5
    assert found["reward/tie_rate"] == 0.2


def test_the_right_answer_is_the_direction_of_the_votes_ties_counting_half():
    assert of(pair(1, 0, 2, 0, 1), pair(1, 0, 1, 3, 0), pair(1, 0, 0, 2, 1))["pair_accuracy"] == pytest.approx(2 / 3)


def test_accuracy_is_over_pairs_not_over_batches():
    """65 pairs in batches of 64 and 1: the mean of batch means would be (1 + 0) / 2."""
    assert of(*[RIGHT] * 64, WRONG)["pair_accuracy"] == pytest.approx(64 / 65)
    assert np.mean([of(*[RIGHT] * 64)["pair_accuracy"], of(WRONG)["pair_accuracy"]]) == 0.5


def test_pairs_of_large_groups_count_each_like_a_pair_alone():
    win = np.triu(np.ones((4, 4)), 1)
    found = of(group([4, 3, 2, 1], win), WRONG, WRONG)
    assert found["pair_accuracy"] == pytest.approx(6 / 8)
    parts = of(group([4, 3, 2, 1], win), WRONG), of(WRONG)
    whole = sum(p["nll"] * p["n_pairs"] for p in parts) / 8
    assert found["nll"] == pytest.approx(whole)


def test_length_stands_beside_the_model():
    groups = [
        pair(1, 0, 1, 0, 0, length=(9, 1)), pair(1, 0, 1, 0, 0, length=(9, 1)), pair(0, 1, 1, 0, 0, length=(1, 9)),
        pair(1, 0, 0, 0, 1, length=(2, 2)), pair(1, 0, 1, 0, 1, length=(2, 9)),
    ]  # fmt: skip
    found = of(*groups)
    assert found["baseline/length"] == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert found["pair_accuracy/longer_won"] == 1
    assert found["pair_accuracy/shorter_won"] == 0
    assert (found["n_longer_won"], found["n_shorter_won"]) == (2, 1)
    assert found["pair_accuracy/minus_length"] == pytest.approx(0.5 - 2.5 / 4)


@pytest.mark.parametrize(("firsts", "seconds", "best"), [(3, 1, 0.75), (1, 3, 0.75), (2, 2, 0.5), (4, 0, 1.0)])
def test_the_majority_baseline_is_the_better_constant_side(firsts, seconds, best):
    groups = [pair(0, 1, 1, 0, 0)] * firsts + [pair(0, 1, 0, 0, 1)] * seconds + [pair(0, 1, 1, 0, 1)]
    assert of(*groups)["baseline/majority"] == best


def test_slices_are_scored_apart_and_make_up_the_whole():
    groups = [
        pair(1, 0, 1, 0, 0, domain="a"), pair(0, 1, 1, 0, 0, domain="b"), pair(1, 0, 1, 0, 0, domain="b"),
        pair(1, 0, 1, 0, 0), pair(1, 0, 1, 0, 1, domain="even"),
    ]  # fmt: skip
    found = of(*groups)
    assert (found["pair_accuracy/domain/a"], found["pair_accuracy/domain/b"]) == (1, 0.5)
    assert (found["n_pairs/domain/a"], found["n_pairs/domain/b"]) == (1, 2)
    assert found["pair_accuracy/worst_domain"] == 0.5
    assert not any("even" in key or "None" in key for key in found)
    only = by_group(Scored.from_groups(groups), ["x", "x", None, "x", "y"], name="source")
    assert only == {"pair_accuracy/source/x": pytest.approx(2 / 3), "n_pairs/source/x": 3}


# -------------------------------------------------------------------------------------------- the ceiling


def brute_force_ceiling(counts):
    """Every vote of every pair held out in turn; each pair has the same weight, however many votes it got."""
    agreed = decided = 0.0
    for wins, ties, losses in counts:
        votes = [1] * wins + [0] * ties + [-1] * losses
        for i, vote in enumerate(votes):
            others = sum(votes[:i] + votes[i + 1 :])
            if len(votes) >= 2 and others:
                agreed += (0.5 if vote == 0 else float(vote == np.sign(others))) / len(votes)
                decided += 1 / len(votes)
    return agreed / decided


def test_the_ceiling_is_one_vote_against_the_majority_of_the_others():
    counts = [c for c in itertools.product(range(4), repeat=3) if sum(c)]
    scored = Scored.from_groups(pair(0, 0, *c) for c in counts)
    assert annotator_ceiling(scored) == pytest.approx(brute_force_ceiling(counts))
    single = replace(scored, win_prob=scored.win_prob.astype(np.float32), tie_prob=scored.tie_prob.astype(np.float32))
    assert annotator_ceiling(single) == pytest.approx(brute_force_ceiling(counts))


@pytest.mark.parametrize("votes", [3, 6])
def test_the_ceiling_is_unbiased_for_annotators_of_known_reliability(votes):
    """With V votes, each right with probability q, it must be P(right side leads the others, and so on), exactly.

    P = Σ_w Bin(w; V-1, q) [w > V-1-w] q + [w < V-1-w] (1-q), given that the others are not even.
    """
    from scipy.stats import binom

    q, n = 0.7, 40_000
    wins = np.random.default_rng(votes).binomial(votes, q, n)
    scored = replace(of_pairs(np.zeros(n), wins / votes), votes=np.full(n, float(votes)))
    w = np.arange(votes)
    chance, lead = binom.pmf(w, votes - 1, q), 2 * w - (votes - 1)
    expected = (chance * (q * (lead > 0) + (1 - q) * (lead < 0))).sum() / chance[lead != 0].sum()
    assert annotator_ceiling(scored) == pytest.approx(expected, abs=0.006)


def test_there_is_no_ceiling_where_the_shares_do_not_show_how_annotators_differed():
    once = [pair(0, 0, 1, 0, 0), pair(0, 0, 0, 0, 1)]
    hard = [group([0, 0], 1.0, votes=5), group([0, 0], 0.5, tie_prob=1.0, votes=4)]
    smoothed = [group([0, 0], (2 + 0.5) / (3 + 1), votes=3), group([0, 0], 0.5, votes=2)]
    for groups in (once, hard, smoothed):
        assert annotator_ceiling(Scored.from_groups(groups)) is None
        assert "ceiling/annotators" not in of(*groups)


# ------------------------------------------------------------------------------------------ probabilities


def test_nll_and_brier_are_those_of_scikit_learn():
    scored = simulate(50, 4, np.random.default_rng(0))
    found = evaluate(scored, temperature=1.7, bootstrap=0)
    p = expit(scored.difference / 1.7)
    assert found["nll"] == pytest.approx(log_loss(scored.win_prob, p))
    assert found["brier"] == pytest.approx(brier_score_loss(scored.win_prob, p))


def test_soft_labels_are_the_votes_one_by_one():
    """A pair with 3 votes for and 1 against has the NLL of four pairs with one vote each."""
    many = of(pair(0.7, 0, 3, 0, 1))
    single = of(*[pair(0.7, 0, 1, 0, 0)] * 3, pair(0.7, 0, 0, 0, 1))
    assert many["nll"] == pytest.approx(single["nll"])


def test_no_model_has_a_lower_nll_than_the_entropy_of_the_votes_and_the_shares_themselves_reach_it():
    share = np.array([0.1, 0.5, 0.9, 2 / 3])
    perfect = evaluate(of_pairs(np.log(share / (1 - share)), share), bootstrap=0)
    assert perfect["nll"] == pytest.approx(perfect["nll/votes_entropy"])
    assert perfect["brier"] == pytest.approx(0)
    assert perfect["ece"] == pytest.approx(0)
    assert evaluate(of_pairs(np.ones(4), share), bootstrap=0)["nll"] > perfect["nll"]


def test_the_temperature_leaves_accuracy_and_ranks_alone():
    scored = simulate(40, 4, np.random.default_rng(1), scale=3)
    one, cooled = (evaluate(scored, temperature=t, bootstrap=0) for t in (1.0, 3.0))
    changed = {key for key in one if one[key] != cooled[key]}
    assert changed == {"temperature", "nll", "brier", "ece", "ece/adaptive", "nll/minus_uncalibrated"}
    assert cooled["ece_uncalibrated"] == one["ece"] > cooled["ece"]
    assert cooled["nll_uncalibrated"] == one["nll"] > cooled["nll"]


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_that_cannot_be_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        evaluate(of_pairs([1.0], [1.0]), temperature=temperature)


def test_swapping_the_sides_changes_nothing():
    scored = simulate(60, 3, np.random.default_rng(2))
    one, two = (evaluate(s, temperature=2.0, bootstrap=200) for s in (scored, swapped(scored)))
    assert one.keys() == two.keys()
    for key in one:
        assert one[key] == pytest.approx(two[key], abs=1e-9), key


# ---------------------------------------------------------------------------------------- rewards and rest


def test_the_spread_inside_groups_forgets_the_level_of_each_prompt():
    """Groups (0, 2) and (100, 104, 108): squares 2 + 32 over 1 + 2 degrees of freedom."""
    found = of(pair(0, 2, 1, 0, 0), group([100, 104, 108], 1.0))
    assert found["reward/std_within"] == pytest.approx(np.sqrt(34 / 3))
    assert found["reward/mean"] == pytest.approx(314 / 5)
    assert found["reward/std"] == pytest.approx(np.std([0, 2, 100, 104, 108]))


def test_intervals_resample_prompts_not_groups_or_pairs():
    """Each prompt's 8 pairs share one outcome: as many prompts as an eighth of the pairs, intervals sqrt(8) wider."""
    rng = np.random.default_rng(0)
    sign = np.repeat(rng.choice([-1.0, 1.0], 100), 8)
    together = evaluate(of_pairs(sign, np.ones(800), np.repeat(np.arange(100), 8)), bootstrap=2000)
    apart = evaluate(of_pairs(sign, np.ones(800)), bootstrap=2000)
    assert (together["n_prompts"], apart["n_prompts"]) == (100, 800)
    for key in ("pair_accuracy", "nll", "brier"):
        wide, narrow = (m[f"{key}/ci_high"] - m[f"{key}/ci_low"] for m in (together, apart))
        assert wide / narrow == pytest.approx(np.sqrt(8), rel=0.1), key


def test_intervals_hold_their_estimate_and_repeat_with_the_seed():
    scored = simulate(80, 3, np.random.default_rng(3))
    found, again, other = (evaluate(scored, bootstrap=300, seed=s) for s in (1, 1, 2))
    assert found == again
    assert found["nll/ci_low"] != other["nll/ci_low"]
    for key in ("pair_accuracy", "pair_accuracy/minus_length", "nll", "brier", "ece"):
        assert found[f"{key}/ci_low"] <= found[key] <= found[f"{key}/ci_high"]


def test_the_lead_over_length_is_paired():
    """A model that copies the lengths leads by 0 on every prompt; 50 prompts show no more than that few differ."""
    scored = simulate(50, 3, np.random.default_rng(4))
    found = evaluate(replace(scored, reward=scored.length), bootstrap=200)
    assert found["pair_accuracy/minus_length"] == 0
    beyond = 1 - 0.025 ** (1 / 50)
    assert found["pair_accuracy/minus_length/ci_high"] == pytest.approx(beyond)
    assert found["pair_accuracy/minus_length/ci_low"] == pytest.approx(-beyond)
    assert found["pair_accuracy/ci_low"] < found["pair_accuracy/ci_high"]


def test_one_prompt_has_no_interval():
    found = of(*[RIGHT] * 5, WRONG, bootstrap=50)
    assert found["n_prompts"] == 1
    assert not any("/ci_" in key for key in found)


@pytest.mark.parametrize(
    "groups",
    [
        [], [pair(0, 0, 0, 3, 0)], [pair(1, 0, 1, 0, 0)], [ranked([1, 1], [0, 0])], [pair(1e6, -1e6, 0, 0, 1)],
        [pair(1, 0, 0, 1, 0), pair(1, 0, 1, 0, 1, prompt="q")],
        [ranked([1, 1, 1], [0, 1, 2]), ranked([1, 2, 3], [-1, -1, -1], prompt="q")],
        [group([1.0], 0.5, rank=[0])],
    ],
)  # fmt: skip
def test_degenerate_sets_give_finite_numbers_or_no_key(groups):
    json.dumps(of(*groups, bootstrap=20), allow_nan=False)


def test_a_hundred_thousand_pairs_fit():
    some = [pair(a, 0, 1, 0, 0, prompt=str(i)) for i, a in enumerate(np.random.default_rng(0).normal(size=1000))]
    found = evaluate(Scored.from_groups(some * 100), bootstrap=1000)
    assert (found["n_pairs"], found["n_prompts"]) == (100_000, 1000)
    assert found["pair_accuracy/ci_low"] < found["pair_accuracy"] < found["pair_accuracy/ci_high"]
