"""Orders and likelihoods go as far as votes compared: disjoint pairs, chains, stars, full designs, rankings."""

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, spearmanr

from rlhf.data.collate import targets
from rlhf.evaluation.metrics.ranking import of_partial_order, rank_metrics
from rlhf.evaluation.metrics.scored import Scored, ScoredGroup
from rlhf.labels.aggregation import majority, soft
from rlhf.labels.label import only_pairs
from rlhf.labels.orders import above, ranked
from rlhf.records import Comparison, Completion, Vote
from rlhf.reward.listwise import observations
from rlhf.reward.losses import pick_best, plackett_luce

DESIGNS = {
    "disjoint": [(0, 1), (2, 3)],
    "chain": [(0, 1), (1, 2), (2, 3)],
    "star": [(1, 0), (1, 2), (1, 3)],
    "full": [(i, j) for i in range(4) for j in range(i)],
}


def record(k, *votes):
    return Comparison("p", "?", tuple(Completion(f"c{n}", f"text {n}") for n in range(k)), votes)


def beats(i, j, tie=False):
    return Vote("w", pair=(f"c{i}", f"c{j}"), choice="tie" if tie else f"c{i}")


def ranks(*groups):
    return Vote("w", ranking=tuple(tuple(f"c{i}" for i in group) for group in groups))


def target_of(*labels):
    names = ("win_prob", "tie_prob", "observed", "margin", "rank", "score", "rankings", "ranking_weight")
    columns = {name: [getattr(label, name).ravel().tolist() for label in labels] for name in names}
    weights = [label.observed.astype(float) for label in labels]
    columns |= {
        "responses": [[[1]] * len(label.rank) for label in labels],
        "weight": [1.0] * len(labels),
        "pair_weight": [w.ravel().tolist() for w in weights],
        "prompt_pairs": [w.sum() / 2 for w in weights],
    }
    return targets(columns)


def scored(reward, *labels):
    groups = [
        ScoredGroup(f"p{n}", None, np.asarray(reward, float), np.ones(len(reward)), label.rank, label.win_prob,
                    label.tie_prob, label.observed, label.votes)
        for n, label in enumerate(labels)
    ]  # fmt: skip
    return Scored.from_groups(groups)


def test_what_nobody_compared_has_no_order():
    label = soft(record(4, beats(0, 1), beats(2, 3)))
    assert label.rank.tolist() == [0, 1, 0, 1]
    assert not len(label.rankings)
    values = rank_metrics(scored([4, 3, 2, 1], label))
    assert values["spearman"] == values["kendall"] == 1
    assert rank_metrics(scored([1, 2, 4, 3], label))["spearman"] == 0, "one pair right, one wrong"


@pytest.mark.parametrize("design", DESIGNS)
def test_a_perfect_model_has_one_and_a_reversed_one_minus_one(design):
    rng = np.random.default_rng(0)
    for _ in range(30):
        truth = rng.permutation(4)
        label = soft(record(4, *(beats(*((i, j) if truth[i] > truth[j] else (j, i))) for i, j in DESIGNS[design])))
        best = rank_metrics(scored(truth, label))
        assert {best[k] for k in ("spearman", "kendall", "top1", "ndcg") if k in best} == {1.0}
        worst = rank_metrics(scored(-truth, label))
        assert worst["spearman"] == worst["kendall"] == -1


def test_order_follows_through_others_but_not_through_a_cycle():
    chain = soft(record(3, beats(0, 1), beats(1, 2)))
    assert chain.rank.tolist() == [0, 1, 2]
    partial = soft(record(3, beats(0, 1), beats(2, 1)))
    assert partial.rank.tolist() == [-1, -1, -1], "0 and 2 have no order"
    assert above(partial.win_prob, partial.observed).tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 0]]
    cycle = soft(record(5, beats(0, 1), beats(1, 2), beats(2, 3), beats(3, 0), beats(0, 4)))
    over = above(cycle.win_prob, cycle.observed)
    assert over[:4, :4].sum() == 0
    assert over[:4, 4].all()


def test_ties_join_what_they_link():
    label = soft(record(4, beats(0, 1), beats(1, 2, tie=True), beats(2, 3)))
    assert label.rank.tolist() == [0, 1, 1, 2]


