"""Which records train, which validate, which test: every splitter keeps all records of a prompt together.

"The same prompt" means the same `prompt_hash`: Unicode form, case and whitespace do not make it another one.

    HashSplit      the default; a prompt's split never changes, whatever is added or re-ordered
    BalancedSplit  exact shares inside every domain and difficulty: for small sets
    OfficialSplit  the split the data set was published with

`rlhf.data.group_splits` keeps more than one prompt together: near-duplicates, domains, debates, trees.
A splitter with `needs_fit` reads the data once before it can answer, and keeps hashes, never texts.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import floor
from typing import ClassVar, Protocol

from rlhf.data.source import RecordStream
from rlhf.data.split_report import SPLITS, Split, SplitReport
from rlhf.records import Comparison, RecordError, prompt_hash

__all__ = [
    "PARTS", "SPLITS", "BalancedSplit", "FittedSplit", "HashSplit", "OfficialSplit", "Shares", "Split",
    "SplitRecords", "SplitReport",
    "Splitter", "at_least_one", "by_hash", "by_unit", "unit",
]  # fmt: skip

PARTS = (*SPLITS, "all")

OFFICIAL_NAMES: Mapping[str, Split] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "valid1": "val", "dev": "val",
    "test": "test", "valid2": "test", "eval": "test",
}  # fmt: skip
"""What published splits are called. `valid1` selects models and `valid2` only evaluates (Stiennon et al. 2020)."""


class Splitter(Protocol):
    """Assigns each record to a split; no prompt is ever in two."""

    needs_fit: ClassVar[bool]

    def fit(self, records: Iterable[Comparison]) -> None:
        """Read all the records once; does nothing where `needs_fit` is False."""

    def split_of(self, record: Comparison) -> Split:
        """The split of a record. Raises RecordError when `fit` was needed and did not see its prompt."""
        ...


@dataclass
class Shares:
    """What splitters by share have in common.

    Args:
        val: share for validation.
        test: share for the test.
        seed: another seed is another split.

    Raises:
        ValueError: the shares are not fractions of one whole.
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.val < 0 or self.test < 0 or self.val + self.test > 1:
            raise ValueError(f"split.val={self.val} and split.test={self.test} must be >= 0 and add up to at most 1")


@dataclass
class FittedSplit:
    """A splitter that looks up the split of every prompt that `fit` has read."""

    needs_fit: ClassVar[bool] = True
    _split: dict[str, Split] = field(default_factory=dict, init=False, repr=False)

    def split_of(self, record: Comparison) -> Split:
        """The split of a record that `fit` has seen. Raises RecordError for another one."""
        key = self._key(record)
        if key not in self._split:
            raise RecordError("was not in the data that the splitter read", remedy="call fit on all the records first")
        return self._split[key]

    def _key(self, record: Comparison) -> str:
        return prompt_hash(record.prompt)


@dataclass
class HashSplit(Shares):
    """By a hash of the prompt alone: test when u(seed, prompt) < test, then val, then train.

    Stable: adding, removing or re-ordering data moves nothing, and two files split apart agree. The sizes
    are random: with n prompts a share f has standard deviation sqrt(f (1 - f) / n). Arguments as in `Shares`.
    """

    needs_fit: ClassVar[bool] = False

    def fit(self, records: Iterable[Comparison]) -> None:
        """Nothing to learn."""

    def split_of(self, record: Comparison) -> Split:
        """The split of a record."""
        return by_hash(prompt_hash(record.prompt), self.val, self.test, self.seed)


@dataclass
class BalancedSplit(FittedSplit, Shares):
    """Exact shares inside every stratum (domain, `meta.difficulty`): prompts in hash order, cut in three.

    Rounding is carried from stratum to stratum, so the whole set is within one prompt of its shares and each
    stratum within two; from 3 prompts on, every split that was asked for gets at least one. A prompt seen
    in several strata counts in the first by name. Re-ordering the data changes nothing; adding data moves
    the prompts nearest a cut, about one per cut and stratum (many, where strata hold a handful of prompts).
    Arguments as in `Shares`.
    """

    def fit(self, records: Iterable[Comparison]) -> None:
        """Collect the stratum of every prompt, then cut."""
        stratum: dict[str, str] = {}
        for record in records:
            key = prompt_hash(record.prompt)
            name = repr((record.domain or "", str(record.meta.get("difficulty", ""))))
            stratum[key] = min(name, stratum.get(key, name))
        prompts: dict[str, list[str]] = {}
        for key, name in stratum.items():
            prompts.setdefault(name, []).append(key)
        val, test = at_least_one(self.val, self.test, len(stratum))
        self._split, seen = {}, 0
        for name in by_unit(prompts, self.seed):
            before = _held_out(seen, val, test)
            seen += len(prompts[name])
            n_val, n_test = (now - then for now, then in zip(_held_out(seen, val, test), before, strict=True))
            for n, key in enumerate(by_unit(prompts[name], self.seed)):
                self._split[key] = "test" if n < n_test else "val" if n < n_test + n_val else "train"


