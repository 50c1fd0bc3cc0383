"""Folds: every group is the test once, no prompt is in two parts, validation never comes from the test."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.data.fold_split import FoldSplit
from rlhf.records import Comparison, Completion, RecordError, prompt_hash

BOTH = (Completion("a", "yes"), Completion("b", "no"))


def record(prompt, domain="d", **meta):
    return Comparison("id", prompt, BOTH, domain=domain, meta=meta)


def grouped(sizes, prompts=3):
    """Records of groups of these sizes, each of a few prompts."""
    return [record(f"{g}: question {i % prompts}", domain=f"g{g}") for g, n in enumerate(sizes) for i in range(n)]


def split_by_fold(records, **options):
    """Fold -> split of every record, and the splitter of the last fold."""
    found, fold = [], 0
    while True:
        splitter = FoldSplit(fold=fold, **options)
        splitter.fit(records)
        found.append([splitter.split_of(r) for r in records])
        fold += 1
        if fold == splitter.n_folds:
            return found, splitter


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=12),
    k=st.integers(2, 12),
    val=st.sampled_from([0.05, 0.1, 0.3]),
    seed=st.integers(0, 3),
)
def test_every_group_is_the_test_once_and_parts_share_no_prompt(sizes, k, val, seed):
    records = grouped([n + 1 for n in sizes])
    options = {"k": min(k, len(sizes)), "key": "domain", "val": val, "seed": seed}
    found, splitter = split_by_fold(records, **options)
    assert len(found) == min(k, len(sizes))
    tests = Counter((r.domain, fold) for fold, splits in enumerate(found) for r, s in zip(records, splits, strict=True)
                    if s == "test")  # fmt: skip
    assert Counter(group for group, _ in tests) == Counter({r.domain for r in records})
    for group, fold in tests:
        assert tests[group, fold] == sum(r.domain == group for r in records)
    for fold, splits in enumerate(found):
        parts = {s: {r.prompt for r, own in zip(records, splits, strict=True) if own == s} for s in set(splits)}
        assert set(parts) == {"train", "val", "test"}
        assert sum(map(len, parts.values())) == len({r.prompt for r in records})
        assert all(splitter.fold_of(prompt_hash(p)) == fold for p in parts["test"])


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 40), min_size=4, max_size=30), k=st.integers(2, 4))
def test_folds_differ_by_one_group_at_most(sizes, k):
    records = grouped([n + 1 for n in sizes])
    found, _ = split_by_fold(records, k=k, key="domain")
    loads = [splits.count("test") for splits in found]
    assert max(loads) - min(loads) <= max(sizes) + 1


def test_equal_groups_are_dealt_evenly():
    found, _ = split_by_fold(grouped([4] * 20), k=5, key="domain")
    assert [splits.count("test") for splits in found] == [16] * 5


def test_the_order_of_the_records_changes_nothing_and_the_seed_does():
    records = grouped([5, 9, 7, 5, 5, 8, 5, 5])
    shuffled = [records[i] for i in np.random.default_rng(0).permutation(len(records))]

    def splits(records, seed=0):
        splitter = FoldSplit(k=3, key="domain", seed=seed)
        splitter.fit(records)
        return {r.prompt: splitter.split_of(r) for r in records}

    assert splits(records) == splits(shuffled)
    assert any(splits(records) != splits(records, seed) for seed in range(1, 5))


def test_groups_that_share_a_prompt_are_one_and_named_together():
    records = [*grouped([5] * 9), record("shared", domain="g3"), record("SHARED ", domain="g7")]
    for seed in range(5):
        splitter = FoldSplit(k=None, key="domain", seed=seed)
        splitter.fit(records)
        assert splitter.n_folds == 8
        assert "g3 + g7" in splitter.names.values()
        first, second = (prompt_hash(f"{g}: question 0") for g in (3, 7))
        assert splitter.fold_of(first) == splitter.fold_of(second)


def test_validation_takes_whole_groups_where_they_fit_and_prompts_where_they_do_not():
    nine = grouped([10] * 9)
    found, _ = split_by_fold(nine, k=None, key="domain", val=0.1)
    for splits in found:
        assert len({r.domain for r, s in zip(nine, splits, strict=True) if s == "val"}) == 1
        assert splits.count("val") == 10
    two = [record(f"{g}: {i}", domain=f"g{g}") for g in range(2) for i in range(20)]
    for splits in split_by_fold(two, k=2, key="domain", val=0.1)[0]:
        assert Counter(splits) == {"test": 20, "val": 2, "train": 18}


def test_more_folds_than_groups_leave_one_group_out_and_say_so():
    with pytest.warns(UserWarning, match=r"split\.k=12, but split\.key=domain has 4 groups.*split\.k=4"):
        found, splitter = split_by_fold(grouped([3] * 4), k=12, key="domain")
    assert (len(found), splitter.n_folds) == (4, 4)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"k": 1}, r"split\.k=1"), ({"val": 0.0}, r"split\.val=0"), ({"val": 0.6}, r"split\.val=0\.6")],
)
def test_options_out_of_range_are_refused_before_any_reading(options, match):
    with pytest.raises(ValueError, match=match):
        FoldSplit(**options)


def test_what_cannot_be_left_out_is_said():
    with pytest.raises(RecordError, match=r"split\.key.*1 group: nothing to leave out"):
        FoldSplit(key="domain").fit(grouped([5]))
    with pytest.raises(RecordError, match=r"split\.fold.*7: there are 3 folds"):
        FoldSplit(k=None, key="domain", fold=7).fit(grouped([5] * 3))
    with pytest.raises(RecordError, match=r"leaves 1 prompt to train and to validate"):
        FoldSplit(k=2).fit([record("one"), record("two")])
    with pytest.raises(RecordError, match=r"no 'debate'.*domain, tree_id"):
        FoldSplit(key="debate").fit([record("p", tree_id="t")])
