import inspect
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import get_object, instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rlhf.labels.aggregation import count, discard, majority, soft
from rlhf.records import Comparison, Completion, RecordError, Vote

AGGREGATIONS = [soft, majority, discard]
FOLDER = Path(__file__).parents[2] / "conf" / "aggregation"
OURS = ("discard", "majority", "soft")


def record(*votes, k=3):
    return Comparison("p", "question", tuple(Completion(f"c{i}", f"text {i}") for i in range(k)), votes)


def pair(i, j, choice, **other):
    """A vote on completions i and j: choice is i, j or "tie"."""
    choice = choice if choice == "tie" else f"c{choice}"
    return Vote("w", pair=(f"c{i}", f"c{j}"), choice=choice, **other)


def ranking(*groups, **other):
    return Vote("w", ranking=tuple(tuple(f"c{i}" for i in g) for g in groups), **other)


def likert(*ratings, **other):
    given_ratings = {f"c{i}": r for i, r in enumerate(ratings) if r is not None}
    return Vote("w", likert=given_ratings, **other)


@st.composite
def votes_on_four(draw):
    form = draw(st.sampled_from(["pair", "ranking", "likert"]))
    ids = draw(st.permutations(range(4)))
    if form == "pair":
        choice = draw(st.sampled_from([*ids[:2], "tie"]))
        return pair(*ids[:2], choice, margin=draw(st.sampled_from([0.0, 0.5, 2.0])))
    if form == "ranking":
        cut = draw(st.integers(1, 3))
        return ranking(ids[:cut], ids[cut : draw(st.integers(cut + 1, 4))])
    return likert(*draw(st.lists(st.sampled_from([None, 1.0, 2.0, 3.0]), min_size=4, max_size=4)))


RECORDS = st.lists(votes_on_four(), max_size=6).map(lambda votes: record(*votes, k=4))


def reordered(rec, order):
    return replace(rec, completions=tuple(rec.completions[i] for i in order))


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@given(rec=RECORDS)
def test_a_label_is_a_consistent_target(aggregate, rec):
    label = aggregate(rec)
    p, tie, seen = label.win_prob, label.tie_prob, label.observed
    assert np.array_equal(seen, seen.T)
    assert not seen.diagonal().any()
    assert np.allclose((p + p.T)[seen], 1, atol=1e-15)
    assert not p[~seen].any()
    assert not tie[~seen].any()
    assert not label.margin[~seen].any()
    assert np.array_equal(tie, tie.T)
    assert np.array_equal(label.margin, label.margin.T)
    assert (p - tie / 2 >= -1e-15).all()
    assert np.array_equal(label.votes, label.votes.T)
    assert (label.votes[seen] >= 1).all()
    assert not (label.rank >= 0)[~seen.any(1)].any()
    ranked = label.rank[label.rank >= 0]
    assert sorted(set(ranked)) == list(range(len(set(ranked))))
    assert label.score.shape == (4, 0)


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@given(rec=RECORDS, order=st.permutations(range(4)))
def test_no_side_is_favoured_by_where_it_stands(aggregate, rec, order):
    label, moved = aggregate(rec), aggregate(reordered(rec, order))
    for name in ("win_prob", "tie_prob", "observed", "margin", "votes"):
        assert np.array_equal(getattr(moved, name), getattr(label, name)[np.ix_(order, order)])
    assert np.array_equal(moved.rank, label.rank[order])


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@given(rec=RECORDS)
def test_the_order_of_the_votes_changes_nothing(aggregate, rec):
    forth, back = aggregate(rec), aggregate(replace(rec, votes=rec.votes[::-1]))
    assert np.array_equal(forth.win_prob, back.win_prob)
    assert np.array_equal(forth.rank, back.rank)


def test_soft_is_the_share_of_the_votes_with_ties_counting_half():
    label = soft(record(pair(0, 1, 0), pair(1, 0, 0), pair(0, 1, 1), pair(0, 1, "tie")))
    assert label.win_prob[0, 1] == pytest.approx((2 + 0.5) / 4)
    assert label.tie_prob[0, 1] == pytest.approx(1 / 4)
    assert label.votes[0, 1] == 4
    assert not label.observed[2].any()


