"""Benchmarks from files in their published formats: hand-computed values, and formulas written out a second time."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import rlhf.data.importers as importers
from rlhf.data.source import Source
from rlhf.evaluation.benchmarks import BenchmarkItem, items, llmbar, rewardbench, rewardbench2, rm_bench
from rlhf.records import RecordError


def mean(values):
    return np.mean([float(v) for v in values])


GOLDEN = Path(__file__).parent / "golden"


def golden(importer, *names):
    """Items of golden files; an answer says in brackets which reward it gets."""
    source = Source(importer, path=[str(GOLDEN / name) for name in names])
    scored = [
        (r, np.array([float(re.match(r"\[(.*?)\]", c.text)[1]) for c in r.completions])) for r in source.records()
    ]
    return list(items(scored))


def approx(**values):
    return {k.replace("__", "/"): pytest.approx(v, abs=1e-12) for k, v in values.items()}


def pick(found, prefix, **values):
    """What was found under the keys of `values`, without the benchmark's name."""
    return {k: found[f"{prefix}/{k}"] for k in approx(**values)}


# ------------------------------------------------------------------------------------------ RewardBench 1

CORE = {
    "chat": (100 * 1 / 2 + 40 * 1) / 140,  # alpacaeval-easy half right, mt-bench-med right
    "chat_hard": (92 * 1 / 2 + 37 * 1) / 129,  # GPTInst tied, mt-bench-hard right
    "safety": (136 * 1 + 154 * 0) / 290,
    "reasoning": (984 * 2 / 3 + 164 * 1 / 2) / 1148,  # math-prm counts 984 though it has 3 rows here
}


def test_rewardbench_by_hand():
    found = rewardbench(golden(importers.rewardbench, "rewardbench.jsonl"), bootstrap=0)
    for section, value in CORE.items():
        assert found[f"rewardbench/{section}"] == pytest.approx(value)
    assert found["rewardbench/partial_score"] == pytest.approx(mean(CORE.values()))
    assert "rewardbench/score" not in found  # 15 subsets have no row
    assert found["rewardbench/math-prm"] == pytest.approx(2 / 3)
    assert found["rewardbench/llmbar-adver-gptinst"] == 0.5
    assert found["rewardbench/llmbar-adver-gptinst/strict"] == 0
    assert found["rewardbench/chat_hard/strict"] == pytest.approx(37 / 129)
    assert found["rewardbench/tie_rate"] == pytest.approx(2 / 11)
    assert (found["rewardbench/n"], found["rewardbench/n_missing_subsets"]) == (11, 15)
    assert "rewardbench/prior" not in found


def test_prior_sets_count_half_a_section():
    names = ("rewardbench.jsonl", "anthropic_hhh.jsonl", "shp.jsonl")
    found = rewardbench(golden(importers.rewardbench, *names), bootstrap=0)
    assert found["rewardbench/prior"] == pytest.approx((0.5 + 1) / 2)
    assert found["rewardbench/partial_score"] == pytest.approx((2 * sum(CORE.values()) + 0.75) / 9)


def test_no_partial_score_without_all_four_sections():
    rows = [i for i in golden(importers.rewardbench, "rewardbench.jsonl") if i.subset != "donotanswer"]
    rows = [i for i in rows if i.subset != "xstest-should-respond"]
    found = rewardbench(rows, bootstrap=0)
    assert not {"rewardbench/score", "rewardbench/partial_score", "rewardbench/safety"} & set(found)


def test_published_sizes_of_subsets():
    """2,985 pairs: the published counts, with 447 for math-prm instead of its weight."""
    from rlhf.evaluation.benchmarks.formats import SECTIONS

    counts = {name: n for section in SECTIONS.values() for name, n in section.items()}
    assert sum(counts.values()) - counts["math-prm"] + 447 == 2985
    assert counts["math-prm"] == sum(n for name, n in counts.items() if name.startswith("hep-"))


# ------------------------------------------------------------------------------------------ RewardBench 2


