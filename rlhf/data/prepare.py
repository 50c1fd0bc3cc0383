"""Records to rows: aggregate the votes, render the tokens, audit what was lost.

A row is what training needs of one record, ready to be stored in Arrow. Every record that does not become a
row is counted with its reason: the counts in the audit add up to the records read.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rlhf.data.augment import Augment
from rlhf.data.render import Encoded, Renderer
from rlhf.data.source import RecordSource
from rlhf.data.split_report import SPLITS, SplitReport
from rlhf.data.splits import Splitter
from rlhf.labels.label import Aggregation, FittedAggregation, Label, informative, restricted, without_identical
from rlhf.records import Comparison, prompt_hash, prompt_text

SCHEMA = pa.schema(
    {
        "prompt_id": pa.string(),
        "prompt_key": pa.string(),
        "domain": pa.string(),
        "completion_id": pa.list_(pa.string()),
        "length": pa.list_(pa.int32()),
        "prompt": pa.list_(pa.int32()),
        "responses": pa.list_(pa.list_(pa.int32())),
        "win_prob": pa.list_(pa.float32()),
        "tie_prob": pa.list_(pa.float32()),
        "observed": pa.list_(pa.bool_()),
        "margin": pa.list_(pa.float32()),
        "votes": pa.list_(pa.float32()),
        "rank": pa.list_(pa.int32()),
        "score": pa.list_(pa.float32()),
        "weight": pa.float32(),
    }
)
"""Columns of a row. Matrices [K, K] and [K, A] are stored flat; `length` is in characters of the answer."""

Row = dict[str, Any]

COUNTS = (
    "records", "augmented", "augmented/prompts", "augmented/answers", "kept", "dropped/no_votes", "dropped/too_long",
    "dropped/identical", "duplicate_records", "completions", "completions_too_long", "prompts_trimmed",
    "prompt_tokens_trimmed", "joints_merged", "pairs_compared", "pairs_tied", "pairs_identical", "pairs_lost_too_long",
    "tokens",
)  # fmt: skip

TRACKED = 1_000_000  # duplicates are looked for among this many records (8-byte hashes), so that memory has a bound


@dataclass
class Audit:
    """What happened to the records on their way to rows; `as_dict` is part of data_report.json.

    `records` = `kept` + the `dropped/*`, `augmented` of them variations, with a prompt or with answers that changed
    (`augmented/*`, or both); `pairs_compared` counts before anything was lost.
    """

    counts: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    seen: set[int] = field(default_factory=set)

    def as_dict(self) -> dict[str, int]:
        """Every count, zeros included."""
        return {name: self.counts[name] for name in COUNTS} | {"longest_row_tokens": self.longest}

    def count_variation(self, record: Comparison, version: Comparison) -> None:
        """Count a variation of the record, and what of it changed; the record itself is none."""
        self.counts["augmented"] += version is not record
        self.counts["augmented/prompts"] += version.prompt != record.prompt
        self.counts["augmented/answers"] += version.completions != record.completions

    def look_for_duplicate(self, record: Comparison) -> None:
        """Count a record whose prompt, completions and votes were all seen before."""
        votes = [(v.annotator, v.choice, v.ranking, tuple((v.likert or {}).items())) for v in record.votes]
        identity = hash((prompt_text(record.prompt), tuple(c.text for c in record.completions), tuple(votes)))
        self.counts["duplicate_records"] += identity in self.seen
        if len(self.seen) < TRACKED:
            self.seen.add(identity)


@dataclass(frozen=True)
class Preparation:
    """Records to the rows of all splits; arguments as in `rlhf.data.datamodule.PreferenceData`.

    `audits` and `report` are updated while the rows are drawn.
    """

    source: RecordSource
    aggregation: Aggregation | FittedAggregation
    eval_aggregation: Aggregation
    splitter: Splitter
    renderer: Renderer
    augment: Augment
    audits: dict[str, Audit] = field(default_factory=lambda: {split: Audit() for split in SPLITS})
    report: SplitReport = field(default_factory=SplitReport)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """(split, row) of every record that can be learned from, and of its variations where it trains."""
        if self.splitter.needs_fit:
            self.splitter.fit(self.source.records())
        train = self.aggregation
        if isinstance(train, FittedAggregation):
            train = train.fit(r for r in self.source.records() if self.splitter.split_of(r) == "train")
        for record in self.source.records():
            split = self.splitter.split_of(record)
            self.report.add(record, split)
            audit = self.audits[split]
            for version in self.augment(record) if split == "train" else (record,):
                audit.count_variation(record, version)
                label_for = train if split == "train" else self.eval_aggregation
                row = prepare_one(version, aggregation=label_for, renderer=self.renderer, audit=audit)
                if row is not None:
                    yield split, row

    def as_dict(self) -> dict[str, Any]:
        """What happened, for data_report.json."""
        return {
            "template_hash": self.renderer.template_hash,
            "max_length": self.renderer.max_length,
            "skipped": {"count": self.source.skipped_count, "first": self.source.skipped},
            "splits": self.report.as_dict(),
            "rows": {split: audit.as_dict() for split, audit in self.audits.items()},
        }


def prepare_one(record: Comparison, *, aggregation: Aggregation, renderer: Renderer, audit: Audit) -> Row | None:
    """The row of one record, or None where nothing is left to learn from; `audit` says why."""
    count = audit.counts
    count["records"] += 1
    audit.look_for_duplicate(record)
    label = aggregation(record)
    if not informative(label):
        count["dropped/no_votes"] += 1
        return None
    count["pairs_compared"] += _pairs(label.observed)
    encoded = renderer.encode(record.prompt, [c.text for c in record.completions])
    lost = len(record.completions) - len(encoded.kept)
    count["completions_too_long"] += lost
    kept = restricted(label, encoded.kept)
    count["pairs_lost_too_long"] += _pairs(label.observed) - _pairs(kept.observed)
    if not informative(kept):
        count["dropped/too_long"] += 1
        return None
    different = without_identical(kept, encoded.responses)
    count["pairs_identical"] += _pairs(kept.observed) - _pairs(different.observed)
    if not informative(different):
        count["dropped/identical"] += 1
        return None
    _count_kept(audit, different, encoded)
    return _as_row(record, different, encoded)


def _count_kept(audit: Audit, label: Label, encoded: Encoded) -> None:
    count = audit.counts
    count["kept"] += 1
    count["completions"] += len(encoded.kept)
    count["prompts_trimmed"] += encoded.trimmed > 0
    count["prompt_tokens_trimmed"] += encoded.trimmed
    count["joints_merged"] += encoded.merged
    count["pairs_tied"] += _pairs(label.observed & (label.win_prob == 0.5))
    lengths = [len(encoded.prompt) + len(r) for r in encoded.responses]
    count["tokens"] += sum(lengths)
    audit.longest = max(audit.longest, *lengths)


def _pairs(observed: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    return int(observed.sum()) // 2


def _as_row(record: Comparison, label: Label, encoded: Encoded) -> Row:
    completions = [record.completions[i] for i in encoded.kept]
    matrices = ("win_prob", "tie_prob", "observed", "margin", "votes", "rank", "score")
    return {
        "prompt_id": record.prompt_id,
        "prompt_key": prompt_hash(record.prompt),
        "domain": record.domain,
        "completion_id": [c.id for c in completions],
        "length": [len(c.text) for c in completions],
        "prompt": encoded.prompt,
        "responses": encoded.responses,
        "weight": label.weight,
    } | {name: getattr(label, name).ravel().tolist() for name in matrices}
