"""Does it help to buy votes on answers like the policy's? Measured on the policy's own answers, beside random.

    python benchmarks/select_policy.py [--seeds 12] [--share 0.1] [--style 2.5]

Toy worlds, features are the qualities they are made of. The pool is a collection whose answers come from an old
sampler, but for a share of the prompts answered by the current policy, which is more polite, hedged, verbose and
repetitive. The test are the policy's answers to other prompts with votes on them; the selector sees a sample of its
answers without votes. Simulated annotators vote; 15 votes at first and 15 in each of 12 rounds, λ tuned every round.
Intervals are 95% over worlds: t for differences, expanded percentiles for labels saved. Writes
results/select_policy.json.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rlhf.annotate.simulated import SimulatedAnnotators
from rlhf.data.splits import OfficialSplit
from rlhf.labels.aggregation import soft
from rlhf.records import Comparison
from rlhf.select import at_random
from rlhf.select.loop.budget import LabelBudget
from rlhf.select.loop.label_sources import Simulated
from rlhf.select.loop.learners import LinearLearner
from rlhf.select.loop.learning_curve import compare, curves, table
from rlhf.select.loop.selector_run import SelectorRun
from rlhf.select.pool_builder import BuiltPool, build_pool, with_policy
from rlhf.select.strategies.mixed import policy_aware
from rlhf.select.strategies.uncertainty import laplace_power
from rlhf.toy.qualities import ToyQualities
from rlhf.toy.world import ToyWorld

RESULTS = Path(__file__).parent / "results"
SELECTORS = {"random": at_random, "laplace_power": laplace_power, "policy_aware": policy_aware}
POOL, TEST, SAMPLE = 1000, 500, 150
"""Prompts of the pool, of the test, and of the policy's sample without votes."""


@dataclass
class Collection:
    """The pool and the test of one toy world as a source."""

    kept: list[Comparison]

    def records(self) -> Iterable[Comparison]:
        """The records from the start."""
        return self.kept


def collection(seed: int, share: float, style: float) -> tuple[Collection, list[Comparison]]:
    """Old answers, the policy's answers for a share of the pool and for the test; and the policy's sample."""
    new = round(share * POOL)
    old = ToyWorld(size=POOL - new, seed=seed).records()
    policy = ToyWorld(size=new + TEST + SAMPLE, seed=seed + 10_000, style=style).records()
    pool = chain(old, islice(policy, new))
    kept = [_marked(record, "train") for record in pool]
    kept += [_marked(record, "test") for record in islice(policy, TEST)]
    return Collection(kept), list(policy)


def _marked(record: Comparison, split: str) -> Comparison:
    return replace(record, meta={**record.meta, "split": split})


def pool_of_seed(seed: int, share: float, style: float) -> BuiltPool:
    """Pool and test of one seed."""
    source, sample = collection(seed, share, style)
    split = OfficialSplit()
    return with_policy(build_pool(source, split, ToyQualities(), soft, only_voted=False), sample)


def main() -> None:
    """Run all selectors, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--share", type=float, default=0.1, help="of the pool's prompts, answered by the policy")
    parser.add_argument("--style", type=float, default=2.5, help="of the policy, in log-odds; see data.style")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            built = pool_of_seed(seed, options.share, options.style)
            for name, selector in SELECTORS.items():
                selector_run = SelectorRun(
                    name,
                    selector,
                    seed,
                    built,
                    LinearLearner(),
                    Simulated(SimulatedAnnotators),
                    soft,
                    LabelBudget(start=15, batch=15, rounds=12),
                    Path(folder) / f"{name}-{seed}",
                )
                rows.extend(selector_run.rounds())
            print(f"world {seed} of {options.seeds}", flush=True)
    numbers = compare(curves(rows))
    print(table(numbers))
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"settings": vars(options), "selectors": numbers}, indent=1)
    (RESULTS / "select_policy.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