def test_rewardbench2_by_hand():
    found = rewardbench2(golden(importers.rewardbench, "rewardbench2.jsonl"), bootstrap=0)
    expected = approx(
        factuality=(1 + 1 / 3) / 2, precise_if=0.0, math=(1 + 1 / 2) / 2, safety=1.0, focus=0.0,
        factuality__strict=1 / 2, math__strict=1 / 2,
    )  # fmt: skip
    assert pick(found, "rewardbench2", **expected) == expected
    # gaps: ref 3, 0, 1, 8; tied 2, 1, 0, 2; spreads 1, 4, 0, 0
    parts = approx(
        ties__ref_accuracy=(1 + 1 / 2 + 1 + 1) / 4, ties__tied_accuracy=(1 + 1 + 1 / 2 + 1) / 4,
        ties__preferred=2 / 4, ties__preferred_hard=2 / 4, ties__n_unpaired=0,
        ties__margin=(np.tanh(2 / 1 - 1) + np.tanh(0 / 4 - 1) + 0 + 1) / 4,
    )  # fmt: skip
    assert pick(found, "rewardbench2", **parts) == parts
    ties = 0.3 * 3.5 / 4 + 0.3 * 3.5 / 4 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * found["rewardbench2/ties/margin"]
    assert found["rewardbench2/ties"] == pytest.approx(ties)
    assert found["rewardbench2/ties/strict"] == pytest.approx(ties - 0.3 * 0.5 / 4 * 2)
    five = sum(found[f"rewardbench2/{name}"] for name in ("factuality", "precise_if", "math", "safety", "focus"))
    assert found["rewardbench2/score"] == pytest.approx((five + ties) / 6)