@dataclass
class OfficialSplit(FittedSplit):
    """The split each record names itself under `meta.split`, as published.

    Where a published split has one prompt in two splits, all its records go to the more protected one (test
    before val before train), so that evaluation keeps its records and training loses them; `moved` counts
    these prompts.

    Args:
        names: what the names in the data mean.
        key: the key of the record's meta that holds the name.
    """

    names: Mapping[str, Split] = field(default_factory=lambda: OFFICIAL_NAMES)
    key: str = "split"
    moved: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, split in self.names.items():
            if split not in SPLITS:
                raise ValueError(f"split.names.{name}={split!r}: one of {', '.join(SPLITS)}")

    def fit(self, records: Iterable[Comparison]) -> None:
        """Note the split of every prompt."""
        self._split, several = {}, set()
        for record in records:
            key, named = prompt_hash(record.prompt), self._named(record)
            before = self._split.setdefault(key, named)
            if named != before:
                several.add(key)
                self._split[key] = max(named, before, key=SPLITS.index)
        self.moved = len(several)

    def _named(self, record: Comparison) -> Split:
        name = record.meta.get(self.key)
        if name is None:
            problem = f"record {record.prompt_id} names no split"
            remedy = "this set has no official split: use split=hash or split=balanced"
            raise RecordError(problem, key=f"meta.{self.key}", remedy=remedy)
        if name not in self.names:
            remedy = f"one of {', '.join(self.names)}, or set split.names"
            raise RecordError(f"is {name!r}", key=f"meta.{self.key}", remedy=remedy)
        return self.names[name]


class SplitRecords:
    """The records of one part, as a stream.

    Args:
        source: all the records.
        splitter: fitted here where it needs it, once.
        part: one of `PARTS`.

    Raises:
        ValueError: another name.
    """

    def __init__(self, source: RecordStream, splitter: Splitter, part: str) -> None:
        if part not in PARTS:
            raise RecordError(f"part={part}: one of {', '.join(PARTS)}")
        self.source, self.splitter, self.part = source, splitter, part
        if part != "all" and splitter.needs_fit:
            splitter.fit(source.records())

    def records(self) -> Iterator[Comparison]:
        """From the start."""
        every = self.part == "all"
        return (r for r in self.source.records() if every or self.splitter.split_of(r) == self.part)


def unit(key: str, seed: int) -> float:
    """A number in [0, 1) that looks random but depends on the key and the seed alone."""
    digest = blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def by_unit(keys: Iterable[str], seed: int) -> list[str]:
    """The keys in an order that looks random but depends on the keys and the seed alone."""
    return sorted(keys, key=lambda key: (unit(key, seed), key))


def by_hash(key: str, val: float, test: float, seed: int) -> Split:
    """The split of a key by its hash: the test is [0, test), so that changing `val` leaves it alone."""
    u = unit(key, seed)
    return "test" if u < test else "val" if u < test + val else "train"


def at_least_one(val: float, test: float, n: int) -> tuple[float, float]:
    """The shares (val, test), raised so that every split asked for is worth one of n >= 3 items or more.

    A share f becomes 1/n + c max(f - 1/n, 0), with c such that all add up to 1.
    """
    shares = [1 - val - test, val, test]
    asked = [f for f in shares if f > 1e-9]
    if n < 3 or min(asked) >= 1 / n:
        return val, test
    above = sum(max(f - 1 / n, 0) for f in asked)
    scale = (1 - len(asked) / n) / above if above else 0.0
    _, val, test = [1 / n + max(f - 1 / n, 0) * scale if f > 1e-9 else 0.0 for f in shares]
    return val, test


def _held_out(n: int, val: float, test: float) -> tuple[int, int]:
    """How many of n items go to val and test: held out together first, then test, each rounded."""
    held = floor(n * (val + test) + 0.5)
    n_test = floor(held * test / (val + test) + 0.5) if held else 0
    return held - n_test, n_test
