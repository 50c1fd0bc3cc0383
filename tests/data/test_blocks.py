"""Groups that are too large for a step: nothing that was judged is lost, and the expected gradient is that of all."""

from itertools import combinations

import numpy as np
import pytest

from rlhf.data.blocks import GroupLimits, chance, drawn, separated, sizes


def graph(k, *edges):
    related = np.zeros((k, k), dtype=bool)
    for i, j in edges:
        related[i, j] = related[j, i] = True
    return related


def full(k):
    return ~np.eye(k, dtype=bool)


def held(parts, related):
    """How often every judged pair lies in a part that counts it."""
    times = np.zeros(related.shape, dtype=int)
    for part in parts:
        square = np.ix_(part.places, part.places)
        own = related if part.pairs is None else part.pairs
        times[square] += own[square]
    return times


def test_a_group_that_fits_stays_whole_even_where_nothing_connects_it():
    related = graph(4, (0, 1))
    (part,) = separated(related, 5, [1] * 4, GroupLimits(4))
    assert part.places == [0, 1, 2, 3]
    assert part.pairs is None


def test_what_no_vote_connects_is_separated_and_what_nobody_judged_is_left_out():
    related = graph(9, (0, 5), (1, 2), (2, 3), (6, 7))
    parts = separated(related, 5, [1] * 9, GroupLimits(4))
    assert (held(parts, related) == related).all()
    assert all(len(p.places) <= 4 for p in parts)
    assert sorted(i for p in parts for i in p.places) == [0, 1, 2, 3, 5, 6, 7]


def test_an_answer_that_was_rated_alone_is_kept():
    related = graph(5, (0, 1))
    related[4, 4] = True
    assert 4 in {i for p in separated(related, 5, [1] * 5, GroupLimits(3)) for i in p.places}


SPARSE = {
    "star": graph(40, *((0, i) for i in range(1, 40))),
    "chain": graph(40, *((i, i + 1) for i in range(39))),
    "tree": graph(40, *(((i - 1) // 2, i) for i in range(1, 40))),
    "cycle": graph(40, *((i, (i + 1) % 40) for i in range(40))),
}


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("most", [2, 5, 8])
def test_sparse_groups_are_cut_once_and_every_pair_is_in_exactly_one_block(name, most):
    related = SPARSE[name]
    parts = separated(related, 5, [1] * 40, GroupLimits(most))
    assert (held(parts, related) == related).all()
    assert max(len(p.places) for p in parts) <= most
    pairs = related.sum() // 2
    assert sum(len(p.places) for p in parts) <= 2 * pairs, "never worse than a record per pair"


def test_a_star_repeats_only_its_centre():
    parts = separated(SPARSE["star"], 5, [1] * 40, GroupLimits(8))
    assert sum(len(p.places) for p in parts) == 39 + len(parts) == 39 + 6


def test_a_dense_group_stays_whole_to_be_drawn():
    (part,) = separated(full(33), 5, [1] * 33, GroupLimits(8))
    assert part.places == list(range(33))


def test_the_token_budget_cuts_too_and_two_answers_are_always_allowed():
    limits = GroupLimits(8, tokens=30)
    assert limits.blocks(10, [5] * 8) == 2
    assert limits.longest(10, [5] * 8, 2) == 30
    assert GroupLimits(8, tokens=10).fits(10, [50, 50])
    assert limits.blocks(10, [20, 1, 1, 1]) == 2, "the two longest may meet"
    with pytest.raises(ValueError, match="max_group=1"):
        GroupLimits(1)


@pytest.mark.parametrize(("k", "blocks"), [(5, 2), (6, 3), (7, 2), (9, 4)])
def test_blocks_of_an_epoch_do_not_overlap_and_every_pair_is_met_equally_often(k, blocks):
    draws, met = 4000, np.zeros((k, k))
    for seed in range(draws):
        found = [drawn(k, blocks, b, (0, seed, 3)) for b in range(blocks)]
        assert sorted(i for block in found for i in block) == list(range(k))
        assert [len(b) for b in found] == sizes(k, blocks).tolist()
        for block in found:
            met[np.ix_(block, block)] += 1
    share = met[np.triu_indices(k, 1)] / draws
    p = chance(k, blocks)
    assert abs(share - p).max() < 4.5 * np.sqrt(p * (1 - p) / draws)


def test_the_chance_is_that_of_all_permutations():
    k, blocks = 5, 2
    first = list(combinations(range(k), int(sizes(k, blocks)[0])))
    together = np.mean([(0 in f) == (1 in f) for f in first])
    assert chance(k, blocks) == pytest.approx(together)


def test_another_epoch_and_another_row_draw_other_blocks():
    assert drawn(30, 3, 0, (0, 1, 2)) == drawn(30, 3, 0, (0, 1, 2))
    assert len({tuple(drawn(30, 3, 0, seed)) for seed in [(0, 1, 2), (0, 2, 2), (0, 1, 3), (1, 1, 2)]}) == 4