def test_a_full_design_is_ranked_by_its_mean_win_share():
    rng = np.random.default_rng(1)
    for _ in range(50):
        p = np.triu(rng.integers(0, 6, (5, 5)) / 5, 1)
        p = p + np.tril(1 - p.T, -1)
        share = p.sum(1).round(9)
        assert ranked(p, ~np.eye(5, dtype=bool)).tolist() == np.unique(-share, return_inverse=True)[1].tolist()


@pytest.mark.parametrize("k", [2, 3, 5, 9])
def test_the_pair_form_is_spearman_and_kendall_for_a_total_order(k):
    rng = np.random.default_rng(k)
    for _ in range(20):
        order, reward = rng.permutation(k), rng.normal(size=k)
        rho, tau, _, _ = of_partial_order(reward, order[:, None] > order[None, :])
        assert rho == pytest.approx(spearmanr(order, reward).statistic)
        assert tau == pytest.approx(kendalltau(order, reward).statistic)


def test_a_random_model_has_zero_on_average():
    rng = np.random.default_rng(3)
    labels = [soft(record(4, beats(0, 1), beats(1, 2), beats(3, 2))) for _ in range(1)]
    values = [rank_metrics(scored(rng.normal(size=4), *labels)) for _ in range(4000)]
    for name in ("spearman", "kendall"):
        found = np.array([v[name] for v in values])
        assert abs(found.mean()) < 4 * found.std() / len(found) ** 0.5


# --------------------------------------------------------------------------------------------- likelihood


def test_a_ranking_is_one_observation_and_pairs_are_their_own():
    reward = torch.tensor([[0.3, -1.0, 0.7, 0.1, 2.0]])
    whole = target_of(soft(record(5, ranks([2], [0], [1]), beats(3, 4))))
    assert whole.rankings.tolist() == [[[1, 2, 0, -1, -1]]]
    r = reward[0]
    luce = torch.logsumexp(r[[0, 1, 2]], 0) - r[2] + torch.logsumexp(r[[0, 1]], 0) - r[0]
    pair = torch.nn.functional.softplus(r[4] - r[3])
    torch.testing.assert_close(plackett_luce(reward, whole)[0], luce + pair)
    torch.testing.assert_close(pick_best(reward, whole)[0], torch.logsumexp(r[[0, 1, 2]], 0) - r[2] + pair)


def test_two_disjoint_rankings_are_two_observations():
    both = target_of(soft(record(6, ranks([0], [1], [2]), ranks([5], [4], [3]))))
    reward = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    alone = [
        plackett_luce(reward[:, places], target_of(soft(record(3, ranks(*order)))))
        for places, order in (([0, 1, 2], ([0], [1], [2])), ([3, 4, 5], ([2], [1], [0])))
    ]
    torch.testing.assert_close(plackett_luce(reward, both), alone[0] + alone[1])


@pytest.mark.parametrize("loss", [plackett_luce, pick_best])
def test_overlapping_rankings_are_two_observations_and_those_of_one_set_count_as_their_mean(loss):
    votes = [ranks([0], [1], [2]), ranks([1], [2], [3]), ranks([2], [0, 1]), beats(0, 3), beats(3, 0), beats(3, 0)]
    reward = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    alone = [loss(reward, target_of(soft(record(4, vote)))) for vote in votes]
    together = target_of(soft(record(4, *votes)))
    expected = (alone[0] + alone[2]) / 2 + alone[1] + (alone[3] + alone[4] + alone[5]) / 3
    torch.testing.assert_close(loss(reward, together), expected)
    assert observations(together).tolist() == pytest.approx([3.0])


@pytest.mark.parametrize("loss", [plackett_luce, pick_best])
def test_votes_on_a_pair_of_a_ranking_count_beside_it(loss):
    """Under `majority` they are part of the one ranking that all votes make."""
    votes = [ranks([0], [1], [2]), beats(1, 0), Vote("w", pair=("c0", "c2"), choice="c0", p=0.25)]
    reward = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    alone = [loss(reward, target_of(soft(record(3, vote)))) for vote in votes]
    torch.testing.assert_close(loss(reward, target_of(soft(record(3, *votes)))), sum(alone))
    assert majority(record(3, *votes)).rankings.tolist() == [[0, 0, 1]]


