"""The reward a policy is trained on, and how far from home its answers are: scores of a reward model on texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from sklearn.covariance import LedoitWolf
from torch import Tensor

import rlhf
from rlhf.data.token_layout import pad
from rlhf.optimise.shaping.ensemble import normalise
from rlhf.records import Prompt
from rlhf.reward.scoring.scorer import Scorer
from rlhf.stats.arrays import Floats


class RewardSource(Protocol):
    """Anything that rewards texts with several members and has features of them."""

    def score(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[Float[Tensor, "M B"], Floats]:
        """Raw rewards of every member, and features [B, D]."""


class ProxyScore(NamedTuple):
    """members [M, B] normalised; distance [B]: squared Mahalanobis distance from the reference samples, over D."""

    members: Float[Tensor, "M B"]
    distance: Float[Tensor, " B"]


class ProxyReward:
    """A reward source made comparable: every member has mean 0 and std 1 on samples of the reference policy (Ziegler
    2019).

    Args:
        source: the reward model.
        prompts, texts: at least 32 samples of the reference policy; 256 or more are advised.

    Raises:
        ValueError: too few samples, or a member that gives all of them the same reward.
    """

    def __init__(self, source: RewardSource, prompts: Sequence[Prompt], texts: Sequence[str]) -> None:
        if len(texts) < 32:
            raise ValueError(
                f"task.reference_samples={len(texts)}: at least 32 samples set the scale of the reward"
            )
        self.source = source
        members, features = source.score(prompts, texts)
        self.mean, self.std = members.mean(1), members.std(1, correction=0)
        self.covariance = LedoitWolf().fit(features)
        normalise(members, self.mean, self.std)

    def __call__(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> ProxyScore:
        """Normalised members and distances."""
        members, features = self.source.score(prompts, texts)
        distance = self.covariance.mahalanobis(features) / features.shape[1]
        return ProxyScore(
            normalise(members, self.mean, self.std), torch.tensor(distance, dtype=torch.float32)
        )


class RunReward:
    """Trained runs of `task=reward`: every run, and every member of a run with head=ensemble, is a member.

    Args:
        folders: runs or exported models.
        batch_size: completions per forward pass.

    Raises:
        ValueError: no folder, or one with head=attributes, whose rows are different questions.
    """

    def __init__(self, folders: Sequence[str | Path], *, batch_size: int = 64) -> None:
        if not folders:
            raise ValueError(
                "no reward model: reward=<run folder>, or reward=[<run>,<run>,...] for an ensemble"
            )
        for folder in map(Path, folders):
            about = next((p for p in (folder / "model/rlhf.json", folder / "rlhf.json") if p.is_file()), None)
            if about is not None and json.loads(about.read_text())["head"] == "AttributeHead":
                raise ValueError(
                    f"reward={folder} has head=attributes: its rows are no ensemble; use head=linear or ensemble"
                )
        self.scorers: list[Scorer] = [rlhf.load(folder) for folder in folders]
        self.batch_size = batch_size

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[Float[Tensor, "M B"], Floats]:
        """Raw rewards, and the first run's pooled hidden states."""
        members, features = [], None
        for scorer in self.scorers:
            hidden = self._hidden(scorer, prompts, texts)
            reward = scorer.model.head(hidden)
            members.append(reward if reward.ndim == 2 else reward[None])
            features = hidden.double().numpy() if features is None else features
        return torch.cat(members).clone(), features  # type: ignore[return-value]

    def _hidden(self, scorer: Scorer, prompts: Sequence[Prompt], texts: Sequence[str]) -> Tensor:
        rows = []
        for prompt, text in zip(prompts, texts, strict=True):
            encoded = scorer.renderer.encode(prompt, [text])
            if not encoded.kept:
                raise ValueError(
                    f"a completion of {len(text)} characters is longer than the reward model reads: "
                    "lower task.max_new_tokens"
                )
            rows.append(encoded.prompt + encoded.responses[0])
        end = int(scorer.renderer.tokenizer.pad_token_id)
        batches = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        return torch.cat([scorer.model.backbone(pad(batch, end)).float() for batch in batches])
