"""Embeddings of answers by a frozen model: the mean over tokens of a sentence encoder, or a reward model's trunk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from rlhf.data.render import Renderer
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.models.heads import LinearHead
from rlhf.models.pretrained import backbone_of
from rlhf.models.reward_model import RewardModel
from rlhf.records import Prompt
from rlhf.reward.scoring.once import ScoreMemo
from rlhf.reward.scoring.pool import SCORED_TOGETHER
from rlhf.reward.scoring.scorer import Scorer
from rlhf.stats.arrays import Floats


@dataclass(frozen=True)
class SentenceEncoder:
    """Mean of the last hidden states over the answer's tokens, at length 1 (as sentence-transformers pools).

    Equal answers are read once.

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
        answers = list(dict.fromkeys(answer for _, answer in texts))
        place = {answer: i for i, answer in enumerate(answers)}
        tokenizer: Any = AutoTokenizer.from_pretrained(self.path)
        model: Any = AutoModel.from_pretrained(self.path).eval()
        order = sorted(range(len(answers)), key=lambda i: len(answers[i]))
        out: Floats | None = None
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            given = tokenizer(
                [answers[i] for i in rows], padding=True, truncation=True, max_length=self.max_length,
                return_tensors="pt",
            )  # fmt: skip
            mask = given["attention_mask"].unsqueeze(-1)
            mean = (model(**given).last_hidden_state * mask).sum(1) / mask.sum(1)
            found = torch.nn.functional.normalize(mean, dim=-1).float().numpy()
            out = np.empty((len(answers), found.shape[1]), np.float32) if out is None else out
            out[rows] = found
        assert out is not None
        return out[[place[answer] for _, answer in texts]]


@dataclass(frozen=True)
class Trunk:
    """The hidden state that a reward head would read, from any model of `conf/model`; an exported run is one too.

    Args:
        model_source: gives tokenizer and classifier (`rlhf.models.pretrained`).
        max_length: tokens of prompt and answer together.
        min_prompt: tokens of the prompt that stay.
        batch_size: answers at a time, of the greatest length; more of shorter ones.
    """

    model_source: Any
    max_length: int = 512
    min_prompt: int = 16
    batch_size: int = 64

    def __call__(self, texts: Sequence[tuple[str, str]]) -> Floats:
        """Embeddings [N, D]. Raises ValueError for an answer longer than the model may read."""
        tokenizer = self.model_source.tokenizer()
        renderer = Renderer(tokenizer, max_length=self.max_length, min_prompt=self.min_prompt)
        backbone = backbone_of(self.model_source, tokenizer)
        return hidden_states(RewardModel(backbone, LinearHead(backbone.hidden_size)), renderer, texts, self.batch_size)


def hidden_states(
    model: RewardModel, renderer: Renderer, texts: Sequence[tuple[Prompt, str]], batch_size: int = 64
) -> Floats:
    """Hidden states [N, D] of (prompt, answer). Raises ValueError for an answer that is too long to be read."""
    encoded = [renderer.encode(prompt, [answer]) for prompt, answer in texts]
    lost = [i for i, e in enumerate(encoded) if not e.kept]
    if lost:
        raise ValueError(
            f"{len(lost)} answers are longer than max_length={renderer.max_length} tokens allows (first: "
            f"{texts[lost[0]][1][:60]!r}...): raise max_length"
        )
    scorer = Scorer(model, renderer, Calibration.identity(), batch_tokens=batch_size * renderer.max_length)
    memo, out = ScoreMemo(scorer.engine), np.empty((len(encoded), model.backbone.hidden_size), np.float32)
    for start in range(0, len(encoded), SCORED_TOGETHER):
        found = memo.score(encoded[start : start + SCORED_TOGETHER])
        out[start : start + len(found)] = torch.cat([scores.states for scores in found])
    return out