@pytest.mark.parametrize("a", [0.5, 1.0])
def test_pseudocounts_are_votes_added_to_each_side(a):
    label = soft(record(pair(0, 1, 0), pair(0, 1, 0), pair(0, 1, "tie")), pseudocount=a)
    assert label.win_prob[0, 1] == pytest.approx((2 + 0.5 + a) / (3 + 2 * a))
    assert label.win_prob[0, 1] - label.tie_prob[0, 1] / 2 == pytest.approx((2 + a) / (3 + 2 * a))
    assert not label.observed[0, 2]
    assert label.win_prob[0, 2] == 0


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("vote", [pair(0, 1, "tie"), ranking([0, 1]), likert(3, 3)])
def test_a_tie_is_half_a_win_for_each_side_in_every_form_of_vote(aggregate, vote):
    label = aggregate(record(vote, k=2))
    assert label.win_prob[0, 1] == label.win_prob[1, 0] == 0.5
    assert label.tie_prob[0, 1] == 1
    assert label.observed[0, 1]
    assert label.rank.tolist() == [0, 0]


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
@pytest.mark.parametrize("vote", [pair(0, 1, 1), ranking([1], [0]), likert(2, 4)])
def test_every_form_of_vote_gives_the_same_label_for_the_same_preference(aggregate, vote):
    label = aggregate(record(vote, k=2))
    assert label.win_prob.tolist() == [[0, 0], [1, 0]]
    assert label.tie_prob.tolist() == [[0, 0], [0, 0]]
    assert label.rank.tolist() == [1, 0]
    assert label.votes.tolist() == [[0, 1], [1, 0]]


def test_a_ranking_says_something_of_all_pairs_it_names_and_of_no_other():
    counts = count(record(ranking([2], [0, 3]), k=5))
    assert {(i, j) for i, j in np.argwhere(counts.wins)} == {(2, 0), (2, 3)}
    assert {(i, j) for i, j in np.argwhere(counts.ties)} == {(0, 3), (3, 0)}


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
def test_a_single_ranking_keeps_its_own_order(aggregate):
    label = aggregate(record(ranking([4], [0, 3], [5], [1]), k=6))
    assert label.rank.tolist() == [1, 3, -1, 1, 0, 2]


def test_rank_follows_the_comparisons():
    votes = [pair(0, 1, 0), pair(1, 2, 1), pair(1, 2, 1), pair(1, 2, 2)]
    label = soft(record(*votes, k=4))
    assert [float(p) for p in label.win_prob[1, [0, 2]]] == pytest.approx([0, 2 / 3])
    assert label.rank.tolist() == [0, 1, 2, -1]  # 0 above 1, 1 above 2
    assert soft(record(*votes[:3], k=4)).rank.tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize(
    ("sides", "p", "tie"),
    [
        ("001", 1.0, 0.0), ("011", 0.0, 0.0), ("01", 0.5, 1.0), ("0t", 1.0, 0.0), ("0tt", 0.5, 1.0),
        ("00tt1", 1.0, 0.0), ("01t", 0.5, 1.0), ("0011t", 0.5, 1.0), ("t", 0.5, 1.0), ("11t", 0.0, 0.0),
    ],
)  # fmt: skip
def test_majority_goes_to_the_most_frequent_answer(sides, p, tie):
    votes = [pair(0, 1, "tie" if s == "t" else int(s)) for s in sides]
    label = majority(record(*votes))
    assert (label.win_prob[0, 1], label.tie_prob[0, 1]) == (p, tie)
    assert label.votes[0, 1] == len(sides)


def test_discard_keeps_soft_labels_where_enough_annotators_agree():
    votes = [*[pair(0, 1, 0)] * 4, pair(0, 1, 1), *[pair(0, 2, 0)] * 2, pair(0, 2, 2), pair(1, 2, "tie")]
    label = discard(record(*votes))
    assert label.observed.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert label.win_prob[0, 1] == pytest.approx(0.8)
    assert label.votes[0, 2] == 3
    few = discard(record(*votes), min_votes=2)
    assert few.rank.tolist() == [0, 1, -1]
    assert not few.observed[1, 2]
    assert discard(record(*votes), min_agreement=0.6).observed.sum() == 6
    assert not discard(record(*votes), min_votes=6).observed.any()


def test_margin_is_the_mean_stated_by_the_winning_side():
    votes = [pair(0, 1, 0, margin=1.0), pair(1, 0, 0, margin=3.0), pair(0, 1, 0), pair(0, 1, 1, margin=9.0)]
    for aggregate in (soft, majority):
        label = aggregate(record(*votes))
        assert label.margin[0, 1] == label.margin[1, 0] == 2.0
    even = [pair(0, 1, 0, margin=1.0), pair(0, 1, 1, margin=5.0)]
    assert soft(record(*even)).margin[0, 1] == 0
    assert soft(record(pair(0, 1, "tie", margin=4.0))).margin[0, 1] == 0


