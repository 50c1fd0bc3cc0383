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
        first, groups = joined_groups(records, self._key)
        best = self._best({group: prompts.total() for group, prompts in groups.items()})
        self._split = {group: best[one] for group, one in first.items()}

    def _key(self, record: Comparison) -> str:
        return group_of(record, self.key)

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


def group_of(record: Comparison, key: str) -> str:
    """What a record calls its group: its domain, or what its meta has under the key. Raises RecordError for none."""
    value = record.domain if key == "domain" else record.meta.get(key)
    if value is None:
        keys = ", ".join(["domain"] * (record.domain is not None) + list(record.meta))
        remedy = f"this record has {keys}" if keys else "this record has none: use split=hash"
        problem = f"record {record.prompt_id} has no '{key}' to group by"
        raise RecordError(problem, key="split.key", remedy=remedy)
    return str(value)


def joined_groups(
    records: Iterable[Comparison], group: Callable[[Comparison], str]
) -> tuple[dict[str, str], dict[str, Counter[str]]]:
    """Groups that share a prompt as one, whatever the order of the records.

    Returns:
        Every group -> the smallest name of those it is one with; and that name -> records of every prompt (hash).
    """
    pairs, prompts, home = set[tuple[str, str]](), Counter[str](), dict[str, str]()
    for record in records:
        name, prompt = group(record), prompt_hash(record.prompt)
        prompts[prompt] += 1
        pairs.add((name, home.setdefault(prompt, name)))
    first, found = connected(pairs), dict[str, Counter[str]]()
    for prompt, count in prompts.items():
        found.setdefault(first[home[prompt]], Counter())[prompt] = count
    return first, found


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
