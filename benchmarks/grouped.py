"""Comparisons that share answers: merged records against pair records and TRL's RewardTrainer, interleaved.

    python benchmarks/grouped.py [--rounds 3] [--threads 2] [--tokenizer <folder>]
        [--pairs <ukpconvarg pairs> --responses <its texts>]

An epoch of every contestant in turn, the same model (a random BERT of MiniLM's size) and the same judged pairs of whole
prompts; ratios within a round, as minimum, median and maximum. Data: arguments of one side of a debate, each judged
against many others (UKPConvArg where its files are given, else its shape: 24 answers, all pairs); and four answers with
all six pairs, as UltraFeedback has them. Writes results/grouped.json.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from contestants import BATCH, RATE, Clock, trl_epoch
from train_step import machine, quiet
from transformers import AutoTokenizer
from workload import Workload, minilm

from rlhf.data.blocks import GroupLimits
from rlhf.data.datamodule import PreferenceData
from rlhf.data.importers.research import ukpconvarg_source
from rlhf.data.prepare import Grouping
from rlhf.data.render import Renderer
from rlhf.labels.aggregation import soft
from rlhf.models import layouts
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead
from rlhf.models.pretrained import Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.records import Comparison, Completion, Vote, prompt_hash
from rlhf.reward.losses import soft_label
from rlhf.reward.module import RewardModule
from rlhf.reward.schedule import linear

RESULTS = Path(__file__).parent / "results"
MAX_LENGTH = 512


class Pairs:
    """Pair records of whole prompts, as a source."""

    skipped_count = 0

    def __init__(self, records: list[Comparison]) -> None:
        self.kept, self.skipped = records, list[str]()
        self.fingerprint = str(hash(tuple(r.prompt_id for r in records)))

    def records(self) -> Any:
        """From the start."""
        return iter(self.kept)

    def trl(self, renderer: Renderer) -> dict[str, list[Any]]:
        """Columns of TRL's tokenised preference format."""
        rows: dict[str, list[Any]] = {"chosen_ids": [], "rejected_ids": [], "length": []}
        for record in self.kept:
            found = renderer.encode(record.prompt, [c.text for c in record.completions])
            label = soft(record)
            if len(found.kept) < 2 or label.win_prob[0, 1] == 0.5:
                continue
            better, worse = (found.responses[i] for i in ((0, 1) if label.win_prob[0, 1] > 0.5 else (1, 0)))
            rows["chosen_ids"].append(found.prompt + better)
            rows["rejected_ids"].append(found.prompt + worse)
            rows["length"].append(len(found.prompt) + max(len(better), len(worse)))
        return rows


class Everything:
    """A splitter whose every record trains, but for the few that validation and test need."""

    needs_fit = False
    fingerprint = "everything"

    def fit(self, records: Any) -> None:
        """Nothing to learn."""

    def split_of(self, record: Comparison) -> str:
        """By the prompt's name."""
        return str(record.meta.get("part", "train"))


def synthetic(prompts: int, answers: int) -> list[Comparison]:
    """All pairs of so many answers per prompt; lengths as in `workload`, in characters."""
    work = Workload(prompts, answers, prompt_median=60)
    records = []
    for n, (prompt, responses) in enumerate(zip(work.prompts, work.responses, strict=True)):
        texts = ["".join(chr(97 + t % 26) for t in r) for r in responses]
        for i, j in combinations(range(answers), 2):
            both = (Completion(f"a{i}", texts[i]), Completion(f"a{j}", texts[j]))
            vote = Vote("w", pair=(f"a{i}", f"a{j}"), choice=f"a{i}")
            records.append(Comparison(f"{n}-{i}-{j}", "".join(chr(97 + t % 26) for t in prompt), both, (vote,)))
    return records


def debates(pairs: str, responses: str, prompts: int, answers: int) -> list[Comparison]:
    """The published pairs among the first answers of the first prompts."""
    records = list(ukpconvarg_source(pairs, responses).records())
    names = list(dict.fromkeys(prompt_hash(r.prompt) for r in records))[:prompts]
    kept: dict[str, list[str]] = {name: [] for name in names}
    for record in records:
        of_prompt = kept.get(prompt_hash(record.prompt), [])
        for completion in record.completions:
            if completion.id not in of_prompt and len(of_prompt) < answers:
                of_prompt.append(completion.id)
    return [r for r in records if (k := kept.get(prompt_hash(r.prompt))) and all(c.id in k for c in r.completions)]


