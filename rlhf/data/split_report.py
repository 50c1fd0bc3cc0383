"""The three splits, what a split looks like, and whether it leaks: shared prompts and texts, near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlhf.data.near_duplicates import NearDuplicates
from rlhf.data.spill import Spill
from rlhf.records import Comparison, prompt_hash, prompt_text
from rlhf.stats.arrays import Ints

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

REMEDY: Mapping[Split, str] = {
    "train": "nothing to train on: lower split.val and split.test",
    "val": "nothing to select the best checkpoint by: raise split.val, or split=balanced for a small set",
    "test": "nothing to report: raise split.test, or split=balanced for a small set",
}


@dataclass
class _Axis:
    """Codes of the values of one attribute, and records per value and split; `prompts` is filled at the end."""

    codes: dict[str, int] = field(default_factory=dict)
    records: list[list[int]] = field(default_factory=list)

    def add(self, value: str, split: int) -> int:
        """Count a record; returns the code of its value."""
        code = self.codes.setdefault(value, len(self.codes))
        if code == len(self.records):
            self.records.append([0] * len(SPLITS))
        self.records[code][split] += 1
        return code

    def as_dict(self, prompts: Ints) -> dict[str, Any]:
        """Per value, in the order of the names: records, prompts and share of the prompts per split."""
        return {v: _row(self.records[code], prompts[code]) for v, code in sorted(self.codes.items())}


def _row(records: list[int], prompts: Ints) -> dict[str, dict[str, float]]:
    total = int(prompts.sum()) or 1
    return {
        s: {"records": records[i], "prompts": int(prompts[i]), "fraction": int(prompts[i]) / total}
        for i, s in enumerate(SPLITS)
    }


@dataclass
class SplitReport:
    """Give it every record with its split, then read `as_dict`. Memory does not grow with the records.

    Args:
        near_duplicates: look for near-duplicate prompts across splits as long as there are no more than this
            many different prompts (about 1 kB each while counting); 0 switches it off.
        threshold: the least Jaccard similarity of near-duplicates, in (0, 1].
    """

    near_duplicates: int = 200_000
    threshold: float = 0.6

    def __post_init__(self) -> None:
        self._axes = {name: _Axis() for name in ("all", "domain", "difficulty")}
        self._prompts = Spill([("split", "u1"), ("domain", "u4"), ("difficulty", "u4")])
        self._texts = Spill([("split", "u1")])
        self._index = NearDuplicates(self.threshold) if self.near_duplicates else None
        self._places: dict[str, set[Split]] = {}

    def add(self, record: Comparison, split: Split) -> None:
        """Count one record."""
        key, place = prompt_hash(record.prompt), SPLITS.index(split)
        self._axes["all"].add("", place)
        domain = self._axes["domain"].add(record.domain or "none", place)
        difficulty = self._axes["difficulty"].add(str(record.meta.get("difficulty", "none")), place)
        self._prompts.add(key, place, domain, difficulty)
        for completion in record.completions:
            self._texts.add(prompt_hash(completion.text), place)
        if self._index is not None:
            self._index.add(key, prompt_text(record.prompt))
            self._places.setdefault(key, set()).add(split)
            if len(self._index) > self.near_duplicates:
                self._index, self._places = None, {}  # too many: give the memory back

    def as_dict(self) -> dict[str, Any]:
        """The report, ready for JSON.

        splits                        per split: records, prompts (different ones), fraction (of the prompts)
        domain, difficulty            the same per value; "none" where a record has none
        balance_p                     chi-square p-value that prompts fall into splits irrespective of the
                                      domain and of the difficulty; None where there is nothing to compare
        prompts_in_several_splits     must be 0; exact
        completions_shared            different completion texts of val or test that are in train too; a few
                                      short ones ("Yes.") are usual
        near_duplicate_prompts        prompts of val or test with a near-duplicate in another split; None
                                      where this was not looked for (see `near_duplicates`)
        empty                         splits without a record, each with a remedy
        """
        prompts, straddling = self._count_prompts()
        records = self._axes["all"].records or [[0] * len(SPLITS)]
        return {
            "splits": _row(records[0], prompts["all"].sum(0)),
            **{axis: self._axes[axis].as_dict(prompts[axis]) for axis in ("domain", "difficulty")},
            "balance_p": {axis: _balance(prompts[axis].tolist()) for axis in ("domain", "difficulty")},
            "prompts_in_several_splits": straddling,
            "completions_shared": sum(_shared_with_train(bucket) for bucket in self._texts.buckets()),
            "near_duplicate_prompts": self._near_duplicates(),
            "empty": {s: REMEDY[s] for s, n in zip(SPLITS, records[0], strict=True) if not n},
        }

    def _count_prompts(self) -> tuple[dict[str, Ints], int]:
        """Different prompts per value and split of every axis, and how many are in more than one split."""
        counts = {n: np.zeros((len(a.codes), len(SPLITS)), dtype=np.int64) for n, a in self._axes.items()}
        straddling = 0
        for bucket in self._prompts.buckets():
            for name, table in counts.items():
                code = bucket[name] if name != "all" else np.zeros(len(bucket), dtype=np.uint32)
                found = np.unique(np.stack([bucket["hash"], code, bucket["split"]]).astype(np.uint64), axis=1)
                np.add.at(table, (found[1].astype(np.int64), found[2].astype(np.int64)), 1)
            homes = np.unique(np.stack([bucket["hash"], bucket["split"]]).astype(np.uint64), axis=1)[0]
            straddling += int((np.unique(homes, return_counts=True)[1] > 1).sum())
        return counts, straddling

    def _near_duplicates(self) -> int | None:
        if self._index is None:
            return None
        found = set[str]()
        for pair in self._index.pairs():
            places = [self._places[key] for key in pair]
            if places[0] != places[1]:
                found.update(key for key in pair if "train" not in self._places[key])
        return len(found)


def _shared_with_train(bucket: NDArray[Any]) -> int:
    """Different hashes that are in train and outside it."""
    train = bucket["split"] == 0
    return len(np.intersect1d(bucket["hash"][train], bucket["hash"][~train]))


def _balance(rows: list[list[int]]) -> float | None:
    """Chi-square test of independence of a table of counts; None unless it has two rows and two columns."""
    from scipy.stats import chi2_contingency

    columns = [c for c in zip(*rows, strict=True) if any(c)]
    table = [r for r in zip(*columns, strict=True) if any(r)]
    if len(columns) < 2 or len(table) < 2:
        return None
    return float(chi2_contingency(table).pvalue)
