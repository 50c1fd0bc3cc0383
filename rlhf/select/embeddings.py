"""Embeddings of answers by a frozen model: the mean over tokens of a sentence encoder, or a reward model's trunk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from rlhf.data.distinct import key_of
from rlhf.data.render import Renderer
from rlhf.data.token_layout import padded
from rlhf.models.backbone import Backbone
from rlhf.models.pretrained import backbone_of
from rlhf.records import Prompt
from rlhf.stats.arrays import Floats


@dataclass(frozen=True)
class SentenceEncoder:
    """Mean of the last hidden states over the answer's tokens, at length 1 (as sentence-transformers pools).

    Args:
        path: folder or hub id of an encoder, such as all-MiniLM-L6-v2.
        max_length: tokens read of an answer.
        batch_size: answers at a time.

    Raises:
        FileNotFoundError: a path that looks like a folder and is none.
    """

    path: str
    max_length: int = 256
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.path.startswith((".", "/", "~")) and not Path(self.path).is_dir():
            raise FileNotFoundError(f"features.embed.path={self.path}: no such folder")

    @torch.inference_mode()
    def __call__(self, texts: Sequence[tuple[str, str]]) -> Floats:
        """Embeddings [N, D]."""
        tokenizer: Any = AutoTokenizer.from_pretrained(self.path)
        model: Any = AutoModel.from_pretrained(self.path).eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i][1]))
        out: Floats | None = None
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            given = tokenizer(
                [texts[i][1] for i in rows], padding=True, truncation=True, max_length=self.max_length,
                return_tensors="pt",
            )  # fmt: skip
            mask = given["attention_mask"].unsqueeze(-1)
            mean = (model(**given).last_hidden_state * mask).sum(1) / mask.sum(1)
            found = torch.nn.functional.normalize(mean, dim=-1).float().numpy()
            out = np.empty((len(texts), found.shape[1]), np.float32) if out is None else out
            out[rows] = found
        assert out is not None
        return out


@dataclass(frozen=True)
class Trunk:
    """The hidden state that a reward head would read, from any model of `conf/model`; an exported run is one too.

    Args:
        model_source: gives tokenizer and classifier (`rlhf.models.pretrained`).
        max_length: tokens of prompt and answer together.
        min_prompt: tokens of the prompt that stay.
        batch_size: answers at a time.
    """

    model_source: Any
    max_length: int = 512
    min_prompt: int = 16
    batch_size: int = 64

    @torch.inference_mode()
    def __call__(self, texts: Sequence[tuple[str, str]]) -> Floats:
        """Embeddings [N, D]. Raises ValueError for an answer longer than the model may read."""
        tokenizer = self.model_source.tokenizer()
        renderer = Renderer(tokenizer, max_length=self.max_length, min_prompt=self.min_prompt)
        backbone = backbone_of(self.model_source, tokenizer).eval()
        return hidden_states(backbone, renderer, texts, self.batch_size)


def hidden_states(
    backbone: Backbone, renderer: Renderer, texts: Sequence[tuple[Prompt, str]], batch_size: int = 64
) -> Floats:
    """Hidden states [N, D] of (prompt, answer). Raises ValueError for an answer that is too long to be read."""
    encoded = [renderer.encode(prompt, [answer]) for prompt, answer in texts]
    lost = [i for i, e in enumerate(encoded) if not e.kept]
    if lost:
        raise ValueError(
            f"{len(lost)} answers are longer than max_length={renderer.max_length} tokens allows (first: "
            f"{texts[lost[0]][1][:60]!r}...): raise max_length"
        )
    keys, same = np.unique([key_of(e.prompt, e.responses[0]) for e in encoded], return_inverse=True)
    first = np.zeros(len(keys), np.int64)
    first[same[::-1]] = np.arange(len(encoded))[::-1]
    encoded = [encoded[i] for i in first]  # every distinct text once
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].prompt) + len(encoded[i].responses[0]))
    layout = backbone.with_surface(partial(padded, pad_id=int(renderer.tokenizer.pad_token_id)))
    out = np.empty((len(encoded), backbone.hidden_size), np.float32)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        block = [encoded[i] for i in rows]
        tokens = layout([e.prompt for e in block], [e.responses for e in block])
        out[rows] = backbone(tokens).float().numpy()
    return out[same]
