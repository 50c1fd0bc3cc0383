"""Splits: no prompt in two of them, shares as asked, and what stays put when data are re-ordered or added."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hydra.utils import instantiate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rlhf.data.splits import OFFICIAL_NAMES, SPLITS, BalancedSplit, HashSplit, OfficialSplit, at_least_one
from rlhf.records import Comparison, Completion, RecordError, lines, prompt_hash

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "conf" / "split").glob("*.yaml"))
OASST = ROOT.parent / "shared" / "data" / "oasst_rankings.jsonl"

BOTH = (Completion("a", "yes"), Completion("b", "no"))


def record(prompt, domain="d", **meta):
    return Comparison("id", prompt, BOTH, domain=domain, meta=meta)


def numbered(n, **options):
    return [record(f"question number {i}", **options) for i in range(n)]


def assigned(splitter, records):
    """The split of every prompt after one reading; fails when a prompt has two."""
    splitter.fit(iter(records))
    found = defaultdict(set)
    for r in records:
        found[prompt_hash(r.prompt)].add(splitter.split_of(r))
    assert all(len(splits) == 1 for splits in found.values())
    return {key: splits.pop() for key, splits in found.items()}


prompts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["Hello there", "hello  THERE", "x"])
records_of_any_kind = st.lists(
    st.builds(
        record,
        prompts,
        st.sampled_from(["code", "chat", "maths"]),
        difficulty=st.sampled_from([None, 1, 2, "hard"]),
        split=st.sampled_from(sorted(OFFICIAL_NAMES)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
@settings(deadline=None, max_examples=50)
@given(records=records_of_any_kind, order=st.randoms(use_true_random=False))
def test_every_splitter_keeps_prompts_whole_and_ignores_the_order(path, records, order):
    config = OmegaConf.load(path)
    assume(path.stem != "folds" or len({prompt_hash(r.prompt) for r in records}) > 2)
    before = assigned(instantiate(config), records)
    shuffled = order.sample(records, len(records))
    assert assigned(instantiate(config), shuffled) == before
    assert set(before.values()) <= set(SPLITS)


def test_there_is_a_config_for_every_splitter():
    assert {p.stem for p in CONFIGS} == {"hash", "balanced", "near_duplicate", "by_domain", "official", "folds"}


@settings(deadline=None)
@given(records=records_of_any_kind, more=records_of_any_kind)
def test_hash_split_never_moves_a_prompt_when_data_are_added(records, more):
    before, after = assigned(HashSplit(), records), assigned(HashSplit(), [*more, *records])
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize(
    "spelling",
    [
        "What is an ﬁsh?",
        "what is AN fish?",
        "  What\tis\n an  fish? ",
        "What is an ｆｉｓｈ?",
        ({"role": "user", "content": "What is an fish?"},),
    ],
)
def test_spellings_of_one_prompt_share_a_split(spelling):
    for seed in range(50):
        splitter = HashSplit(val=0.3, test=0.3, seed=seed)
        assert splitter.split_of(record(spelling)) == splitter.split_of(record("What is an fish?"))


def test_hash_split_meets_its_shares_within_chance():
    """20,000 prompts: sd of a share of 0.1 is 0.0021; five of them are a false alarm in 10^-6 of seeds."""
    n = 20_000
    counts = Counter(assigned(HashSplit(val=0.1, test=0.2), numbered(n)).values())
    assert counts["val"] / n == pytest.approx(0.1, abs=5 * (0.1 * 0.9 / n) ** 0.5)
    assert counts["test"] / n == pytest.approx(0.2, abs=5 * (0.2 * 0.8 / n) ** 0.5)


def test_hash_split_keeps_its_test_set_when_only_val_changes():
    few, many = (assigned(HashSplit(val=val), numbered(500)) for val in (0.05, 0.4))
    assert {k for k, s in few.items() if s == "test"} == {k for k, s in many.items() if s == "test"}


@pytest.mark.parametrize("kind", [HashSplit, BalancedSplit])
def test_another_seed_is_another_split(kind):
    first, second = (assigned(kind(seed=seed), numbered(500)) for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("shares", [{"val": -0.1}, {"test": 1.2}, {"val": 0.6, "test": 0.6}])
@pytest.mark.parametrize("kind", [HashSplit, BalancedSplit])
def test_shares_that_are_no_fractions_are_refused(kind, shares):
    with pytest.raises(ValueError, match=r"split\.val=.*split\.test="):
        kind(**shares)


def test_everything_can_be_test():
    for kind in (HashSplit, BalancedSplit):
        assert set(assigned(kind(val=0.0, test=1.0), numbered(30)).values()) == {"test"}


shares = st.floats(0, 0.5)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8), val=shares, test=shares, seed=st.integers(0, 5)
)  # fmt: skip
def test_balanced_split_is_within_one_prompt_of_its_shares_and_within_two_in_every_stratum(sizes, val, test, seed):
    records = [record(f"{s}: {i}", domain=str(s % 3), difficulty=s) for s, n in enumerate(sizes) for i in range(n)]
    found = assigned(BalancedSplit(val=val, test=test, seed=seed), records)
    total = Counter(found.values())
    raised_val, raised_test = at_least_one(val, test, len(records))
    wanted = {"train": 1 - raised_val - raised_test, "val": raised_val, "test": raised_test}
    for split in SPLITS:
        assert abs(total[split] - len(records) * wanted[split]) <= 1 + 1e-6
    for s, n in enumerate(sizes):
        inside = Counter(found[prompt_hash(r.prompt)] for r in records if r.meta["difficulty"] == s)
        for split in SPLITS:
            assert abs(inside[split] - n * wanted[split]) <= 2 + 1e-6


def test_balanced_split_is_exact_where_the_shares_are_whole_numbers():
    records = [record(f"{d} {i}", domain=d) for d in ("code", "chat", "maths") for i in range(40)]
    found = assigned(BalancedSplit(val=0.1, test=0.2), records)
    for domain in ("code", "chat", "maths"):
        counts = Counter(found[prompt_hash(r.prompt)] for r in records if r.domain == domain)
        assert counts == {"train": 28, "val": 4, "test": 8}


@settings(deadline=None)
@given(n=st.integers(3, 30), val=st.floats(0.001, 0.49), test=st.floats(0.001, 0.49), strata=st.integers(1, 30))
def test_balanced_split_fills_every_split_from_three_prompts_on(n, val, test, strata):
    records = [record(f"question {i}", difficulty=i % strata) for i in range(n)]
    assert set(assigned(BalancedSplit(val=val, test=test), records).values()) == set(SPLITS)


@settings(deadline=None)
@given(n=st.integers(3, 200), val=st.floats(0, 0.5), test=st.floats(0, 0.5))
def test_raised_shares_are_worth_one_item_and_still_a_whole(n, val, test):
    raised = at_least_one(val, test, n)
    asked = {"val": (val, raised[0]), "test": (test, raised[1]), "train": (1 - val - test, 1 - sum(raised))}
    for before, after in asked.values():
        if before > 1e-9:
            assert after >= 1 / n - 1e-9
        else:
            assert after == pytest.approx(0, abs=1e-9)


@settings(deadline=None)
@given(n=st.integers(20, 120), seed=st.integers(0, 20))
def test_adding_a_prompt_moves_at_most_one_prompt_per_cut_and_stratum(n, seed):
    strata = 3
    records = [record(f"question {i}", difficulty=i % strata) for i in range(n)]
    before = assigned(BalancedSplit(seed=seed), records)
    after = assigned(BalancedSplit(seed=seed), [*records, record("one more", difficulty=0)])
    assert sum(after[key] != split for key, split in before.items()) <= 2 * strata


def test_a_prompt_in_two_strata_is_one_prompt():
    records = [*numbered(30, domain="x"), *numbered(30, domain="y")]
    found = assigned(BalancedSplit(), records)
    assert Counter(found.values()) == {"train": 24, "val": 3, "test": 3}


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem != "hash"], ids=lambda p: p.stem)
def test_a_prompt_that_fit_never_saw_is_an_error_with_the_remedy(path):
    splitter = instantiate(OmegaConf.load(path))
    assert splitter.needs_fit
    splitter.fit(numbered(3, split="train"))
    with pytest.raises(RecordError, match="call fit"):
        splitter.split_of(record("another one", domain="elsewhere", split="train"))


def test_official_split_follows_the_names():
    for name, split in OFFICIAL_NAMES.items():
        assert set(assigned(OfficialSplit(), numbered(3, split=name)).values()) == {split}


def test_official_split_gives_a_prompt_in_several_splits_to_the_more_protected_one():
    splitter = OfficialSplit()
    found = assigned(
        splitter,
        [
            record("A", split="train"), record("a", split="test"),
            record("B", split="valid1"), record("b", split="train"),
            record("C", split="valid2"), record("c", split="valid1"), record("c ", split="train"),
            record("D", split="train"),
        ],
    )  # fmt: skip
    assert found == {prompt_hash(k): s for k, s in {"a": "test", "b": "val", "c": "test", "d": "train"}.items()}
    assert splitter.moved == 3


def test_official_split_without_names_says_so_and_offers_another():
    with pytest.raises(RecordError, match=r"meta\.split.*split=hash"):
        OfficialSplit().fit(numbered(1))


def test_official_split_with_an_unknown_name_lists_the_known_ones():
    with pytest.raises(RecordError, match=r"'holdout'.*valid1.*split\.names"):
        OfficialSplit().fit(numbered(1, split="holdout"))


def test_official_names_must_mean_a_split():
    with pytest.raises(ValueError, match=r"split\.names\.dev='validation'.*train, val, test"):
        OfficialSplit(names={"dev": "validation"})


def test_the_official_config_shows_the_default_names():
    assert OmegaConf.load(ROOT / "conf" / "split" / "official.yaml").names == OFFICIAL_NAMES


@pytest.mark.skipif(not OASST.is_file(), reason="the data beside the project are not here")
def test_conversations_of_one_tree_share_a_split():
    rows = [row for _, row in lines(OASST)]
    records = [record(tuple(row["messages"]), tree_id=row["tree_id"]) for row in rows]
    config = OmegaConf.merge(OmegaConf.load(ROOT / "conf" / "split" / "by_domain.yaml"), {"key": "tree_id"})
    found = assigned(instantiate(config), records)
    of_tree = defaultdict(set)
    for r in records:
        of_tree[r.meta["tree_id"]].add(found[prompt_hash(r.prompt)])
    assert len(of_tree) == 60
    assert all(len(splits) == 1 for splits in of_tree.values())
    share = Counter(found[prompt_hash(r.prompt)] for r in records)
    assert share["test"] / len(records) == pytest.approx(0.1, abs=0.03)