def test_gold_checks_do_not_count():
    gold = [pair(0, 1, 1, gold=True), likert(1, 5, gold=True, criterion="honesty")]
    label = soft(record(pair(0, 1, 0), *gold), attributes=["honesty"])
    assert label.win_prob[0, 1] == 1
    assert np.isnan(label.score).all()
    only_gold = soft(record(pair(0, 1, 1, gold=True), pair(0, 1, 0, criterion="honesty")))
    assert only_gold.win_prob[0, 1] == 1  # no real vote on "overall", so the other criteria decide


def test_the_overall_criterion_decides_unless_another_is_asked_for():
    votes = [pair(0, 1, 0), pair(0, 1, 1, criterion="harmlessness"), pair(0, 1, 1, criterion="honesty")]
    assert soft(record(*votes)).win_prob[0, 1] == 1
    assert soft(record(*votes), criterion="honesty").win_prob[0, 1] == 0
    assert soft(record(*votes[1:])).votes[0, 1] == 2
    assert not soft(record(*votes), criterion="helpfulness").observed.any()


def test_scores_are_mean_ratings_per_attribute_and_nan_where_nobody_rated():
    votes = [
        likert(4, 2, None, criterion="helpfulness"),
        likert(5, None, None, criterion="helpfulness"),
        likert(1, 1, 3, criterion="honesty"),
        ranking([0], [1], criterion="honesty"),
    ]
    label = soft(record(*votes), attributes=["honesty", "helpfulness", "style"])
    nan = np.nan
    expected = [[1, 4.5, nan], [1, 2, nan], [3, nan, nan]]
    assert np.array_equal(label.score, np.array(expected, dtype=float), equal_nan=True)


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
def test_a_record_without_votes_gives_a_label_with_nothing_observed(aggregate):
    label = aggregate(record(k=4), attributes=["honesty"])
    assert not label.observed.any()
    assert label.rank.tolist() == [-1] * 4
    assert label.score.shape == (4, 1)
    assert label.weight == 1


def test_more_annotators_bring_the_soft_label_to_the_odds_of_a_single_one():
    rng = np.random.default_rng(0)
    choices = (rng.random(4000) < 0.3).astype(int)
    votes = [pair(0, 1, int(c)) for c in choices]
    assert soft(record(*votes)).win_prob[0, 1] == pytest.approx(0.7, abs=0.03)  # four standard errors
    assert majority(record(*votes)).win_prob[0, 1] == 1


@pytest.mark.parametrize(
    ("aggregate", "annotators", "scale"),
    [(soft, 3, 1.0), (soft, 5, 1.0), (majority, 3, 1.52), (majority, 5, 1.93), (discard, 3, 3.0)],
)
def test_scale_of_the_reward_that_labels_imply_is_that_of_the_documentation(aggregate, annotators, scale):
    total = seen = 0.0
    for sides in itertools.product((0, 1), repeat=annotators):
        label = aggregate(record(*[pair(0, 1, s) for s in sides]))
        chance = 0.7 ** sides.count(0) * 0.3 ** sides.count(1)
        total += chance * label.win_prob[0, 1]
        seen += chance * label.observed[0, 1]
    p = total / seen
    assert np.log(p / (1 - p)) / np.log(0.7 / 0.3) == pytest.approx(scale, abs=0.005)


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda r: soft(r, pseudocount=-1), "pseudocount"),
        (lambda r: discard(r, min_agreement=80), "min_agreement"),
        (lambda r: discard(r, min_votes=0), "min_votes"),
        (lambda r: soft(r, attributes="honesty"), "attributes"),
    ],
)
def test_options_out_of_range_are_refused_by_name(call, key):
    with pytest.raises(RecordError, match=rf"aggregation\.{key}"):
        call(record(pair(0, 1, 0)))


@pytest.mark.parametrize("name", OURS)
def test_every_file_builds_and_states_every_option_with_the_default_of_the_code(name):
    shared = OmegaConf.create(
        {"criterion": None, "batches": {"attributes": []}}
    )  # root keys: heads and losses read them too
    config = OmegaConf.merge(shared, {"aggregation": OmegaConf.load(FOLDER / f"{name}.yaml")}).aggregation
    aggregate = instantiate(config)
    assert aggregate(record(pair(0, 1, 1))).win_prob[1, 0] == 1
    file = OmegaConf.to_container(config, resolve=True)
    code = inspect.signature(get_object(file.pop("_target_"))).parameters
    assert file.pop("_partial_") is True
    defaults = {k: p.default for k, p in code.items() if p.default is not inspect.Parameter.empty}
    assert file == {**defaults, "attributes": []}
