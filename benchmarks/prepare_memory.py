"""Peak memory and time of preparing records (split, label, render, audit, report, store) by their number.

    python benchmarks/prepare_memory.py [--records 1000 10000 100000]

Toy records, each size in a process of its own. The index of near-duplicate prompts holds about 1 kB per prompt up to
200,000 prompts and is given back beyond; everything else is flat. Writes results/prepare_memory.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import peak_during

from rlhf.data.datamodule import PreferenceData
from rlhf.data.render import Renderer
from rlhf.data.splits import HashSplit
from rlhf.labels.aggregation import soft
from rlhf.models.pretrained import Tiny
from rlhf.toy.world import ToyWorld

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(prepared(options.one)))
        return
    found = {size: in_a_process(size) for size in options.records}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "prepare_memory.json").write_text(json.dumps(found, indent=2) + "\n")
    for size, numbers in found.items():
        print(f"{size:>8} records: {numbers['peak_mb']:.0f} MB above the start, {numbers['seconds']:.0f} s")


def in_a_process(size: int) -> dict[str, float]:
    """`prepared` in a fresh process."""
    command = [sys.executable, __file__, "--one", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def prepared(size: int) -> dict[str, float]:
    """Peak MB above the start, and seconds, of preparing `size` records."""
    with tempfile.TemporaryDirectory() as folder:
        renderer = Renderer(Tiny().tokenizer(), max_length=512)
        renderer.encode("a", ["b"])

        def work() -> None:
            PreferenceData(
                source=ToyWorld(size=size), aggregation=soft, splitter=HashSplit(), renderer=renderer,
                batch_size=16, eval_batch_size=64, seed=0, cache=Path(folder),
            ).prepare_data()  # fmt: skip

        start = time.perf_counter()
        peak = peak_during(work)
        return {"peak_mb": peak, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    main()
