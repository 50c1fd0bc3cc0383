"""The three splits, what a split looks like, and whether it leaks: shared prompts and texts, near-duplicates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlhf.data.near_duplicates import NearDuplicates
from rlhf.data.spill import Spill
from rlhf.records import Comparison, prompt_hash, prompt_text
from rlhf.stats.arrays import Ints

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
AXES = ("all", "domain", "difficulty")  # what records are counted by

REMEDY: Mapping[Split, str] = {
    "train": "nothing to train on: lower split.val and split.test",
    "val": "nothing to select the best checkpoint by: raise split.val, or split=balanced for a small set",
    "test": "nothing to report: raise split.test, or split=balanced for a small set",
}


def _row(records: Sequence[int], prompts: Ints) -> dict[str, dict[str, float]]:
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
        self._codes: dict[str, dict[str, int]] = {axis: {} for axis in AXES}
        self._records = Counter[tuple[str, int, int]]()  # axis, code of its value, split
        self._prompts = Spill([("split", "u1"), *((axis, "u4") for axis in AXES)])
        self._texts = Spill([("split", "u1")])
        self._index = NearDuplicates(self.threshold) if self.near_duplicates else None
        self._places: dict[str, set[Split]] = {}

    def add(self, record: Comparison, split: Split) -> None:
        """Count one record."""
        key, place = prompt_hash(record.prompt), SPLITS.index(split)
        values = ("", record.domain or "none", str(record.meta.get("difficulty", "none")))
        known = zip(self._codes.values(), values, strict=True)
        codes = [of_axis.setdefault(value, len(of_axis)) for of_axis, value in known]
        self._records.update((axis, code, place) for axis, code in zip(AXES, codes, strict=True))
        self._prompts.add(key, place, *codes)
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
        tables = {
            axis: {value: _row(self._counted(axis, code), prompts[axis][code]) for value, code in sorted(codes.items())}
            for axis, codes in self._codes.items()
        }
        whole = self._counted("all", 0)
        return {
            "splits": _row(whole, prompts["all"].sum(0)),
            **{axis: tables[axis] for axis in AXES[1:]},
            "balance_p": {axis: _balance(prompts[axis].tolist()) for axis in AXES[1:]},
            "prompts_in_several_splits": straddling,
            "completions_shared": sum(_shared_with_train(bucket) for bucket in self._texts.buckets()),
            "near_duplicate_prompts": self._near_duplicates(),
            "empty": {s: REMEDY[s] for s, n in zip(SPLITS, whole, strict=True) if not n},
        }

    def _counted(self, axis: str, code: int) -> list[int]:
        """Records of a value per split."""
        return [self._records[axis, code, split] for split in range(len(SPLITS))]

    def _count_prompts(self) -> tuple[dict[str, Ints], int]:
        """Different prompts per value and split of every axis, and how many are in more than one split."""
        counts = {axis: np.zeros((len(c), len(SPLITS)), dtype=np.int64) for axis, c in self._codes.items()}
        straddling = 0
        for bucket in self._prompts.buckets():
            for name, table in counts.items():
                found = np.unique(np.stack([bucket["hash"], bucket[name], bucket["split"]]).astype(np.uint64), axis=1)
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