def test_a_ranking_that_loses_a_pair_counts_pair_by_pair():
    label = soft(record(4, ranks([0], [1], [2]), ranks([3], [2], [0])))
    kept = ~np.eye(4, dtype=bool)
    kept[0, 1] = kept[1, 0] = False
    less = only_pairs(label, kept)
    assert less.rankings.tolist() == [[2, -1, 1, 0]]
    reward = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    rest = -torch.nn.functional.logsigmoid(reward[0, 1] - reward[0, 2])
    whole = plackett_luce(reward, target_of(soft(record(4, ranks([3], [2], [0])))))
    torch.testing.assert_close(plackett_luce(reward, target_of(less)), whole + rest)


def test_ties_of_a_short_ranking_are_exact_in_a_prompt_of_any_size():
    votes = [ranks([0, 1], [2]), *(beats(i, i + 1) for i in range(3, 15))]
    reward = torch.zeros(1, 16)
    expected = np.log(6) + 12 * np.log(2) - np.log(1)
    assert float(plackett_luce(reward, target_of(soft(record(16, *votes))))) == pytest.approx(expected)


def fitted_slope(loss, groups):
    """Maximum likelihood of r = slope · x, and its standard error, over groups (x [K], label)."""
    x, target = torch.tensor(np.stack([x for x, _ in groups])), target_of(*(label for _, label in groups))
    slope = torch.ones(len(x), 1, dtype=torch.float64)
    for _ in range(15):
        slope.requires_grad_()
        (each,) = torch.autograd.grad(loss(slope * x, target).sum(), slope, create_graph=True)
        (curvature,) = torch.autograd.grad(each.sum(), slope)
        slope = (slope - each.sum() / curvature.sum()).detach()
    return slope[0].item(), (each.square().sum().sqrt() / curvature.sum()).item()


def drawn(rng, design, independent):
    """Features and the label of one prompt with true rewards 2 x."""
    x = rng.normal(size=4) * 0.8
    luck = rng.gumbel(size=4)
    votes = []
    for i, j in DESIGNS[design]:
        wins = (
            rng.random() < 1 / (1 + np.exp(2 * (x[j] - x[i])))
            if independent
            else 2 * x[i] + luck[i] > 2 * x[j] + luck[j]
        )
        votes.append(beats(i, j) if wins else beats(j, i))
    return x, soft(record(4, *votes))


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("design", DESIGNS)
def test_the_slope_of_the_truth_is_recovered(design, independent):
    rng = np.random.default_rng(7)
    groups = [drawn(rng, design, independent) for _ in range(400)]
    for loss in (plackett_luce, pick_best):
        slope, error = fitted_slope(loss, groups)
        assert abs(slope - 2) < 3.5 * error, (loss.__name__, slope, error)
        assert error < 0.35


RANKED = {
    "one": [(0, 1, 2, 3)],
    "three of the same": [(0, 1, 2, 3)] * 3,
    "overlapping": [(0, 1, 2), (1, 2, 3)],
    "one inside the other": [(0, 1, 2, 3), (0, 1, 2)],
    "pairs inside": [(0, 1, 2, 3), (0, 1), (2, 3), (0, 1)],
}


@pytest.mark.parametrize("design", RANKED)
def test_the_slope_of_rankings_is_recovered(design):
    rng = np.random.default_rng(3)
    groups = []
    for _ in range(400):
        x = rng.normal(size=4) * 0.8
        votes = []
        for places in map(list, RANKED[design]):
            order = np.array(places)[np.argsort(-(2 * x[places] + rng.gumbel(size=len(places))))].tolist()
            votes.append(beats(*order) if len(order) == 2 else ranks(*([i] for i in order)))
        groups.append((x, soft(record(4, *votes))))
    for loss in (plackett_luce, pick_best):
        slope, error = fitted_slope(loss, groups)
        assert abs(slope - 2) < 3.5 * error, (loss.__name__, slope, error)
        assert error < 0.25


def test_likert_ratings_are_rankings_with_ties():
    rated = Vote("w", likert={"c0": 4, "c1": 2, "c2": 4, "c4": 1})
    label = soft(record(5, rated))
    assert label.rankings.tolist() == [[0, 1, 0, -1, 2]]
    assert label.ranking_weight.tolist() == [1]
