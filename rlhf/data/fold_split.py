"""k folds of whole groups: each is the test once, and no model that is tested on a group has seen it."""

import heapq
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rlhf.data.group_splits import group_of, joined_groups
from rlhf.data.splits import FittedSplit, by_unit
from rlhf.records import Comparison, RecordError, prompt_hash


@dataclass
class FoldSplit(FittedSplit):
    """Fold `fold` of k is the test; validation is cut from the other folds, and the rest trains.

    Groups that share a prompt are one. They are dealt from the largest down, each to the fold with the fewest
    records, so that two folds differ by one group at most. Equal sizes are dealt in hash order. Validation takes whole
    groups in hash order, each that fits into twice the share, until the share is reached; where none fits, prompts.
    Re-ordering the data changes nothing; adding data may move groups.

    Args:
        k: folds; None, or more than there are groups = one group is left out at a time.
        key: `prompt`, `domain`, or a key of the record's meta that names the group, such as `debate`.
        fold: the test, 0 to k - 1.
        val: share of the records outside the test that validate, above 0, at most one half; at least one prompt.
        seed: of the split alone.

    Raises:
        ValueError: an option is out of range.
        RecordError: a record does not name its group, there is one group only, or the fold does not exist.
    """

    k: int | None = 5
    key: str = "prompt"
    fold: int = 0
    val: float = 0.1
    seed: int = 0
    _first: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _groups: dict[str, Counter[str]] = field(default_factory=dict, init=False, repr=False)
    _folds: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _units: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 2:
            raise ValueError(f"split.k={self.k} must be at least 2; null leaves one group out at a time")
        if not 0 < self.val <= 0.5:
            raise ValueError(f"split.val={self.val} must be above 0 and at most 0.5")

    def fit(self, records: Iterable[Comparison]) -> None:
        """Deal the groups, then cut validation from the folds that are not the test."""
        self._first, self._groups = joined_groups(records, self._named)
        if len(self._groups) < 2:
            raise RecordError(
                f"{self.key}: all records are of {len(self._groups)} group: nothing to leave out", key="split.key",
                remedy="split.key=prompt, or a key with several values",
            )  # fmt: skip
        if self.k is not None and self.k > len(self._groups):
            warnings.warn(
                f"split.k={self.k}, but split.key={self.key} has {len(self._groups)} groups: one is left out at a "
                f"time, split.k={len(self._groups)}",
                stacklevel=2,
            )
        self._folds = self._dealt()
        self._units = {p: g for g, prompts in self._groups.items() for p in prompts}
        if not 0 <= self.fold < self.n_folds:
            raise RecordError(f"{self.fold}: there are {self.n_folds} folds, from 0", key="split.fold")
        rest = {g: prompts for g, prompts in self._groups.items() if self._folds[g] != self.fold}
        validate = self._validation(rest)
        self._split = {
            p: "test" if g not in rest else "val" if p in validate else "train" for p, g in self._units.items()
        }

    @property
    def n_folds(self) -> int:
        """How many there are, known after `fit`."""
        return min(self.k or len(self._groups), len(self._groups))

    def unit_of(self, prompt: str) -> str:
        """The group of a prompt (hash), or the first by name of those that are one with it."""
        return self._units[prompt]

    def fold_of(self, prompt: str) -> int | None:
        """The fold that tests a prompt (hash); None for a prompt that `fit` has not seen."""
        unit = self._units.get(prompt)
        return None if unit is None else self._folds[unit]

    @property
    def folds(self) -> dict[str, int]:
        """Every group -> the fold that tests it."""
        return dict(self._folds)

    @property
    def names(self) -> dict[str, str]:
        """Every group -> what the data calls it, `a + b` where groups are one; hashes for `key=prompt`."""
        found: dict[str, list[str]] = {}
        for name, one in sorted(self._first.items()):
            found.setdefault(one, []).append(name)
        return {one: " + ".join(several) for one, several in found.items()}

    def _named(self, record: Comparison) -> str:
        return prompt_hash(record.prompt) if self.key == "prompt" else group_of(record, self.key)

    def _dealt(self) -> dict[str, int]:
        sizes = {g: prompts.total() for g, prompts in self._groups.items()}
        loads = [(0, fold) for fold in range(self.n_folds)]
        found = {}
        for group in sorted(by_unit(sizes, self.seed), key=lambda g: -sizes[g]):
            load, fold = heapq.heappop(loads)
            found[group] = fold
            heapq.heappush(loads, (load + sizes[group], fold))
        return found

    def _validation(self, rest: Mapping[str, Counter[str]]) -> set[str]:
        """Prompts that validate, of the groups outside the test."""
        prompts = {p: count for group in rest.values() for p, count in group.items()}
        if len(prompts) < 2:
            raise RecordError(
                f"fold {self.fold} leaves {len(prompts)} prompt to train and to validate on", key="split.k",
                remedy="more folds, or more prompts",
            )  # fmt: skip
        wanted = self.val * sum(prompts.values())
        groups = self._some({g: of_group.total() for g, of_group in rest.items()}, wanted)
        if groups:
            return {p for g in groups for p in rest[g]}
        return set(self._some(prompts, wanted)) or {min(self._order(prompts), key=lambda p: prompts[p])}

    def _some(self, sizes: Mapping[str, int], wanted: float) -> list[str]:
        """Names in hash order, each that fits into twice what is wanted, until there is enough; never all of them."""
        chosen, total = list[str](), 0
        for name in self._order(sizes):
            if total >= wanted or len(chosen) == len(sizes) - 1:
                break
            if total + sizes[name] <= 2 * wanted:
                chosen.append(name)
                total += sizes[name]
        return chosen

    def _order(self, names: Iterable[str]) -> list[str]:
        """Another one for every fold."""
        return [name.partition(":")[2] for name in by_unit((f"{self.fold}:{name}" for name in names), self.seed)]
