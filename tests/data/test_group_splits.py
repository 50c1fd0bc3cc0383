"""Near-duplicates and groups stay on one side of the split."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.data.group_splits import GroupSplit, NearDuplicateSplit
from rlhf.data.splits import SPLITS, HashSplit
from rlhf.records import Comparison, Completion, RecordError

BOTH = (Completion("a", "yes"), Completion("b", "no"))


def record(prompt, domain="d", **meta):
    return Comparison("id", prompt, BOTH, domain=domain, meta=meta)


def grouped(sizes):
    return [record(f"{g}: question {i}", domain=f"g{g}") for g, n in enumerate(sizes) for i in range(n)]


def splits_of_groups(splitter, records):
    splitter.fit(records)
    found = defaultdict(set)
    for r in records:
        found[r.domain].add(splitter.split_of(r))
    return found


def sentences(n, words, seed):
    draw = np.random.default_rng(seed).integers(0, 3000, size=(n, words))
    return [" ".join(f"word{w}" for w in row) for row in draw]


def test_planted_near_duplicates_share_a_split():
    """One word of 40 changed, or a sentence put before: Jaccard 31/41 and 36/47.

    A pair is missed with probability (1 - J^4)^32 < 10^-5, so recall over 300 families is 1 but for chance 0.01.
    """
    originals = sentences(300, 40, seed=1)
    changed = [" ".join([*text.split()[:20], "replaced", *text.split()[21:]]) for text in originals]
    prefixed = ["You are a helpful assistant who answers at length and well. " + text for text in originals]
    splitter = NearDuplicateSplit(val=0.25, test=0.25)
    splitter.fit(record(text) for text in originals + changed + prefixed)
    by_hash = HashSplit(val=0.25, test=0.25)
    straddle = {"near": 0, "hash": 0}
    for family in zip(originals, changed, prefixed, strict=True):
        for name, one in (("near", splitter), ("hash", by_hash)):
            straddle[name] += len({one.split_of(record(text)) for text in family}) > 1
    assert straddle["near"] == 0
    assert straddle["hash"] > 200  # three independent draws agree in 16 % of families


def test_unrelated_prompts_are_split_as_by_hash():
    texts = sentences(300, 40, seed=2)
    splitter = NearDuplicateSplit()
    splitter.fit(record(text) for text in texts)
    assert [splitter.split_of(record(t)) for t in texts] == [HashSplit().split_of(record(t)) for t in texts]


@pytest.mark.parametrize("option", [{"threshold": 0}, {"threshold": 1.5}, {"bands": 0}, {"rows": 0}, {"val": 2}])
def test_options_out_of_range_are_refused_before_any_reading(option):
    with pytest.raises(ValueError, match=rf"split\.{next(iter(option))}"):
        NearDuplicateSplit(**option)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=3, max_size=12), seed=st.integers(0, 3))
def test_groups_stay_whole_and_every_split_is_filled(sizes, seed):
    found = splits_of_groups(GroupSplit(seed=seed), grouped(sizes))
    assert all(len(splits) == 1 for splits in found.values())
    assert set().union(*found.values()) == set(SPLITS)


@settings(deadline=None)
@given(n=st.integers(10, 60), seed=st.integers(0, 3))
def test_shares_of_equal_groups_are_within_one_group(n, seed):
    found = splits_of_groups(GroupSplit(seed=seed), grouped([4] * n))
    counts = Counter(s for splits in found.values() for s in splits)
    for split, share in (("val", 0.1), ("test", 0.1), ("train", 0.8)):
        assert abs(counts[split] - share * n) <= 1 + 1e-9


def test_a_giant_group_goes_to_train():
    """With 96 % of the records in one group the closest shares put it, and nothing else, into train."""
    for seed in range(5):
        found = splits_of_groups(GroupSplit(seed=seed), grouped([480, 10, 10]))
        assert found["g0"] == {"train"}
        assert {*found["g1"], *found["g2"]} == {"val", "test"}


def test_sizes_count_and_not_only_the_number_of_groups():
    """Two groups of 45 % and five of 2 %: shares 0.1 each take small groups, whichever order is drawn."""
    for seed in range(5):
        records = grouped([450, 450, 20, 20, 20, 20, 20])
        splitter = GroupSplit(val=0.04, test=0.06, seed=seed)
        splitter.fit(records)
        counts = Counter(splitter.split_of(r) for r in records)
        assert counts == {"train": 900, "val": 40, "test": 60}


def test_groups_that_share_a_prompt_are_one_group():
    records = [*grouped([5] * 20), record("shared", domain="g3"), record("SHARED ", domain="g11")]
    for seed in range(10):
        found = splits_of_groups(GroupSplit(val=0.3, test=0.3, seed=seed), records)
        assert found["g3"] == found["g11"]


def test_the_key_may_be_any_key_of_the_meta():
    records = [record(f"question {i}", tree_id=f"t{i % 7}") for i in range(70)]
    splitter = GroupSplit(key="tree_id")
    splitter.fit(records)
    of_tree = defaultdict(set)
    for r in records:
        of_tree[r.meta["tree_id"]].add(splitter.split_of(r))
    assert all(len(splits) == 1 for splits in of_tree.values())
    assert len(set().union(*of_tree.values())) == 3


def test_another_seed_gives_other_groups_to_the_test():
    tests = set()
    for seed in range(10):
        found = splits_of_groups(GroupSplit(seed=seed), grouped([10] * 10))
        tests.add(frozenset(g for g, splits in found.items() if "test" in splits))
    assert len(tests) > 3


def test_a_record_without_its_group_names_the_keys_there_are():
    with pytest.raises(RecordError, match=r"split\.key.*no 'tree_id'.*domain, debate"):
        GroupSplit(key="tree_id").fit([record("p", debate="x")])
    with pytest.raises(RecordError, match=r"no 'domain'.*split=hash"):
        GroupSplit().fit([record("p", domain=None)])


def test_no_orders_to_try_is_refused():
    with pytest.raises(ValueError, match=r"split\.tries=0"):
        GroupSplit(tries=0)
