"""The three splits, what a split looks like, and whether it leaks: shared prompts and texts, near-duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf.data.near_duplicates import NearDuplicates
from rlhf.data.prompt_key import prompt_hash
from rlhf.record_types import Comparison, prompt_text

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

REMEDY: Mapping[Split, str] = {
    "train": "nothing to train on: lower split.val and split.test",
    "val": "nothing to select the best checkpoint by: raise split.val, or split=balanced for a small set",
    "test": "nothing to report: raise split.test, or split=balanced for a small set",
}

Hashes = dict[Split, set[str]]


@dataclass
class _Tally:
    """Records and different prompts of one value of one attribute, per split."""

    records: dict[Split, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    prompts: Hashes = field(default_factory=lambda: {s: set() for s in SPLITS})

    def add(self, split: Split, key: str) -> None:
        self.records[split] += 1
        self.prompts[split].add(key)

    def row(self) -> list[int]:
        """Prompts in train, val, test."""
        return [len(self.prompts[s]) for s in SPLITS]

    def as_dict(self) -> dict[str, dict[str, float]]:
        total = sum(self.row()) or 1
        return {
            s: {"records": self.records[s], "prompts": n, "fraction": n / total}
            for s, n in zip(SPLITS, self.row(), strict=True)
        }


@dataclass
class SplitReport:
    """Give it every record with its split, then read `as_dict`. Memory: hashes of prompts and completions.

    Args:
        near_duplicates: look for near-duplicate prompts across splits as long as there are no more than this
            many different prompts (about 1 kB each while counting); 0 switches it off.
        threshold: the least Jaccard similarity of near-duplicates, in (0, 1].
    """

    near_duplicates: int = 200_000
    threshold: float = 0.6
    _all: _Tally = field(default_factory=_Tally, init=False, repr=False)
    _domain: dict[str, _Tally] = field(default_factory=lambda: defaultdict(_Tally), init=False, repr=False)
    _difficulty: dict[str, _Tally] = field(
        default_factory=lambda: defaultdict(_Tally), init=False, repr=False
    )
    _texts: Hashes = field(default_factory=lambda: {s: set() for s in SPLITS}, init=False, repr=False)
    _index: NearDuplicates | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = NearDuplicates(self.threshold) if self.near_duplicates else None

    def add(self, record: Comparison, split: Split) -> None:
        """Count one record."""
        key = prompt_hash(record.prompt)
        self._all.add(split, key)
        self._domain[record.domain or "none"].add(split, key)
        self._difficulty[str(record.meta.get("difficulty", "none"))].add(split, key)
        self._texts[split].update(prompt_hash(c.text) for c in record.completions)
        if self._index is not None:
            self._index.add(key, prompt_text(record.prompt))
            if len(self._index) > self.near_duplicates:
                self._index = None  # too many: give the memory back

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
        train, held_out = self._texts["train"], self._texts["val"] | self._texts["test"]
        axes = {"domain": self._domain, "difficulty": self._difficulty}
        return {
            "splits": self._all.as_dict(),
            **{
                axis: {value: t.as_dict() for value, t in sorted(tallies.items())}
                for axis, tallies in axes.items()
            },
            "balance_p": {
                axis: _balance([t.row() for t in tallies.values()]) for axis, tallies in axes.items()
            },
            "prompts_in_several_splits": self._straddling(),
            "completions_shared": len(train & held_out),
            "near_duplicate_prompts": self._near_duplicates(),
            "empty": {s: REMEDY[s] for s in SPLITS if not self._all.records[s]},
        }

    def _straddling(self) -> int:
        train, val, test = (self._all.prompts[s] for s in SPLITS)
        return len(train & val | train & test | val & test)

    def _near_duplicates(self) -> int | None:
        if self._index is None:
            return None
        prompts, found = self._all.prompts, set[str]()
        for pair in self._index.pairs():
            places = [{s for s in SPLITS if key in prompts[s]} for key in pair]
            if places[0] != places[1]:
                found.update(key for key in pair if key not in prompts["train"])
        return len(found)


def _balance(rows: list[list[int]]) -> float | None:
    """Chi-square test of independence of a table of counts; None unless it has two rows and two columns."""
    from scipy.stats import chi2_contingency

    columns = [c for c in zip(*rows, strict=True) if any(c)]
    table = [r for r in zip(*columns, strict=True) if any(r)]
    if len(columns) < 2 or len(table) < 2:
        return None
    return float(chi2_contingency(table).pvalue)
