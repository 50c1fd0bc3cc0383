"""Public benchmarks of reward models, a function per format: rewards of the answers in, the published scores out.

A benchmark is a function `(items, *, bootstrap, seed) -> flat metrics`. Where answers get equal rewards the published
scripts differ in what they do; here they get half the credit (or their share of the pick), `tie_rate` says how often
that was, and `<key>/strict` is the same number with no credit for ties, as RewardBench 1 and RM-Bench count.
"""

from rlhf.evaluation.benchmarks.formats import llmbar, rewardbench, rewardbench2, rm_bench
from rlhf.evaluation.benchmarks.items import Benchmark, BenchmarkItem, items
from rlhf.evaluation.benchmarks.section import BenchmarkSection

__all__ = [
    "Benchmark",
    "BenchmarkItem",
    "BenchmarkSection",
    "items",
    "llmbar",
    "rewardbench",
    "rewardbench2",
    "rm_bench",
]
