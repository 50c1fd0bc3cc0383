"""A reward model that is learned in a fraction of a second: Bradley-Terry on words, an ensemble by bootstrap.

For experiments over many seeds, where the subject is what a policy does to a learned reward, not the reward model.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rlhf.labels.aggregation import soft
from rlhf.records import Comparison, Prompt
from rlhf.stats.arrays import Floats, Ints
from rlhf.toy.gold import ToyGold, read_qualities
from rlhf.toy.world import QUALITIES

HINGES = (0.5, 0.9)
"""Quantiles of the length at which its effect may bend."""


class LinearReward:
    """r = w · features(text): counts of words and pairs of words, and the length, which may bend at two quantiles.

    Every member sees every record Poisson(1) times. The loss is `soft_label`'s, with ridge.

    Args:
        records: with votes; pairs nobody voted on are not looked at.
        members: of the ensemble, >= 1; one member sees every record once.
        ridge: strength of the penalty on standardised weights, per unit of log-likelihood.
        words: size of the vocabulary, at most.
        seed: of the bootstrap.
        reads: the toy world, whose qualities (correct, polite, ...) are then features too; None = words only, to which
            a right and a wrong answer look alike.

    Raises:
        ValueError: no labelled pair.
    """

    def __init__(
        self, records: Sequence[Comparison], *, members: int = 5, ridge: float = 1.0, words: int = 300, seed: int = 0,
        reads: ToyGold | None = None,
    ) -> None:  # fmt: skip
        self.reads = reads
        prompts = [r.prompt for r in records for _ in r.completions]
        texts = [c.text for r in records for c in r.completions]
        self.words = CountVectorizer(ngram_range=(1, 2), min_df=5, max_features=words, lowercase=False).fit(texts)
        lengths = np.array([len(t) for t in texts], dtype=np.float64)
        self.hinges = np.quantile(lengths, HINGES)
        raw = self._raw(prompts, texts)
        self.mean, self.std = raw.mean(0), raw.std(0) + 1e-6
        features = self._features(prompts, texts)
        self.view = TruncatedSVD(16, random_state=seed).fit(features)
        difference, won, weight, group = _pairs(records, features)
        rng = np.random.default_rng((seed, 31))
        counts = [np.ones(len(records))] if members == 1 else rng.poisson(1.0, (members, len(records)))
        rows = []
        for count in counts:
            model = LogisticRegression(C=1 / ridge, fit_intercept=False, max_iter=200, tol=1e-3)
            rows.append(model.fit(difference, won, weight * count[group]).coef_[0])
        self.weight: Floats = np.stack(rows)

    def score(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[Float[Tensor, "M B"], Floats]:
        """Rewards of every member, and the leading directions of the features."""
        features = self._features(prompts, texts)
        length = np.array([[len(t) / 45.0] for t in texts])
        view: Floats = np.hstack([self.view.transform(features), length])
        return torch.tensor(self.weight @ features.T, dtype=torch.float32), view

    def _features(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Floats:
        found: Floats = (self._raw(prompts, texts) - self.mean) / self.std
        return found

    def _raw(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Floats:
        counted: Any = self.words.transform(texts)
        length = np.array([[len(t)] for t in texts], dtype=np.float64)
        bends = np.maximum(length - self.hinges[None, :], 0)
        columns = [counted.toarray(), length, bends]
        if self.reads is not None:
            tasks = [self.reads.task(prompt)[0] for prompt in prompts]
            read = [read_qualities(task, text) for task, text in zip(tasks, texts, strict=True)]
            columns.append(np.array([[q[name] for name in QUALITIES] for q in read]))
        return np.hstack(columns)


def labelled_pairs(records: Sequence[Comparison]) -> Iterator[tuple[int, int, int, float, float, float]]:
    """Every labelled pair: its record, the rows of both among all completions, both shares of the votes, the votes."""
    start = 0
    for number, record in enumerate(records):
        label = soft(record)
        for i, j in label.pairs():
            shares = float(label.win_prob[i, j]), float(label.win_prob[j, i])
            yield number, start + i, start + j, *shares, float(label.votes[i, j])
        start += len(record.completions)


def _pairs(records: Sequence[Comparison], features: Floats) -> tuple[Floats, Floats, Floats, Ints]:
    """Differences of features, winners, weights, and the record of every labelled pair, each once per outcome."""
    rows, won, weight, group = [], [], [], []
    for number, first, second, win, lose, votes in labelled_pairs(records):
        for outcome, share in ((1.0, win), (0.0, lose)):
            if share > 0:
                rows.append(features[first] - features[second])
                won.append(outcome)
                weight.append(share * votes)
                group.append(number)
    if len(set(won)) < 2:
        raise ValueError("the records hold no labelled pair: nothing to learn a reward from")
    return np.stack(rows), np.array(won), np.array(weight), np.array(group)
