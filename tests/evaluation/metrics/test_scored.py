"""Ragged groups become flat columns, and nothing that cannot be scored gets through."""

from dataclasses import replace

import numpy as np
import pytest
from scored_sets import group

from rlhf.evaluation.metrics.scored import Scored


def test_pairs_are_the_observed_ones_with_the_first_before_the_second():
    win = np.array([[0, 0.9, 0.2], [0, 0, 0.5], [0, 0, 0]])
    whole = group([3.0, 1.0, 2.0], win, votes=4, length=[5, 6, 7], rank=[1, 2, 0])
    observed = whole.observed.copy()
    observed[1, 2] = observed[2, 1] = False
    table = Scored.from_groups([group([9.0, 8.0], 1.0), replace(whole, observed=observed)])
    assert table.first.tolist() == [0, 2, 2]
    assert table.second.tolist() == [1, 3, 4]
    assert table.win_prob.tolist() == [1.0, 0.9, 0.2]
    assert table.votes.tolist() == [1.0, 4.0, 4.0]
    assert table.difference.tolist() == [1.0, 2.0, 1.0]
    assert table.longer.tolist() == [0.0, -1.0, -2.0]
    assert table.group.tolist() == [0, 0, 1, 1, 1]
    assert table.rank.tolist() == [-1, -1, 1, 2, 0]


def test_groups_of_one_prompt_share_its_code_and_domains_keep_their_names():
    rows = [("a", "x"), ("b", None), ("a", "y"), ("c", "x")]
    table = Scored.from_groups(group([1.0, 0.0], 1.0, prompt=p, domain=d) for p, d in rows)
    assert table.prompt.tolist() == [0, 1, 0, 2]
    assert table.domain.tolist() == [0, -1, 1, 0]
    assert table.domains == ("x", "y")
    assert table.pair_prompt.tolist() == [0, 1, 0, 2]


def test_an_empty_set_has_empty_columns_of_the_right_kind():
    table = Scored.from_groups([])
    assert len(table.reward) == len(table.first) == len(table.prompt) == 0
    assert table.first.dtype == table.group.dtype == table.rank.dtype == np.int64
    assert len(table.difference) == 0


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_is_refused_with_the_remedy(broken):
    with pytest.raises(ValueError, match=r"1 of 4 rewards.*group 1.*optimizer\.build\.lr"):
        Scored.from_groups([group([1.0, 0.0], 1.0), group([0.0, broken], 1.0)])
