"""The split report: counts that add up, leaks that are found, splits that are empty."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.data.splits import SPLITS, BalancedSplit, HashSplit, SplitReport
from rlhf.records import Comparison, Completion


def record(prompt, domain="d", texts=("yes", "no"), **meta):
    return Comparison("id", prompt, tuple(Completion(str(i), t) for i, t in enumerate(texts)), domain=domain, meta=meta)


def report(*pairs, **options):
    accumulator = SplitReport(**options)
    for r, split in pairs:
        accumulator.add(r, split)
    return accumulator.as_dict()


rows = st.lists(
    st.tuples(
        st.builds(record, st.sampled_from("abcdefgh"), st.sampled_from(["x", "y", None]), difficulty=st.integers(0, 2)),
        st.sampled_from(SPLITS),
    )
)


@settings(deadline=None)
@given(rows)
def test_counts_add_up_and_straddling_prompts_are_counted_exactly(pairs):
    out = report(*pairs)
    json.dumps(out)
    assert sum(s["records"] for s in out["splits"].values()) == len(pairs)
    homes = {r.prompt: {s for q, s in pairs if q.prompt == r.prompt} for r, _ in pairs}
    assert out["prompts_in_several_splits"] == sum(len(splits) > 1 for splits in homes.values())
    for split in SPLITS:
        inside = [r for r, s in pairs if s == split]
        assert out["splits"][split]["prompts"] == len({r.prompt for r in inside})
        domains = Counter(r.domain or "none" for r in inside)
        assert domains == Counter({d: c[split]["records"] for d, c in out["domain"].items()})
        for level, counts in out["difficulty"].items():
            assert counts[split]["prompts"] == len({r.prompt for r in inside if str(r.meta["difficulty"]) == level})
    assert sum(s["fraction"] for s in out["splits"].values()) == pytest.approx(1 if pairs else 0)


@pytest.mark.parametrize("splitter", [HashSplit(), BalancedSplit()], ids=["hash", "balanced"])
def test_a_splitter_has_no_prompt_in_two_splits(splitter):
    records = [record(f"question {i % 200}") for i in range(600)]
    splitter.fit(records)
    out = report(*((r, splitter.split_of(r)) for r in records))
    assert out["prompts_in_several_splits"] == 0
    assert out["empty"] == {}


def test_a_row_level_split_is_caught():
    """Two records of one prompt, spelled differently, in train and test."""
    out = report((record("Why?"), "train"), (record(" WHY? "), "test"), (record("How?"), "val"))
    assert out["prompts_in_several_splits"] == 1


def test_completions_shared_with_train_are_counted_once_each():
    out = report(
        (record("a", texts=("one", "two")), "train"),
        (record("b", texts=("One ", "three")), "val"),
        (record("c", texts=("TWO", "two ")), "test"),
        (record("d", texts=("three", "four")), "test"),
    )
    assert out["completions_shared"] == 2


def test_near_duplicates_across_splits_are_counted_and_within_a_split_are_not():
    words = [f"word{w}" for w in np.random.default_rng(0).integers(0, 500, size=60)]
    base, longer, other = " ".join(words), " ".join([*words, "more"]), " ".join(words[::-1])
    across = report((record(base), "train"), (record(longer), "test"), (record(other), "val"))
    assert across["near_duplicate_prompts"] == 1
    for split in SPLITS:
        inside = report((record(base), split), (record(longer), split), (record(other), "val"))
        assert inside["near_duplicate_prompts"] == 0


@pytest.mark.parametrize("most", [0, 2])
def test_near_duplicates_are_not_looked_for_among_more_prompts_than_allowed(most):
    out = report(*((record(f"question {i}"), "train") for i in range(3)), near_duplicates=most)
    assert out["near_duplicate_prompts"] is None


def test_balance_is_rejected_where_domains_fall_into_different_splits():
    apart = [(record(f"q{i}", domain="xy"[i % 2]), ("train", "test")[i % 2]) for i in range(100)]
    even = [(record(f"q{i}", domain="xy"[i % 2]), ("train", "test")[i // 2 % 2]) for i in range(100)]
    assert report(*apart)["balance_p"]["domain"] < 1e-6
    assert report(*even)["balance_p"]["domain"] == pytest.approx(1)


def test_balance_p_of_a_random_split_is_uniform():
    """Mean of 60 p-values: 0.5, sd 0.29 / sqrt(60) = 0.037; four sd."""
    values = []
    for seed in range(60):
        splitter = HashSplit(val=0.2, test=0.2, seed=seed)
        records = [record(f"q{i}", domain="xyz"[i % 3]) for i in range(300)]
        values.append(report(*((r, splitter.split_of(r)) for r in records), near_duplicates=0)["balance_p"]["domain"])
    assert np.mean(values) == pytest.approx(0.5, abs=0.15)


def test_balance_of_one_domain_or_one_split_is_nothing_to_compare():
    out = report((record("a"), "train"), (record("b"), "test"))
    assert out["balance_p"] == {"domain": None, "difficulty": None}
    assert report((record("a", domain="x"), "train"), (record("b", domain="y"), "train"))["balance_p"]["domain"] is None


def test_empty_splits_are_named_with_a_remedy():
    out = report((record("a"), "train"))
    assert set(out["empty"]) == {"val", "test"}
    assert "split=balanced" in out["empty"]["val"]
    assert set(report()["empty"]) == set(SPLITS)


@pytest.mark.parametrize("held", [1, 3, 16])
def test_rows_on_disk_give_the_report_of_rows_in_memory(monkeypatch, held):
    rng = np.random.default_rng(held)
    pairs = [
        (record(f"p{rng.integers(60)}", "xyz"[rng.integers(3)], texts=(f"t{rng.integers(20)}", "no")), s)
        for s in rng.choice(SPLITS, 200)
    ]
    in_memory = report(*pairs)
    monkeypatch.setattr("rlhf.data.spill.HELD", held)
    assert report(*pairs) == in_memory
    assert in_memory["prompts_in_several_splits"] > 0
    assert in_memory["completions_shared"] > 0


def test_equal_hashes_meet_in_one_bucket_and_nothing_is_lost(monkeypatch):
    from rlhf.data import spill

    monkeypatch.setattr(spill, "HELD", 7)
    rows = spill.Spill([("n", "u4")])
    hashes = [f"{h:016x}" for h in np.random.default_rng(0).integers(0, 2**63, 40).tolist()] * 3
    for n, h in enumerate(hashes):
        rows.add(h, n)
    buckets = [b for b in rows.buckets() if len(b)]
    assert len(buckets) > 5
    assert sorted(int(n) for b in buckets for n in b["n"]) == list(range(120))
    homes = [set(b["hash"].tolist()) for b in buckets]
    assert sum(map(len, homes)) == 40 == len(set().union(*homes))
    assert all(int(h, 16) == int(r["hash"]) for b in buckets for r in b for h in [hashes[int(r["n"])]])
