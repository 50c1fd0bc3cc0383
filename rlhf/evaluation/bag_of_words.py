"""The baseline that reads words but no order: logistic regression on tf-idf differences of the two answers."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Self

import numpy as np
from scipy.sparse import vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.score_source import Scores
from rlhf.labels.label import Aggregation, Label
from rlhf.records import Comparison
from rlhf.stats.arrays import Bools, Floats

MOST = 5000
"""Training records that are read."""
Judged = tuple[Bools, Floats, list[str]]
"""Which pairs of answers were judged [K, K], the share of the votes for the first of each [K, K], and the answers."""


class BagOfWords:
    """A Bradley-Terry model whose features are tf-idf weights of words and word pairs of the answer.

    Args:
        records: the training part; its first `MOST` records are read.
        aggregation: votes to labels.

    Raises:
        ValueError: no labelled pair among them.
    """

    name = "bag of words"
    calibration: Calibration | None = None

    def __init__(self, records: Iterable[Comparison], aggregation: Aggregation) -> None:
        self._fit(_judged(r, aggregation(r)) for r in islice(records, MOST))

    @classmethod
    def of_groups(cls, groups: Iterable[Judged]) -> Self:
        """The same model of answers that are labelled already. Raises ValueError as the class does."""
        made = cls.__new__(cls)
        made._fit(islice(groups, MOST))
        return made

    def _fit(self, groups: Iterable[Judged]) -> None:
        texts: list[str] = []
        first, second, win_prob = [], [], []
        for observed, share, answers in groups:
            i, j = np.nonzero(np.triu(observed, 1))
            first += (i + len(texts)).tolist()
            second += (j + len(texts)).tolist()
            win_prob += share[i, j].tolist()
            texts += answers
        if not first:
            raise ValueError("the bag of words needs a labelled pair in the training part of the data")
        self.words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=50_000)
        features = self.words.fit_transform(texts)
        difference = features[first] - features[second]
        won = np.array(win_prob)
        self.model = LogisticRegression(fit_intercept=False, max_iter=500)
        self.model.fit(
            vstack([difference, difference]),  # a share of the votes is that much of a win and the rest of a loss
            np.repeat([1, 0], len(won)),
            sample_weight=np.concatenate([won, 1 - won]),
        )

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Log-odds of every answer."""
        return [Scores.plain(self.rewards([c.text for c in r.completions]).tolist()) for r in records]

    def rewards(self, texts: Sequence[str]) -> Floats:
        """Log-odds [N] of answers."""
        found: Floats = self.words.transform(texts) @ self.model.coef_[0]
        return found


def _judged(record: Comparison, label: Label) -> Judged:
    return label.observed, label.win_prob, [c.text for c in record.completions]
