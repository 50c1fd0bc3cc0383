"""Order of training groups: by seed and epoch, the same for any number of processes, resumable mid-epoch."""

import numpy as np
import pytest

from rlhf.data.order import GroupOrder, ResumableLoader, TokenOrder


def order(rows=23, batch_size=4, seed=1, **kwargs):
    return GroupOrder(rows, batch_size=batch_size, seed=seed, **kwargs)


def test_every_row_is_visited_once_an_epoch():
    assert sorted(r for batch in order() for r in batch) == list(range(23))


def test_epochs_and_seeds_differ_and_repeat():
    first, again, other = order(), order(), order(seed=2)
    assert list(first) == list(again) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)


def test_two_processes_see_the_rows_of_one_with_twice_the_batch():
    whole = list(order(batch_size=8))
    parts = [list(order(batch_size=4, rank=r, world=2)) for r in (0, 1)]
    for step, rows in enumerate(whole[:-1]):
        assert sorted(parts[0][step] + parts[1][step]) == sorted(rows)
    assert len(parts[0]) == len(parts[1]) == len(whole)


def test_evaluation_keeps_the_stored_order_and_pads_so_that_all_processes_take_part():
    parts = [list(order(rows=65, batch_size=64, seed=None, rank=r, world=2)) for r in (0, 1)]
    assert [len(p) for p in parts] == [1, 1]
    assert set(parts[0][0]) | set(parts[1][0]) == set(range(65))


class Numbers:
    def __getitem__(self, rows):
        return rows


def loader():
    return ResumableLoader(Numbers(), batch_size=None, sampler=order())


def test_a_loader_goes_on_after_the_batches_that_were_taken():
    whole, first = list(loader()), loader()
    iterator = iter(first)
    taken = [next(iterator) for _ in range(2)]
    second = loader()
    second.load_state_dict(first.state_dict())
    assert taken + list(second) == whole
    assert list(second) == whole


def test_a_loader_refuses_to_go_on_when_the_data_changed():
    state = loader().state_dict() | {"rows": 99}
    with pytest.raises(ValueError, match="rows: 99 -> 23"):
        loader().load_state_dict(state)


TOKENS = np.random.default_rng(0).lognormal(4, 1, size=997).astype(np.int64).clip(1, 500)


def by_tokens(budget=2000, seed=1, **kwargs):
    return TokenOrder(TOKENS, budget=budget, seed=seed, **kwargs)


@pytest.mark.parametrize("budget", [500, 2000, 10**9])
@pytest.mark.parametrize("seed", [None, 1])
def test_token_batches_visit_every_row_once_and_stay_near_the_budget(budget, seed):
    for epoch in (0, 1):
        order = by_tokens(budget, seed)
        order.set_epoch(epoch)
        batches = list(order)
        assert sorted(r for b in batches for r in b) == list(range(len(TOKENS)))
        assert len(batches) == len(order)
        sizes = np.array([TOKENS[b].sum() for b in batches])
        share = TOKENS.sum() / len(order)
        assert (abs(sizes - share) <= TOKENS.max()).all()
        assert share < 2 * budget


def test_token_batches_keep_the_global_shuffle():
    flat = [r for batch in by_tokens() for r in batch]
    assert flat == [r for batch in order(rows=len(TOKENS), batch_size=7) for r in batch]


def test_the_mean_batch_counts_as_one_batch():
    order = by_tokens()
    assert order.denominator == pytest.approx(np.mean([len(b) for b in order]))


def test_two_processes_share_every_step_of_a_token_order():
    parts = [list(by_tokens(rank=r, world=2)) for r in (0, 1)]
    assert len(parts[0]) == len(parts[1])
    assert all(len(a) == len(b) for a, b in zip(*parts, strict=True))
    assert {r for part in parts for batch in part for r in batch} == set(range(len(TOKENS)))


def test_a_budget_below_the_longest_group_is_refused_with_the_number_that_fits():
    with pytest.raises(ValueError, match=r"batches\.batch_tokens=500 or more"):
        by_tokens(499)


def test_a_token_order_goes_on_in_the_middle_of_an_epoch_but_not_under_another_budget():
    whole = list(by_tokens())
    first = ResumableLoader(Numbers(), batch_size=None, sampler=by_tokens())
    iterator = iter(first)
    taken = [next(iterator) for _ in range(3)]
    second = ResumableLoader(Numbers(), batch_size=None, sampler=by_tokens())
    second.load_state_dict(first.state_dict())
    assert taken + list(second) == whole
    with pytest.raises(ValueError, match="batch_tokens: 2000 -> None"):
        loader().load_state_dict(first.state_dict())
