"""Near-duplicate prompts: MinHash signatures, banding, and an exact Jaccard check of every candidate pair.

    shingles    the set of hashed runs of 5 words; of 5 characters where a prompt has fewer than 10 words
    signature   P(two signatures agree at one place) = Jaccard(A, B) = |A and B| / |A or B|     (Broder 1997)
    banding     P(candidate) = 1 - (1 - J^rows)^bands                       (Indyk & Motwani 1998, "LSH")

With the default 32 bands of 4 rows, a pair with J = 0.6 / 0.7 / 0.8 becomes a candidate with probability
0.988 / 0.9998 / 1. Candidates below the threshold are thrown out by the exact check, so precision is 1.
Texts are not kept: a prompt costs 4 bytes per shingle, 8 per band and 1 per place of the signature.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from rlhf.stats.arrays import Ints

Hashes = NDArray[np.uint64]

RUN = 5  # words (or characters) in a shingle

SHORT = 2 * RUN  # prompts with fewer words than this are cut into runs of characters

REACH = 16  # how many later members of its bucket a prompt is compared with: a bucket of b costs 16 b, not b^2

BLOCK = 4096  # shingles hashed at once; bounds the scratch memory of one signature at BLOCK * bands * rows * 8 bytes

_MIX = np.uint64(0x9E3779B97F4A7C15)


def shingles(text: str) -> NDArray[np.uint32]:
    """The sorted set of hashed shingles of a text, after NFKC, case folding and collapsing of whitespace."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    if len(words) >= SHORT:
        digests = b"".join(blake2b(w.encode("utf-8", "replace"), digest_size=8).digest() for w in words)
        tokens = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    else:
        letters = " ".join(words).encode("utf-32-le", "replace")
        tokens = _mixed(np.frombuffer(letters, dtype="<u4").astype(np.uint64) + np.uint64(1))
    tokens = np.pad(tokens, (0, max(0, RUN - len(tokens))))
    runs = np.lib.stride_tricks.sliding_window_view(tokens, RUN)
    hashed = np.zeros(len(runs), dtype=np.uint64)
    for column in runs.T:  # a polynomial in the tokens, mixed at every step: the order of words counts
        hashed = _mixed(hashed + column)
    return np.unique((hashed >> np.uint64(32)).astype(np.uint32))


def _mixed(values: Hashes) -> Hashes:
    """A bijection of 64-bit numbers that spreads every input bit (multiply and fold, wrapping round)."""
    values = (values ^ (values >> np.uint64(31))) * _MIX
    return values ^ (values >> np.uint64(29))


def jaccard(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> float:
    """|A and B| / |A or B| of two sorted sets."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


@dataclass
class NearDuplicates:
    """An index of prompts that finds the pairs whose shingle sets overlap by at least `threshold`.

    Args:
        threshold: the least Jaccard similarity of near-duplicates, in (0, 1].
        bands: bands of the signature; more find more pairs.
        rows: places per band; more give fewer false candidates.
        seed: of the hash functions of the signature.

    Raises:
        ValueError: an option is out of range.
    """

    threshold: float = 0.6
    bands: int = 32
    rows: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        self._place: dict[str, int] = {}
        self._sets: list[NDArray[np.uint32]] = []
        self._bands: list[Hashes] = []
        self._marks: list[NDArray[np.uint8]] = []
        if not 0 < self.threshold <= 1:
            raise ValueError(f"split.threshold={self.threshold} is not in (0, 1]: 0.6 is the default")
        if min(self.bands, self.rows) < 1:
            raise ValueError(f"split.bands={self.bands} and split.rows={self.rows} must be at least 1")
        random = np.random.default_rng(self.seed)
        draws = random.integers(0, 2**64, size=(2, self.bands * self.rows), dtype=np.uint64)
        self._multiply, self._add = draws[0] | np.uint64(1), draws[1]

    def __len__(self) -> int:
        """Number of different prompts."""
        return len(self._sets)

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def add(self, key: str, text: str) -> None:
        """Add one prompt under the key that names it (its `prompt_hash`); a key seen before is ignored."""
        if key not in self._place:
            self._place[key] = len(self._sets)
            self._sets.append(shingles(text))
            signature = self._signature(self._sets[-1])
            self._bands.append(self._band_keys(signature))
            self._marks.append((signature & np.uint64(255)).astype(np.uint8))

    def _signature(self, hashes: NDArray[np.uint32]) -> Hashes:
        """The least value of every hash function over the set. Shape [bands * rows]."""
        signature = np.full(len(self._multiply), 2**64 - 1, dtype=np.uint64)
        spread = _mixed(hashes.astype(np.uint64) + np.uint64(1))
        for start in range(0, len(spread), BLOCK):  # multiply-add hashing (Dietzfelbinger et al. 1997)
            values = _mixed(self._multiply * spread[start : start + BLOCK, None] + self._add)
            signature = np.minimum(signature, values.min(axis=0))
        return signature

    def _band_keys(self, signature: Hashes) -> Hashes:
        """One key per band; prompts that share a key in some band are candidates. Shape [bands]."""
        keys = np.zeros(self.bands, dtype=np.uint64)
        for row in signature.reshape(self.bands, self.rows).T:
            keys = _mixed(keys + row)
        return keys

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every pair of keys found to be near-duplicates, once. The same whatever the order of `add`."""
        keys = sorted(self._place)
        if len(keys) < 2:
            return
        places = [self._place[k] for k in keys]
        band_keys, marks = np.stack(self._bands)[places], np.stack(self._marks)[places]
        codes = np.unique(np.concatenate([self._candidates(band, marks) for band in band_keys.T]))
        for low, high in zip(*(part.tolist() for part in divmod(codes, len(keys))), strict=True):
            if jaccard(self._sets[places[low]], self._sets[places[high]]) >= self.threshold:
                yield keys[low], keys[high]

    def _candidates(self, band: Hashes, marks: NDArray[np.uint8]) -> Ints:
        """Pairs of the n prompts that share a bucket of one band, as low * n + high.

        A pair whose signatures agree at fewer places than expected by three standard deviations is left out:
        1 in 700 at the threshold, and what saves time among prompts made from one template.
        """
        least = self.threshold - 3 * (self.threshold * (1 - self.threshold) / marks.shape[1]) ** 0.5
        order = np.argsort(band, kind="stable")
        sorted_band, codes = band[order], [np.empty(0, dtype=np.int64)]
        for reach in range(1, REACH + 1):
            same = np.flatnonzero(sorted_band[reach:] == sorted_band[:-reach])
            if not len(same):
                break
            low, high = order[same], order[same + reach]
            alike = (marks[low] == marks[high]).mean(axis=1) >= least
            codes.append(low[alike] * len(band) + high[alike])
        return np.concatenate(codes)

    def clusters(self) -> dict[str, str]:
        """The smallest key of the cluster of every prompt that has a near-duplicate; chains are one cluster."""
        return connected(self.pairs())


def connected(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Every name of the pairs -> the smallest name that a chain of pairs joins it to, whatever their order."""
    from scipy.cluster.hierarchy import DisjointSet  # slow to import

    union = DisjointSet()
    for a, b in pairs:
        union.add(a)
        union.add(b)
        union.merge(a, b)
    return {key: first for members in union.subsets() for first in [min(members)] for key in members}
