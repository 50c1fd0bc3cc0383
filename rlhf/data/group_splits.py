"""Splits that keep more than one prompt together: clusters of near-duplicates, and whole groups.

The test then asks for what training never saw, not for another wording of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from rlhf.data.near_duplicates import NearDuplicates, connected
from rlhf.data.splits import SPLITS, FittedSplit, Shares, Split, at_least_one, by_hash, by_unit
from rlhf.records import Comparison, RecordError, prompt_hash, prompt_text


@dataclass
class NearDuplicateSplit(FittedSplit, Shares):
    """`HashSplit` of clusters: prompts whose shingle sets overlap by `threshold` or more share a split.

    A cluster is a chain of near-duplicates; its smallest prompt hash decides for all. Re-ordering the data
    changes nothing; new data moves a prompt only where it changes the cluster the prompt is in. A prompt
    of fewer than 10 words and one of more are never near-duplicates (see `rlhf.data.near_duplicates`).

    Args:
        val, test, seed: as in `Shares`, of the clusters.
        threshold: the least Jaccard similarity of near-duplicates, in (0, 1].
        bands: bands of the MinHash signature; more find more pairs.
        rows: places per band; more give fewer false candidates.

    Raises:
        ValueError: an option is out of range.
    """

    threshold: float = 0.6
    bands: int = 32
    rows: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        NearDuplicates(self.threshold, self.bands, self.rows)  # refuses what is out of range

    def fit(self, records: Iterable[Comparison]) -> None:
        """Cluster the prompts."""
        index = NearDuplicates(self.threshold, self.bands, self.rows)
        for record in records:
            index.add(prompt_hash(record.prompt), prompt_text(record.prompt))
        cluster = index.clusters()
        self._split = {key: by_hash(cluster.get(key, key), self.val, self.test, self.seed) for key in index}


@dataclass
class GroupSplit(FittedSplit, Shares):
    """Whole groups stay together; groups that share a prompt count as one.

    Groups come in a random order, each to the split that lacks most records. Few groups of different sizes
    cannot meet the shares exactly, so up to `tries` orders are tried: the first within one per cent of every
    share is taken, else the closest; one that leaves a split empty comes last. Re-ordering the data changes
    nothing; adding data may move groups.

    Args:
        val, test, seed: as in `Shares`, of the records.
        key: `domain`, or a key of the record's meta that names the group, such as `tree_id` or `debate`.
        tries: most orders to try.

    Raises:
        ValueError: an option is out of range.
        RecordError: a record does not name its group.
    """

    key: str = "domain"
    tries: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tries < 1:
            raise ValueError(f"split.tries={self.tries} must be at least 1")

    def fit(self, records: Iterable[Comparison]) -> None:
        """Count the records of every group, join groups that share a prompt, then cut."""
        first, joined = joined_groups(records, self._key)
        best = self._best(joined)
        self._split = {group: best[name] for group, name in first.items()}

    def _key(self, record: Comparison) -> str:
        return group_name(record, self.key)

    def _best(self, sizes: Mapping[str, int]) -> dict[str, Split]:
        """Split of every group, under the best of the orders tried."""
        asked = _wanted(self.val, self.test, sizes)
        raised = _wanted(*at_least_one(self.val, self.test, len(sizes)), sizes)
        least, best = (True, 2.0), dict[str, Split]()
        for turn in range(self.tries if sizes else 0):
            order = [name.partition(":")[2] for name in by_unit((f"{turn}:{g}" for g in sizes), self.seed)]
            for wanted in (asked, raised):
                cut = _fill(order, sizes, wanted)
                off = _off(cut, sizes, asked)
                if off < least:
                    least, best = off, cut
            if least < (False, 0.01):
                break
        return best


def _wanted(val: float, test: float, sizes: Mapping[str, int]) -> dict[Split, float]:
    """How many records each split should get."""
    total = sum(sizes.values())
    return {"train": (1 - val - test) * total, "val": val * total, "test": test * total}


def _fill(order: Iterable[str], sizes: Mapping[str, int], wanted: Mapping[Split, float]) -> dict[str, Split]:
    """Groups in their order, each to the split that lacks most records."""
    lacks, cut = dict(wanted), dict[str, Split]()
    for group in order:
        cut[group] = max(SPLITS, key=lacks.__getitem__)
        lacks[cut[group]] -= sizes[group]
    return cut


def _off(cut: Mapping[str, Split], sizes: Mapping[str, int], wanted: Mapping[Split, float]) -> tuple[bool, float]:
    """Is a split empty that should not be, and the largest error of a share: less is better."""
    got = dict.fromkeys(SPLITS, 0)
    for group, split in cut.items():
        got[split] += sizes[group]
    total = sum(sizes.values())
    empty = any(wanted[s] > 1e-9 * total and not got[s] for s in SPLITS)
    return empty, max(abs(got[s] - wanted[s]) for s in SPLITS) / total


@dataclass
class FoldSplit(FittedSplit):
    """Cross-validation: whole groups are dealt to k folds; fold `fold` tests, some of the other groups validate.

    Groups are dealt by size, each to the fold with fewest records, so that folds are about equally large. Groups that
    share a prompt count as one. The deal depends on the groups and the seed alone, not on the order of the data.

    Args:
        k: number of folds; None = one per group.
        key: what names the group: `prompt`, `domain`, or a key of the record's meta.
        fold: which one tests, 0 .. k - 1.
        val: share of the records of the other folds that choose the checkpoint; at least one group.
        seed: of the deal.

    Raises:
        ValueError: fewer than 2 folds, or a share out of range.
        RecordError: a record does not name its group; fewer groups than folds, or than 3; no such fold.
    """

    k: int | None = None
    key: str = "prompt"
    fold: int = 0
    val: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 2:
            raise ValueError(f"split.k={self.k}: at least 2 folds")
        if not 0 < self.val < 1:
            raise ValueError(f"split.val={self.val}: a share between 0 and 1, for early stopping and the temperature")
        self._fold: dict[str, int] = {}

    @property
    def folds(self) -> int:
        """How many folds there are; known after `fit`."""
        return max(self._fold.values(), default=-1) + 1

    def fit(self, records: Iterable[Comparison]) -> None:
        """Count the records of every group, join groups that share a prompt, deal, choose the validation groups."""
        first, joined = joined_groups(records, self._key)
        count = len(joined) if self.k is None else self.k
        if len(joined) < max(count, 3):
            remedy = f"split.k={len(joined)} or fewer, null for one fold per group, or another split.key"
            raise RecordError(f"{len(joined)} groups by '{self.key}' for {count} folds", key="split.k", remedy=remedy)
        filled = [0] * count
        fold: dict[str, int] = {}
        for group in sorted(by_unit(joined, self.seed), key=lambda g: -joined[g]):
            fold[group] = filled.index(min(filled))
            filled[fold[group]] += joined[group]
        if self.fold not in range(count):
            raise RecordError(f"is {self.fold}", key="split.fold", remedy=f"0 to {count - 1}")
        self._fold = {group: fold[first[group]] for group in first}
        rest = by_unit((f"{self.fold}:{g}" for g in joined), self.seed)
        others = [name for g in rest if fold[name := g.partition(":")[2]] != self.fold]
        wanted, validates = self.val * sum(joined[g] for g in others), set[str]()
        for group in others[:-1]:
            if wanted > 0:
                validates.add(group)
            wanted -= joined[group]
        self._split = {
            g: "test" if f == self.fold else "val" if first[g] in validates else "train" for g, f in self._fold.items()
        }

    def fold_of(self, record: Comparison) -> int:
        """The fold in which a record tests."""
        return self._fold[self._key(record)]

    def group_of(self, record: Comparison) -> str:
        """The group that is left out as one."""
        return self._key(record)

    def _key(self, record: Comparison) -> str:
        return prompt_hash(record.prompt) if self.key == "prompt" else group_name(record, self.key)


def joined_groups(
    records: Iterable[Comparison], key: Callable[[Comparison], str]
) -> tuple[dict[str, str], Counter[str]]:
    """The name under which every group counts (groups that share a prompt are one), and records by that name."""
    pairs, sizes, group_of_prompt = set[tuple[str, str]](), Counter[str](), dict[str, str]()
    for record in records:
        group = key(record)
        sizes[group] += 1
        pairs.add((group, group_of_prompt.setdefault(prompt_hash(record.prompt), group)))
    first, joined = connected(pairs), Counter[str]()
    for group, size in sizes.items():
        joined[first[group]] += size
    return {group: first[group] for group in sizes}, joined


def group_name(record: Comparison, key: str) -> str:
    """What a record's group is called. Raises RecordError where the record does not say."""
    value = record.domain if key == "domain" else record.meta.get(key)
    if value is None:
        keys = ", ".join(["domain"] * (record.domain is not None) + list(record.meta))
        remedy = f"this record has {keys}" if keys else "this record has none: use split=hash"
        raise RecordError(f"record {record.prompt_id} has no '{key}' to group by", key="split.key", remedy=remedy)
    return str(value)
