"""Records to rows: aggregate the votes, render the tokens, audit what was lost.

A row is what training needs of one record, ready to be stored in Arrow. Every record that does not become a
row is counted with its reason: the counts in the audit add up to the records read.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rlhf.data.augment import Augment
from rlhf.data.blocks import GroupLimits, Part, chance, separated
from rlhf.data.merge import MergedRecord, Merger, merge
from rlhf.data.render import Encoded, Renderer
from rlhf.data.source import RecordSource
from rlhf.data.split_report import SPLITS, SplitReport
from rlhf.data.splits import Splitter
from rlhf.labels.label import (
    Aggregation,
    FittedAggregation,
    Label,
    informative,
    only_pairs,
    restricted,
    without_identical,
)
from rlhf.records import Comparison, prompt_hash, prompt_text
from rlhf.stats.arrays import Floats

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
        "pair_weight": pa.list_(pa.float32()),
        "rank": pa.list_(pa.int32()),
        "rankings": pa.list_(pa.int32()),
        "ranking_weight": pa.list_(pa.float32()),
        "score": pa.list_(pa.float32()),
        "weight": pa.float32(),
        "prompt_pairs": pa.float32(),
        "records": pa.list_(pa.string()),
    }
)
"""Columns of a row. Matrices [K, K], [K, A] and [R, K] are stored flat; `length` is in characters of the answer;
`records` are the prompt_ids of the records that were merged into it; `prompt_pairs` is the weight of all pairs of the
prompt."""

Row = dict[str, Any]
Parts = Sequence[tuple[Comparison, tuple[int, ...]]]
"""Records that were merged, each with the places of its completions in the merged one."""


@dataclass(frozen=True)
class Grouping:
    """How training records are grouped.

    merge   records of one prompt become one
    limits  of a group in one step; larger ones are cut, see `rlhf.data.blocks`; None = never cut
    """

    merge: bool = True
    limits: GroupLimits | None = field(default=GroupLimits(16))  # immutable


MERGED = Grouping()
"""The default."""


COUNTS = (
    "records", "augmented", "augmented/prompts", "augmented/answers", "kept", "dropped/no_votes", "dropped/too_long",
    "dropped/identical", "duplicate_records", "completions", "completions_too_long", "prompts_trimmed",
    "prompt_tokens_trimmed", "joints_merged", "pairs_compared", "pairs_tied", "pairs_identical", "pairs_lost_too_long",
    "tokens",
)  # fmt: skip

MERGE_COUNTS = ("records_before", "records_after", "encodings_before", "encodings_after")

TRACKED = 1_000_000  # duplicates are looked for among this many records (8-byte hashes), so that memory has a bound


@dataclass
class Audit:
    """What happened to the records on their way to rows; `as_dict` is part of data_report.json.

    `records` = `kept` + the `dropped/*`, `augmented` of them variations, with a prompt or with answers that changed
    (`augmented/*`, or both); `pairs_compared` counts before anything was lost.
    """

    counts: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    left_out: float = 0.0
    seen: set[int] = field(default_factory=set)

    def as_dict(self) -> dict[str, int]:
        """Every count, zeros included."""
        return {name: self.counts[name] for name in COUNTS} | {"longest_row_tokens": self.longest}

    def merged(self) -> dict[str, float]:
        """What an epoch of training reads, before and after records of one prompt were merged."""
        pairs = self.counts["pairs_compared"] - self.counts["pairs_lost_too_long"] - self.counts["pairs_identical"]
        return {f"merge/{name}": self.counts[f"merge/{name}"] for name in MERGE_COUNTS} | {
            "merge/pairs": pairs,
            "merge/pairs_left_out_per_epoch": round(self.left_out, 1),
        }

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
    grouping: Grouping
    audits: dict[str, Audit] = field(default_factory=lambda: {split: Audit() for split in SPLITS})
    report: SplitReport = field(default_factory=SplitReport)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """(split, row) of every record that can be learned from, and of its variations where it trains."""
        if self.splitter.needs_fit:
            self.splitter.fit(self.source.records())
        train = self.aggregation
        if isinstance(train, FittedAggregation):
            train = train.fit(r for r in self.source.records() if self.splitter.split_of(r) == "train")
        merger = Merger(self.source.records() if self.grouping.merge else ())
        for record in self.source.records():
            split = self.splitter.split_of(record)
            self.report.add(record, split)
            if split != "train":
                audit = self.audits[split]
                audit.look_for_duplicate(record)
                row = prepare_one(record, aggregation=self.eval_aggregation, renderer=self.renderer, audit=audit)
                yield from ((split, one) for one in row)
            elif not merger.takes(record):
                yield from self._train(merge([record]), train)
        for group in merger.merged():
            yield from self._train(group, train)

    def _train(self, group: MergedRecord, aggregation: Aggregation) -> Iterator[tuple[str, Row]]:
        """Rows of records of one prompt and of their variations."""
        audit = self.audits["train"]
        for part, _ in group.parts:
            audit.look_for_duplicate(part)
        if len(group.parts) > 1:  # what nobody judged is not encoded beside what somebody did
            voted = [part for part, _ in group.parts if informative(aggregation(part))]
            without = len(group.parts) - len(voted)
            audit.counts.update({"records": without, "dropped/no_votes": without})
            if without and not voted:
                return
            group = merge(voted) if without else group
        for one in _readable_together(group, self.renderer):
            for version in self.augment(one.record):
                audit.count_variation(one.record, version)
                rows = prepare_one(
                    version, aggregation=aggregation, renderer=self.renderer, audit=audit, parts=one.parts,
                    limits=self.grouping.limits,
                )  # fmt: skip
                yield from (("train", row) for row in rows)

    def as_dict(self) -> dict[str, Any]:
        """What happened, for data_report.json."""
        return {
            "template_hash": self.renderer.template_hash,
            "max_length": self.renderer.max_length,
            "skipped": {"count": self.source.skipped_count, "first": self.source.skipped},
            "splits": self.report.as_dict(),
            "rows": {split: audit.as_dict() for split, audit in self.audits.items()},
            **self.audits["train"].merged(),
        }


def _readable_together(group: MergedRecord, renderer: Renderer) -> list[MergedRecord]:
    """The group as several, in each of which all records lose as much of their prompt to a long answer as they did.

    The prompt is trimmed for the longest answer: together, all answers would lose what one of them costs.
    """

    def trimmed(record: Comparison) -> int:
        return renderer.encode(record.prompt, [c.text for c in record.completions]).trimmed

    if len(group.parts) == 1 or not trimmed(group.record):
        return [group]
    alike: dict[int, list[Comparison]] = {}
    for part, _ in group.parts:
        alike.setdefault(trimmed(part), []).append(part)
    return [merge(records) for records in alike.values()]


def prepare_one(
    record: Comparison, *, aggregation: Aggregation, renderer: Renderer, audit: Audit, parts: Parts = (),
    limits: GroupLimits | None = None,
) -> list[Row]:  # fmt: skip
    """The row of one record; several where it is cut, none where nothing is left to learn from: `audit` says why.

    Args:
        record: as read, or merged.
        aggregation: votes to a label.
        renderer: texts to tokens.
        audit: is counted in.
        parts: of a merged record: the records it was made of, with the places of their completions.
        limits: of a row; None = rows are never cut.
    """
    count = audit.counts
    count["records"] += 1
    label = aggregation(record)
    if not informative(label):
        count["dropped/no_votes"] += 1
        return []
    if len(parts) > 1:
        label = _times_judged(label, parts, aggregation)
    count["pairs_compared"] += _pairs(label.observed)
    encoded = renderer.encode(record.prompt, [c.text for c in record.completions])
    lost = len(record.completions) - len(encoded.kept)
    count["completions_too_long"] += lost
    kept = restricted(label, encoded.kept)
    count["pairs_lost_too_long"] += _pairs(label.observed) - _pairs(kept.observed)
    if not informative(kept):
        count["dropped/too_long"] += 1
        return []
    different = without_identical(kept, encoded.responses)
    count["pairs_identical"] += _pairs(kept.observed) - _pairs(different.observed)
    if not informative(different):
        count["dropped/identical"] += 1
        return []
    _count_kept(audit, different, encoded)
    readable = set(encoded.kept)
    count["merge/records_before"] += max(1, len(parts))
    count["merge/encodings_before"] += (
        sum(p in readable for _, places in parts for p in places) if parts else len(readable)
    )
    rows = _cut_rows(record, different, encoded, limits, audit)
    names = [part.prompt_id for part, _ in parts] or [record.prompt_id]
    total = float(_weights(different).sum()) / 2
    return [row | {"records": names, "prompt_pairs": total} for row in rows]


def _times_judged(label: Label, parts: Parts, aggregation: Aggregation) -> Label:
    """The label with weights by how many of the records judged each pair, or ranked each set: one of two weighs two."""
    times = np.zeros(label.observed.shape)
    ranked: Counter[bytes] = Counter()
    for part, places in parts:
        own = aggregation(part)
        times[np.ix_(places, places)] += own.observed
        sets = np.zeros((len(own.rankings), len(times)), dtype=bool)
        sets[:, places] = own.rankings >= 0
        ranked.update({row.tobytes() for row in sets})
    times_ranked = np.array([max(1, ranked[row.tobytes()]) for row in label.rankings >= 0], dtype=np.float64)
    return replace(
        label,
        pair_weight=np.where(label.observed, np.maximum(times, 1), 0),
        ranking_weight=label.ranking_weight * times_ranked,
    )


def _weights(label: Label) -> Floats:
    """How much each pair [K, K] counts."""
    return label.observed.astype(float) if label.pair_weight is None else label.pair_weight


def _cut_rows(
    record: Comparison, label: Label, encoded: Encoded, limits: GroupLimits | None, audit: Audit
) -> Iterator[Row]:
    """Rows of parts that no vote connects, where one would be too large."""
    rated = np.isfinite(label.score).any(1)
    ranked = label.rank >= 0
    related = label.observed | np.outer(rated, rated) | (np.outer(ranked, ranked) & ~label.observed.any())
    lengths = [len(r) for r in encoded.responses]
    whole = [Part(list(range(len(lengths))))]
    for part in whole if limits is None else separated(related, len(encoded.prompt), lengths, limits):
        own = label if part.pairs is None else only_pairs(label, part.pairs)
        texts = replace(
            encoded, kept=[encoded.kept[p] for p in part.places], responses=[encoded.responses[p] for p in part.places]
        )
        own = restricted(own, part.places)
        blocks = 1 if limits is None else limits.blocks(len(texts.prompt), [len(r) for r in texts.responses])
        audit.counts["merge/encodings_after"] += len(part.places)
        audit.counts["merge/records_after"] += 1
        audit.left_out += _pairs(own.observed) * (1 - chance(len(part.places), blocks)) if blocks > 1 else 0
        yield _as_row(record, own, texts)


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
    matrices = ("win_prob", "tie_prob", "observed", "margin", "votes", "rank", "rankings", "ranking_weight", "score")
    return {
        "prompt_id": record.prompt_id,
        "prompt_key": prompt_hash(record.prompt),
        "domain": record.domain,
        "completion_id": [c.id for c in completions],
        "length": [len(c.text) for c in completions],
        "prompt": encoded.prompt,
        "responses": encoded.responses,
        "weight": label.weight,
        "pair_weight": _weights(label).ravel().tolist(),
    } | {name: getattr(label, name).ravel().tolist() for name in matrices}
