"""Frozen features of answers for research mode: hashed n-grams offline, or embeddings of a model, reduced and cached.

Reduced: projected on the main directions of differences inside prompts (principal components of what is centred per
prompt, over training answers, no labels), scaled so that differences have mean squared length near 1, and, if asked
for, with log length as one more column: a trunk's hidden state knows it, a mean over tokens does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.pipeline import make_pipeline

from rlhf.records import prompt_text
from rlhf.select.pool_builder import Answer
from rlhf.stats.arrays import Bools, Floats, Ints

Embed = Callable[[Sequence[tuple[str, str]]], Floats]
"""(prompt, answer) texts to embeddings [N, D]. One that learns a basis of its own from texts has `fit(texts)` too."""


@dataclass
class Reduced:
    """Embeddings to the features of a pool; the first call fits, later calls (samples of a policy) project alike.

    Args:
        embed: texts to embeddings.
        dims: d, at most; the exact head costs d² per label and d³ per round.
        length: weight of the log-length column in units of one standard deviation inside prompts; 0 = no such column.
        cache: folder where embeddings are kept; None = nowhere.
    """

    embed: Embed
    dims: int = 64
    length: float = 0.0
    cache: str | Path | None = None
    _fitted: tuple[Floats, Floats, float, float] | None = field(default=None, init=False, repr=False)
    _first: list[tuple[str, str]] | None = field(default=None, init=False, repr=False)

    def __call__(self, answers: Sequence[Answer]) -> Floats:
        """Features [N, d], single precision."""
        raw = self._embedded([(prompt_text(a.prompt), a.text) for a in answers])
        long = np.log1p([len(a.text) for a in answers])
        if self._fitted is None:
            train = np.array([a.train for a in answers])
            self._fitted = self._fit(raw, long, np.array([a.group for a in answers]), train)
        centre, directions, middle, spread = self._fitted
        features = (raw - centre) @ directions
        if self.length:
            features = np.column_stack([features, (long - middle) * self.length / spread])
        return features.astype(np.float32)

    def _fit(self, raw: Floats, long: Floats, group: Ints, train: Bools) -> tuple[Floats, Floats, float, float]:
        inside = _centred(raw, group)[train]
        dims = min(self.dims, *inside.shape)
        directions = TruncatedSVD(dims, algorithm="arpack" if dims < min(inside.shape) else "randomized",
                                  random_state=0).fit(inside).components_.T  # fmt: skip
        scale = np.sqrt(2 * ((inside @ directions) ** 2).sum(1).mean())
        spread = float(_centred(long[:, None], group)[train].std()) or 1.0
        return raw[train].mean(0), directions / max(scale, 1e-12), float(long.mean()), spread

    def _embedded(self, texts: list[tuple[str, str]]) -> Floats:
        first = self._first = texts if self._first is None else self._first
        if self.cache is None:
            return self._computed(texts)
        digest = sha256(repr(self.embed).encode())
        for pair in texts if texts is first else [*first, *texts]:
            digest.update(repr(pair).encode("utf-8", "replace"))
        path = Path(self.cache) / f"features-{digest.hexdigest()[:16]}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part.npy")
            np.save(unfinished, self._computed(texts))
            unfinished.replace(path)
        found: Floats = np.load(path, mmap_mode="r")
        return found

    def _computed(self, texts: list[tuple[str, str]]) -> Floats:
        """Embeddings; a learned basis is that of the first call's texts, also where these came from the cache."""
        learn = getattr(self.embed, "fit", None)
        if learn is not None:
            learn(self._first)
        return self.embed(texts)


@dataclass
class HashedWords:
    """Presence of word n-grams of the answer, hashed: no model, no download. The first texts give the basis of all.

    Args:
        columns: of the hash table; the embedding is these, reduced to `dims` by truncated SVD.
        ngrams: shortest and longest run of words.
        dims: D of the embedding.
    """

    columns: int = 2**14
    ngrams: tuple[int, int] = (1, 2)
    dims: int = 256
    _basis: Any = field(default=None, init=False, repr=False, compare=False)

    def fit(self, texts: Sequence[tuple[str, str]]) -> None:
        """Learn the basis, unless there is one."""
        if self._basis is None:
            hashing = HashingVectorizer(
                n_features=self.columns, ngram_range=tuple(self.ngrams), binary=True, norm=None, alternate_sign=False
            )
            reducing = TruncatedSVD(min(self.dims, len(texts) - 1), random_state=0)
            self._basis = make_pipeline(hashing, reducing).fit([answer for _, answer in texts])

    def __call__(self, texts: Sequence[tuple[str, str]]) -> Floats:
        """Embeddings [N, D]."""
        self.fit(texts)
        return np.asarray(self._basis.transform([answer for _, answer in texts]), np.float32)


def _centred(values: Floats, group: Ints) -> Floats:
    """Values [N, D] less the mean of their group."""
    sums = np.zeros((group.max() + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return np.asarray(values - (sums / np.maximum(np.bincount(group), 1)[:, None])[group])
