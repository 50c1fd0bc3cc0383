"""A bag of words beside a trained model: learned from the same training rows, measured on the same test rows."""

from collections.abc import Callable, Iterator

import numpy as np

from rlhf.data.datamodule import PreferenceData
from rlhf.data.store import Rows
from rlhf.evaluation.bag_of_words import BagOfWords, Judged
from rlhf.evaluation.metrics.baselines import against
from rlhf.evaluation.metrics.scored import Scored

CHUNK = 500
"""Rows that are read at a time."""


def words_baseline(data: PreferenceData, test: Scored, *, samples: int, seed: int) -> dict[str, float]:
    """`baseline/bag_of_words` and `pair_accuracy/minus_bag_of_words`; {} where training answers share no word.

    Args:
        data: its first training rows teach the words.
        test: the test split with the model's rewards.
        samples, seed: of the bootstrap.
    """
    decode = data.renderer.tokenizer.decode
    try:
        words = BagOfWords.of_groups(_groups(data.rows["train"], decode))
    except ValueError:
        return {}
    rewards = np.concatenate([words.rewards(texts) for _, _, texts in _groups(data.rows["test"], decode)])
    return against("bag_of_words", rewards, test, samples=samples, seed=seed)


def _groups(rows: Rows, decode: Callable[..., str]) -> Iterator[Judged]:
    """Answers of every row, as texts, beside their labels."""
    for start in range(0, len(rows), CHUNK):
        columns = rows[list(range(start, min(start + CHUNK, len(rows))))]
        parts = zip(columns["responses"], columns["observed"], columns["win_prob"], strict=True)
        for responses, observed, win_prob in parts:
            size = (len(responses), len(responses))
            texts = [decode(list(map(int, tokens)), skip_special_tokens=True) for tokens in responses]
            yield np.reshape(observed, size).astype(bool), np.reshape(win_prob, size).astype(float), texts