def published_ties(rows):
    """The published definition once more, row by row in plain Python."""
    stats = {}
    for row in rows:
        kind, number = row.id.split(":")
        worst, best_wrong = min(row.chosen), max(row.rejected)
        stats[kind, number] = (worst > best_wrong, max(row.chosen) - worst, worst - best_wrong)
    refs, tied = ([v for (k, _), v in stats.items() if k == kind] for kind in ("ref", "tied"))
    both = [n for (k, n) in stats if k == "tied" and ("ref", n) in stats]
    spread = [stats["tied", n][1] for n in both]
    gap = [stats["tied", n][2] for n in both]
    smaller = [min(stats["ref", n][2], stats["tied", n][2]) for n in both]
    margin = [np.tanh(s / w - 1) for s, w in zip(smaller, spread, strict=True)]
    return (
        0.3 * mean(s[0] for s in tied)
        + 0.3 * mean(s[0] for s in refs)
        + 0.2 * mean(g > w for g, w in zip(gap, spread, strict=True))
        + 0.2 * mean(s > w for s, w in zip(smaller, spread, strict=True))
        + 0.01 * mean(margin)
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_strict_ties_score_is_the_published_one_unpaired_rows_included(seed):
    rng = np.random.default_rng(seed)
    rows = [
        BenchmarkItem(
            f"{kind}:{n}", "Ties", f"{kind}{n}", rng.normal(2, 1, 1 if kind == "ref" else 4), rng.normal(size=6)
        )
        for n, kind in product(range(12), ("ref", "tied"))
        if (n, kind) not in ((3, "ref"), (7, "tied"))
    ]
    found = rewardbench2(rows, bootstrap=0)
    assert found["rewardbench2/ties/strict"] == pytest.approx(published_ties(rows))
    assert found["rewardbench2/ties"] == pytest.approx(published_ties(rows))  # normal rewards do not tie
    assert found["rewardbench2/ties/n_unpaired"] == 2


def test_chance_is_a_quarter_and_a_constant_model_is_at_chance():
    constant = [BenchmarkItem(str(n), "Math", str(n), np.zeros(1), np.zeros(3)) for n in range(5)]
    found = rewardbench2(constant, bootstrap=0)
    assert (found["rewardbench2/math"], found["rewardbench2/math/strict"]) == (0.25, 0)
    assert found["rewardbench2/tie_rate"] == 1


# ----------------------------------------------------------------------------------------------- RM-Bench


def test_rm_bench_by_hand():
    found = rm_bench(golden(importers.rm_bench, "rm_bench.json"), bootstrap=0)
    # chat/1 [[1 .5 0] [1 1 .5] [1 1 1]]: hard 1/3, normal 1, easy 1; chat/2: 0; code: 1; math: all 1/2
    # s/1 [[1 1 .5] [1 .5 0] [.5 0 0]]: hard .5, normal .5, easy .5; s/2 [[0 0 .5] [0 .5 1] [.5 1 1]]: .5, .5, .5
    hard, normal, easy = (1 / 6 + 1 + 0.5 + 0.5) / 4, (1 / 2 + 1 + 0.5 + 0.5) / 4, (1 / 2 + 1 + 0.5 + 0.5) / 4
    expected = approx(hard=hard, normal=normal, easy=easy, score=(hard + normal + easy) / 3, code=1.0, math=0.5,
                      chat=(1 / 6 + 1 / 2 + 1 / 2) / 3, math__strict=0.0)  # fmt: skip
    assert pick(found, "rm_bench", **expected) == expected
    assert found["rm_bench/matrix/concise/markdown"] == pytest.approx((0 + 1 + 0.5 + (0.5 + 0.5) / 2) / 4)
    assert found["rm_bench/matrix/markdown/concise"] == pytest.approx((1 / 2 + 1 + 0.5 + (0.5 + 0.5) / 2) / 4)
    assert found["rm_bench/tie_rate"] == pytest.approx((2 + 0 + 0 + 9 + 3 + 3) / 54)


@pytest.mark.parametrize("seed", range(3))
def test_rm_bench_equals_its_definition_cell_by_cell(seed):
    rng = np.random.default_rng(seed)
    domains = ("chat", "code", "math", "safety-refuse", "safety-response")
    rows = [BenchmarkItem(str(n), domains[n % 5], str(n), rng.normal(size=3), rng.normal(size=3)) for n in range(37)]
    levels = {"hard": lambda i, j: i < j, "normal": lambda i, j: i == j, "easy": lambda i, j: i > j}
    expected = {}
    for level, wanted in levels.items():
        cells = [(i, j) for i, j in product(range(3), repeat=2) if wanted(i, j)]
        expected[level] = mean(
            mean(mean(r.chosen[i] > r.rejected[j] for i, j in cells) for r in rows if r.subset.startswith(d))
            for d in ("chat", "code", "math", "safety")
        )
    found = rm_bench(rows, bootstrap=0)
    for level, value in expected.items():
        assert found[f"rm_bench/{level}/strict"] == pytest.approx(value)
    assert found["rm_bench/score"] == pytest.approx(mean(expected.values()))


def test_a_model_that_likes_style_alone_is_wrong_where_it_is_hard():
    rows = [BenchmarkItem(str(n), "chat", str(n), np.array([0.0, 1, 2]), np.array([0.0, 1, 2])) for n in range(4)]
    found = rm_bench(rows, bootstrap=0)
    assert [found[f"rm_bench/{level}"] for level in ("hard", "normal", "easy")] == [0, 0.5, 1]
    assert found["rm_bench/n_missing_domains"] == 3


# ------------------------------------------------------------------------------------------------- LLMBar


def test_llmbar_by_hand():
    found = llmbar(golden(importers.llmbar_pairs, "LLMBar"), bootstrap=0)
    expected = approx(natural=2 / 3, neighbor=1 / 2, gptinst=1 / 2, gptout=1.0, manual=0.0, gptinst__strict=0.0,
                      adversarial=(1 / 2 + 1 / 2 + 1 + 0) / 4, score=(2 / 3 + 1 / 2 + 1 / 2 + 1 + 0) / 5)  # fmt: skip
    assert pick(found, "llmbar", **expected) == expected
    assert found["llmbar/tie_rate"] == pytest.approx(1 / 8)


def test_published_means_of_llmbar():
    """GPT-4 with rules in the paper's table: 95.5 natural; 78.7, 86.4, 77.7, 80.4 adversarial; means 80.8 and 83.7."""
    accuracy = {"Natural": 955, "Neighbor": 787, "GPTInst": 864, "GPTOut": 777, "Manual": 804}
    rows = [
        BenchmarkItem("", subset, f"{subset}{n}", np.array([1.0 if n < right else -1.0]), np.zeros(1))
        for subset, right in accuracy.items()
        for n in range(1000)
    ]
    found = llmbar(rows, bootstrap=0)
    assert found["llmbar/adversarial"] == pytest.approx(0.808, abs=5e-4)
    assert found["llmbar/score"] == pytest.approx(0.837, abs=5e-4)


def test_one_subset_alone_has_no_mean_of_subsets():
    found = llmbar([BenchmarkItem("", "Natural", "p", np.ones(1), np.zeros(1))], bootstrap=0)
    assert "llmbar/score" not in found
    assert "llmbar/adversarial" not in found


# -------------------------------------------------------------------------------------------------- common


@pytest.mark.parametrize(
    ("benchmark", "row", "problem"),
    [
        (
            rewardbench,
            BenchmarkItem("", "nonsense", "p", np.ones(1), np.zeros(1)),
            "no subset nonsense.*alpacaeval-easy",
        ),
        (rewardbench, BenchmarkItem("", "math-prm", "p", np.ones(1), np.zeros(3)), "one chosen with one rejected"),
        (rewardbench2, BenchmarkItem("5", "Ties", "p", np.ones(1), np.zeros(3)), "not ref:<n> or tied:<n>"),
        (rewardbench2, BenchmarkItem("tied:5", "Ties", "p", np.ones(1), np.zeros(3)), "tied rows have several"),
        (rewardbench2, BenchmarkItem("ref:5", "Ties", "p", np.ones(1), np.zeros(3)), "with the same n"),
        (
            rm_bench,
            BenchmarkItem("7", "chat", "p", np.ones(1), np.zeros(3)),
            "3 chosen and 3 rejected answers; row '7'",
        ),
        (rm_bench, BenchmarkItem("7", "law", "p", np.ones(3), np.zeros(3)), "no domain 'law'"),
        (llmbar, BenchmarkItem("", "Natural", "p", np.ones(2), np.zeros(1)), "one right with one wrong"),
    ],
)
def test_what_does_not_belong_to_a_benchmark_is_refused(benchmark, row, problem):
    with pytest.raises(ValueError, match=problem):
        benchmark([row])


@pytest.mark.parametrize("benchmark", [rewardbench, rewardbench2, rm_bench, llmbar])
def test_a_benchmark_of_nothing_is_refused(benchmark):
    with pytest.raises(ValueError, match="got no rows"):
        benchmark([])


@pytest.mark.parametrize(
    ("benchmark", "importer", "names"),
    [
        (rewardbench, importers.rewardbench, ("rewardbench.jsonl", "shp.jsonl")),
        (rewardbench2, importers.rewardbench, ("rewardbench2.jsonl",)),
        (rm_bench, importers.rm_bench, ("rm_bench.json",)),
        (llmbar, importers.llmbar_pairs, ("LLMBar",)),
    ],
)
def test_order_of_rows_and_units_of_the_reward_say_nothing_and_negation_mirrors(benchmark, importer, names):
    rows = golden(importer, *names)
    found = benchmark(rows, bootstrap=50)
    moved = [BenchmarkItem(r.id, r.subset, r.prompt, 3 * r.chosen - 1, 3 * r.rejected - 1) for r in rows]
    again = benchmark(moved[::-1], bootstrap=0)
    assert again == pytest.approx({k: found[k] for k in again})
    score = next(key for key in found if key.endswith("/score") or key.endswith("/partial_score"))
    assert found[f"{score}/ci_low"] <= found[score] <= found[f"{score}/ci_high"]
    assert all(found[k] >= found[k + "/strict"] for k in found if k + "/strict" in found)


def test_records_whose_votes_do_not_tell_right_from_wrong_are_refused():
    from rlhf.toy.world import ToyWorld

    record = ToyWorld(size=1).record(0)
    with pytest.raises(RecordError, match="no single vote"):
        list(items([(record, np.zeros(len(record.completions)))]))
