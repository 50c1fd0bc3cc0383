"""Order of training groups: by seed and epoch, the same for any number of processes, resumable mid-epoch."""

import pytest

from rlhf.data.order import GroupOrder, ResumableLoader


def order(rows=23, batch_size=4, seed=1, **kwargs):
    return GroupOrder(rows, batch_size=batch_size, seed=seed, **kwargs)


def test_every_row_is_visited_once_an_epoch():
    assert sorted(r for batch in order() for r in batch) == list(range(23))


def test_epochs_and_seeds_differ_and_repeat():
    first, again, other = order(), order(), order(seed=2)
    assert list(first) == list(again) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)


def test_two_processes_see_the_rows_of_one_with_twice_the_batch():  # T23
    whole = list(order(batch_size=8))
    parts = [list(order(batch_size=4, rank=r, world=2)) for r in (0, 1)]
    for step, rows in enumerate(whole[:-1]):
        assert sorted(parts[0][step] + parts[1][step]) == sorted(rows)
    assert len(parts[0]) == len(parts[1]) == len(whole)


def test_evaluation_keeps_the_stored_order_and_pads_so_that_all_processes_take_part():  # T48
    parts = [list(order(rows=65, batch_size=64, seed=None, rank=r, world=2)) for r in (0, 1)]
    assert [len(p) for p in parts] == [1, 1]
    assert set(parts[0][0]) | set(parts[1][0]) == set(range(65))


class Numbers:
    def __getitem__(self, rows):
        return rows


def loader():
    return ResumableLoader(Numbers(), batch_size=None, sampler=order())


def test_a_loader_goes_on_after_the_batches_that_were_taken():  # T42
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
