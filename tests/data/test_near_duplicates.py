"""MinHash: its pairs against all pairs compared by brute force, and the chances that banding promises."""

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.data.near_duplicates import REACH, NearDuplicates, connected, jaccard, shingles


def sentence(words, seed):
    return " ".join(f"word{w}" for w in np.random.default_rng(seed).integers(0, 500, size=words))


def runs(text, size=5):
    """An independent reading of the definition: the set of runs of words, or of letters when short."""
    words = text.lower().split()
    tokens = words if len(words) >= 10 else list(" ".join(words))
    return {tuple(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))}


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "dd", "e"]), min_size=1, max_size=30), st.integers(0, 9))
def test_jaccard_of_hashes_is_jaccard_of_the_runs_themselves(words, cut):
    first, second = " ".join(words), " ".join(words[cut:] + words[:cut])
    a, b = runs(first), runs(second)
    assert len(shingles(first)) == len(a)
    assert jaccard(shingles(first), shingles(second)) == pytest.approx(len(a & b) / len(a | b))


@pytest.mark.parametrize("text", ["", "x", "four", "日本語のテキスト", "a" * 10_000, "\ud800 lone"])
def test_any_text_has_a_set_of_shingles(text):
    found = shingles(text)
    assert len(found) >= 1
    assert jaccard(found, shingles(text)) == 1


def test_spelling_does_not_change_the_shingles():
    assert np.array_equal(shingles("The ﬁrst  Word"), shingles("the FIRST\nword "))


def test_the_order_of_words_matters():
    words = sentence(12, 0).split()
    assert jaccard(shingles(" ".join(words)), shingles(" ".join(reversed(words)))) == 0


def family(seed):
    """30 sentences of 30 words, each an earlier one with up to 4 words changed."""
    draw, texts = random.Random(seed), [sentence(30, seed)]
    while len(texts) < 30:
        words = draw.choice(texts).split()
        for _ in range(draw.randrange(5)):
            words[draw.randrange(30)] = f"new{draw.randrange(1000)}"
        texts.append(" ".join(words))
    return texts


def test_pairs_are_those_of_brute_force_but_for_a_few_near_the_threshold():
    """Precision is exactly 1. Recall at 0.6 and above is at least 0.98 by design; 0.97 leaves room for chance."""
    found, true = 0, 0
    for seed in range(10):
        texts = {f"{i:02d}": text for i, text in enumerate(family(seed))}
        index = NearDuplicates(threshold=0.6)
        for key, text in texts.items():
            index.add(key, text)
        pairs = list(index.pairs())
        assert len(set(pairs)) == len(pairs)
        wanted = {
            (i, j)
            for i, j in combinations(texts, 2)
            if len(runs(texts[i]) & runs(texts[j])) >= 0.6 * len(runs(texts[i]) | runs(texts[j]))
        }
        assert set(pairs) <= wanted
        found, true = found + len(pairs), true + len(wanted)
    assert true > 200
    assert found / true >= 0.97


@pytest.mark.parametrize(("bands", "rows"), [(4, 1), (4, 4), (16, 4)])
def test_a_pair_becomes_a_candidate_as_often_as_the_formula_says(bands, rows):
    """P = 1 - (1 - J^rows)^bands over 400 independent hash families; the tolerance is four sd of the mean."""
    first = sentence(60, 3)
    words = first.split()
    words[20:24] = ["these", "four", "are", "new"]
    second = " ".join(words)
    j = jaccard(shingles(first), shingles(second))
    chance = 1 - (1 - j**rows) ** bands
    hits = 0
    for seed in range(400):
        index = NearDuplicates(threshold=0.01, bands=bands, rows=rows, seed=seed)
        index.add("a", first)
        index.add("b", second)
        hits += bool(list(index.pairs()))
    assert 0.5 < j < 0.9
    assert hits / 400 == pytest.approx(chance, abs=4 * (chance * (1 - chance) / 400) ** 0.5 + 1e-3)


@settings(deadline=None, max_examples=40)
@given(order=st.permutations(range(30)))
def test_pairs_and_clusters_do_not_depend_on_the_order_of_adding(order):
    texts = family(1)[:15] + family(2)[:15]
    first, second = NearDuplicates(), NearDuplicates()
    for i in range(30):
        first.add(f"{i:02d}", texts[i])
        second.add(f"{order[i]:02d}", texts[order[i]])
    assert list(first.pairs()) == list(second.pairs())
    assert first.clusters() == second.clusters()


def test_chains_are_one_cluster_named_by_its_smallest_key():
    """A word of 80 changes at every step: Jaccard 71/81 between neighbours, 61/91 between the ends."""
    words = sentence(80, 5).split()
    index, texts = NearDuplicates(threshold=0.8), []
    for step, key in enumerate("dbca"):
        texts.append(" ".join(words))
        index.add(key, texts[-1])
        words[10 + 20 * step] = f"new{step}"
    index.add("z", sentence(80, 6))
    assert jaccard(shingles(texts[0]), shingles(texts[1])) == pytest.approx(71 / 81)
    assert jaccard(shingles(texts[0]), shingles(texts[3])) == pytest.approx(61 / 91)
    assert index.clusters() == dict.fromkeys("abcd", "a")


def test_a_huge_bucket_is_compared_in_reach_and_still_one_cluster():
    index = NearDuplicates()
    n = 4 * REACH
    text = sentence(200, 7)
    for i in range(n):
        index.add(f"{i:04d}", f"{text} {i}")
    assert len(set(index.clusters().values())) == 1
    assert sum(1 for _ in index.pairs()) < n * n / 2


def test_a_key_seen_before_is_ignored():
    index = NearDuplicates()
    index.add("k", "one text that is here")
    index.add("k", "another text")
    assert len(index) == 1
    assert list(index) == ["k"]
    assert list(index.pairs()) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh"))))
def test_connected_gives_the_smallest_member_of_the_connected_set(edges):
    neighbours = {v: {v} for v in "abcdefgh"}
    for a, b in edges:
        joined = neighbours[a] | neighbours[b]
        for v in joined:
            neighbours[v] = joined
    found = connected(edges)
    assert set(found) == {v for edge in edges for v in edge}
    assert all(found.get(v, v) == min(neighbours[v]) for v in "abcdefgh")
