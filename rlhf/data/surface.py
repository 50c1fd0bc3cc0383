"""Surface features of an answer: how it is written, not what it says. They stand beside the trunk's state.

A reward model reads its trunk's state alone by default. Where few prompts were voted on, a dozen plain numbers such as
length and punctuation are learned from faster, and tell how much of the votes they explain.
"""

import re
from collections.abc import Sequence

import numpy as np

from rlhf.data.batch import Surface, Tokens
from rlhf.data.token_layout import Ids, Layout
from rlhf.stats.arrays import Floats

NAMES = (
    "log_characters", "log_words", "word_length", "log_sentences", "sentence_length", "capitals", "commas", "questions",
    "exclamations", "digits", "distinct_words", "first_or_second_person", "long_words", "paragraphs", "quotes", "links",
)  # fmt: skip
"""Features in their order. All are about 1 in size: rates are per word or character, times a constant."""
PERSONS = frozenset(["i", "me", "my", "mine", "we", "us", "our", "you", "your", "yours"])


def features(text: str) -> Floats:
    """The features [F] of a text."""
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())
    sentences = [s for s in re.split(r"[.!?]+|\n+", text) if s.strip()]
    n, characters = max(len(words), 1), max(len(text), 1)

    def share(found: Sequence[object] | int, of: int) -> float:
        return (found if isinstance(found, int) else len(found)) / of

    return np.array(
        [
            np.log1p(len(text)) - 5,
            np.log1p(len(words)) - 4,
            sum(map(len, words)) / n - 4.5,
            np.log1p(len(sentences)) - 1.5,
            n / max(len(sentences), 1) / 20,
            10 * share([c for c in text if c.isupper()], characters),
            10 * share(re.findall(r"[,;:]", text), n),
            10 * share(text.count("?"), n),
            10 * share(text.count("!"), n),
            10 * share([c for c in text if c.isdigit()], characters),
            4 * share(len(set(words)), n) - 3,
            5 * share([w for w in words if w in PERSONS], n),
            5 * share([w for w in words if len(w) >= 7], n),
            np.log1p(len(re.findall(r"\n\s*\n", text))),
            10 * share(re.findall(r"[\"“”«»]", text), n),
            float("http" in text or "www." in text),
        ]
    )


class SurfaceLayout:
    """A token layout with the features of every completion beside its tokens.

    Features are read from the tokens, decoded: whatever gives a model tokens gives it the features too.

    Args:
        inner: where the tokens lie.
        tokenizer: with `batch_decode`.
    """

    def __init__(self, inner: Layout, tokenizer: object) -> None:
        self.inner, self.tokenizer = inner, tokenizer

    def __call__(self, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]]) -> Tokens:
        """The tokens with `surface` [N, F]."""
        flat = [list(ids) for answers in responses for ids in answers]
        texts = self.tokenizer.batch_decode(flat, skip_special_tokens=True)  # type: ignore[attr-defined]
        found = np.stack([features(text) for text in texts]).astype(np.float32)
        return Surface.of(self.inner(prompts, responses), found)