def our_epoch(records: list[Comparison], renderer: Renderer, *, merge: bool) -> float:
    """Seconds of one epoch of this project's module, records merged or not."""
    clock, backbone = Clock(), Backbone(minilm(len(renderer.tokenizer)))
    limits = GroupLimits(32) if merge else None
    others = [Comparison(p, p, records[0].completions, records[0].votes, None, {"part": p}) for p in ("val", "test")]
    with tempfile.TemporaryDirectory() as folder:
        data = PreferenceData(
            source=Pairs([*records, *others]), aggregation=soft, splitter=Everything(), renderer=renderer,
            batch_size=1 if merge else BATCH, eval_batch_size=8, seed=0, cache=Path(folder) / "cache",
            grouping=Grouping(merge, limits),
        )  # fmt: skip
        data.setup()
        data.layout = layouts.auto(backbone, pad_id=0, max_length=MAX_LENGTH)
        module = RewardModule(
            RewardModel(backbone, LinearHead(backbone.hidden_size)), loss=soft_label,
            optimizer=partial(torch.optim.AdamW, lr=RATE, fused=True), schedule=partial(linear, warmup=0.0, end=0.0),
        )  # fmt: skip
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, gradient_clip_val=1.0, logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, callbacks=[clock],
        )  # fmt: skip
        trainer.fit(module, data.train_dataloader())
    return clock.seconds


class TrlPairs(Workload):
    """The records as what `contestants.trl_epoch` asks of a workload."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        object.__setattr__(self, "_columns", columns)

    def pairs(self) -> dict[str, list[Any]]:
        """The columns."""
        return self._columns  # type: ignore[attr-defined, no-any-return]


def measure(records: list[Comparison], renderer: Renderer, rounds: int) -> dict[str, Any]:
    """Seconds of every contestant and round, ratios to merged records, encodings of one evaluation."""
    columns, size = Pairs(records).trl(renderer), len(renderer.tokenizer)
    trl = partial(trl_epoch, bf16=False, tokenizer=renderer.tokenizer)
    contestants: dict[str, Callable[[], float]] = {
        "merged": partial(our_epoch, records, renderer, merge=True),
        "pair records": partial(our_epoch, records, renderer, merge=False),
        "TRL defaults": lambda: trl(minilm(size), TrlPairs(columns), checkpointing=True, by_length=False),
        "TRL best": lambda: trl(minilm(size), TrlPairs(columns), checkpointing=False, by_length=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, epoch in contestants.items():
            with contextlib.redirect_stdout(io.StringIO()):
                seconds[name].append(epoch())
    texts = {(prompt_hash(r.prompt), c.text) for r in records for c in r.completions}
    ratios = {
        name: [float(f(np.array(s) / np.array(seconds["merged"]))) for f in (np.min, np.median, np.max)]
        for name, s in seconds.items()
    }
    return {
        "pairs": len(records), "prompts": len({p for p, _ in texts}), "texts": len(texts), "seconds": seconds,
        "times merged": ratios, "encodings of an evaluation": {"pair by pair": 2 * len(records), "once": len(texts)},
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pairs")
    parser.add_argument("--responses")
    parser.add_argument("--tokenizer", help="folder of a tokenizer; bytes by default")
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--answers", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer) if options.tokenizer else Tiny().tokenizer()
    renderer = Renderer(tokenizer, max_length=MAX_LENGTH)
    real = options.pairs and options.responses
    cases = {
        "ukpconvarg" if real else "debate-shaped": debates(
            options.pairs, options.responses, options.prompts, options.answers
        ) if real else synthetic(options.prompts, options.answers),
        "four answers, six pairs": synthetic(8, 4),
    }  # fmt: skip
    results: dict[str, Any] = {"machine": machine(options.threads), "cases": {}}
    started = time.perf_counter()
    for name, records in cases.items():
        case = results["cases"][name] = measure(records, renderer, options.rounds)
        print(f"{name}: {case['pairs']} pairs over {case['texts']} texts of {case['prompts']} prompts")
        for who, (low, median, high) in case["times merged"].items():
            print(f"  {who:<14} {median:6.1f} x merged  [{low:.1f}, {high:.1f}]", flush=True)
    print(f"{time.perf_counter() - started:.0f} s")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "grouped.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
