"""The LightningDataModule: records to loaders, with a report of what happened on the way."""

import json
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist

from rlhf.data.augment import AS_THEY_ARE, Augment
from rlhf.data.collate import BlockRows, collate, collate_texts
from rlhf.data.distinct import DistinctTexts
from rlhf.data.order import BlockOrder, GroupOrder, ResumableLoader, TokenOrder
from rlhf.data.prepare import MERGED, Grouping, Preparation
from rlhf.data.render import Renderer
from rlhf.data.source import RecordSource
from rlhf.data.split_report import SPLITS
from rlhf.data.splits import Splitter
from rlhf.data.store import Rows, fingerprint, write_store
from rlhf.data.token_layout import Layout, padded
from rlhf.data.weighing import Weighing, pairs
from rlhf.labels.aggregation import soft
from rlhf.labels.label import Aggregation, FittedAggregation
from rlhf.stats.arrays import Ints

NO_PROMPT = (
    "augment.prompts changed no prompt of the whole training part: prompts are trained on as they are. Of a model that "
    "paraphrases: another model, more augment.prompts.0.tries, or a looser augment.prompts.0.same"
)


class PreferenceData(pl.LightningDataModule):
    """Comparisons, split by prompt, as batches.

    Args:
        source: the records.
        aggregation: votes to the labels that are trained on; one that learns about annotators is fitted on the
            training records.
        eval_aggregation: votes to the labels of validation and test: raw vote shares unless told otherwise, so that
            runs with different aggregations are measured, and their temperatures fitted, on the same thing.
        splitter: which split a record belongs to.
        renderer: texts to tokens.
        batch_size: groups (prompts with all their completions) per batch and process.
        eval_batch_size: the same for validation and test.
        seed: of the training order.
        cache: folder of the prepared rows.
        batch_tokens: tokens per batch and process instead of `batch_size` groups; see `TokenOrder`.
        workers: processes that collate batches beside training; 0 = in the training process.
        augment: variations of training records.
        grouping: how training records of one prompt are put together, and cut where they are too many.
        weighing: what counts once in the training loss.

    Raises:
        ValueError: a split that is needed has no rows; the message says what was dropped and the remedy.
    """

    def __init__(  # noqa: PLR0913  # one per stage of the preparation
        self, *, source: RecordSource, aggregation: Aggregation | FittedAggregation, splitter: Splitter,
        renderer: Renderer, batch_size: int, eval_batch_size: int, seed: int, cache: Path,
        eval_aggregation: Aggregation = soft, batch_tokens: int | None = None, workers: int = 0,
        augment: Augment = AS_THEY_ARE, grouping: Grouping = MERGED, weighing: Weighing = pairs,
    ) -> None:  # fmt: skip
        super().__init__()
        parts = (source, aggregation, eval_aggregation, splitter, renderer, augment, grouping)
        self.preparation = Preparation(*parts)
        self.source, self.renderer, self.augment = source, renderer, augment
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed, self.batch_tokens, self.workers = seed, batch_tokens, workers
        self.limits, self.weighing = grouping.limits, weighing
        self.data_hash = fingerprint(*parts)
        self.folder = cache / self.data_hash
        self.rows: dict[str, Rows] = {}
        self._distinct: dict[str, DistinctTexts] = {}
        self.score_once = True
        self.resume: dict[str, int] | None = None
        self.layout: Layout = partial(padded, pad_id=renderer.tokenizer.pad_token_id)

    def prepare_data(self) -> None:
        """Write the store, once per machine; another job's equal store is used as it is."""
        if not self.folder.exists():
            head = {"data_hash": self.data_hash}
            write_store(self.folder, self.preparation.rows(), lambda: head | self.preparation.as_dict())

    def setup(self, stage: str | None = None) -> None:
        """Open the store."""
        if self.rows:
            return
        self.prepare_data()
        self.rows = {split: Rows(self.folder / f"{split}.arrow") for split in SPLITS}
        for split, rows in self.rows.items():
            if not len(rows):
                raise ValueError(_nothing_left(split, self.report["rows"][split]))
        asked = self.augment.copies and self.augment.prompts
        if asked and not self.report["rows"]["train"]["augmented/prompts"]:
            warnings.warn(NO_PROMPT, stacklevel=2)

    @property
    def report(self) -> dict[str, Any]:
        """data_report.json: splits and leaks, truncation, ties, duplicates, skipped rows."""
        report: dict[str, Any] = json.loads((self.folder / "data_report.json").read_text())
        return report

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled by (seed, epoch); resumes in the middle of an epoch."""
        loader = self._blocks() if self.limits else self.loader("train", self.batch_size, self.seed)
        if self.resume is not None:
            loader.load_state_dict(self.resume)
            self.resume = None
        return loader

    def val_dataloader(self) -> ResumableLoader:
        """Every distinct text once; whole records, in stored order, where `score_once` is off."""
        return self.evaluation_loader("val")

    def test_dataloader(self) -> ResumableLoader:
        """As validation."""
        return self.evaluation_loader("test")

    def evaluation_loader(self, split: str) -> ResumableLoader:
        """What a module is validated on."""
        return self.scoring_loader(split) if self.score_once else self.loader(split, self.eval_batch_size, None)

    def distinct(self, split: str) -> DistinctTexts:
        """The distinct texts of a split, found once."""
        if split not in self._distinct:
            self._distinct[split] = DistinctTexts(self.rows[split])
        return self._distinct[split]

    def scoring_loader(self, split: str) -> ResumableLoader:
        """Distinct texts of a split, without labels; `distinct(split).of_rows` looks rewards of the rows up."""
        texts = self.distinct(split)
        size = max(1, self.eval_batch_size * 2 * len(texts) // max(1, texts.encodings))
        order = self._order(len(texts), lambda: texts.tokens, size, None)
        return self._loader(texts, order, partial(collate_texts, layout=self.layout))

    def loader(self, split: str, batch_size: int, seed: int | None) -> ResumableLoader:
        """Batches of one split; every process gets its share."""
        rows = self.rows[split]
        order = self._order(len(rows), rows.tokens, batch_size, seed)
        units = order.denominator * self._units(rows) / len(rows)
        return self._loader(rows, order, partial(collate, layout=self.layout, denominator=units))

    def _blocks(self) -> ResumableLoader:
        """Batches of training groups, the ones that are too large cut anew in every epoch."""
        rows, limits = self.rows["train"], self.limits
        assert limits is not None
        prompts, counts, responses = rows.lengths()
        ends, blocks, longest = np.cumsum(counts), np.ones(len(rows), dtype=np.int64), rows.tokens()
        large = (counts > limits.completions) | (longest > (limits.tokens or np.inf))
        for row in np.flatnonzero(large).tolist():
            lengths = responses[ends[row] - counts[row] : ends[row]].tolist()
            blocks[row] = limits.blocks(int(prompts[row]), lengths)
            longest[row] = limits.longest(int(prompts[row]), lengths, int(blocks[row]))
        order = self._order(int(blocks.sum()), lambda: np.repeat(longest, blocks), self.batch_size, self.seed)
        units = order.denominator * self._units(rows) / int(blocks.sum())
        collating = partial(collate, layout=self.layout, denominator=units)
        return self._loader(BlockRows(rows), BlockOrder(order, blocks, counts), collating)

    def _units(self, rows: Rows) -> float:
        """Units of all rows; see `rlhf.data.weighing`."""
        total = np.asarray(rows.table.data.column("prompt_pairs").to_numpy(), dtype=np.float64)
        return float(self.weighing(rows.pairs(), total).sum())

    def _loader(
        self, rows: Rows | BlockRows | DistinctTexts, order: GroupOrder | BlockOrder, collating: Any
    ) -> ResumableLoader:
        return ResumableLoader(
            rows,  # type: ignore[arg-type]  # indexed by lists of rows, not by single ones
            batch_size=None,
            sampler=order,
            collate_fn=collating,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            generator=torch.Generator(),  # of its own: opening a loader must not move dropout's random state
        )

    def _order(self, rows: int, tokens: Callable[[], Ints], batch_size: int, seed: int | None) -> GroupOrder:
        parallel = dist.is_available() and dist.is_initialized()
        share = {"rank": dist.get_rank(), "world": dist.get_world_size()} if parallel else {}
        if self.batch_tokens is not None:
            return TokenOrder(tokens(), budget=self.batch_tokens, seed=seed, **share)
        return GroupOrder(rows, batch_size=batch_size, seed=seed, **share)


def _nothing_left(split: str, counts: Mapping[str, int]) -> str:
    """Why a split is empty, by what most of its records were dropped for."""
    remedies = {
        "dropped/no_votes": "collect votes (annotate.py), or look at criterion= and aggregation=",
        "dropped/too_long": "raise max_length",
        "dropped/identical": "look for an importer that maps both sides to one text",
    }
    worst = max(remedies, key=lambda reason: counts[reason])
    remedy = remedies[worst] if counts["records"] else "split=balanced fits small sets; raise data.limit"
    return f"the {split} split has no comparison to learn from ({json.dumps(counts)}): {remedy}"
