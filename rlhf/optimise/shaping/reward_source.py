"""The reward a policy is trained on, and how far from home its answers are: scores of a reward model on texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from sklearn.covariance import LedoitWolf
from torch import Tensor

import rlhf
from rlhf.optimise.shaping.ensemble import normalise
from rlhf.records import Prompt
from rlhf.reward.scoring.engine import GroupScores, joined
from rlhf.reward.scoring.once import ScoreMemo
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
    """A reward source made comparable: every member has mean 0 and std 1 on samples of the reference (Ziegler 2019).

    Args:
        source: the reward model.
        prompts, texts: at least 32 samples of the reference policy; 256 or more are advised.

    Raises:
        ValueError: too few samples, or a member that gives all of them the same reward.
    """

    def __init__(self, source: RewardSource, prompts: Sequence[Prompt], texts: Sequence[str]) -> None:
        if len(texts) < 32:
            raise ValueError(f"task.reference_samples={len(texts)}: at least 32 samples set the scale of the reward")
        self.source = source
        members, features = source.score(prompts, texts)
        self.mean, self.std = members.mean(1), members.std(1, correction=0)
        self.covariance = LedoitWolf().fit(features)
        normalise(members, self.mean, self.std)

    def __call__(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> ProxyScore:
        """Normalised members and distances."""
        members, features = self.source.score(prompts, texts)
        distance = self.covariance.mahalanobis(features) / features.shape[1]
        return ProxyScore(normalise(members, self.mean, self.std), torch.tensor(distance, dtype=torch.float32))


class RunReward:
    """Trained runs of `task=reward`: every run, and every member of a run with head=ensemble, is a member.

    Args:
        folders: runs or exported models.
        device: of the models; see `to`.
        batch_tokens: tokens per forward pass, at most.

    Raises:
        ValueError: no folder, or one with head=attributes, whose rows are different questions.
    """

    def __init__(
        self, folders: Sequence[str | Path], *, device: torch.device | str = "cpu", batch_tokens: int = 8192
    ) -> None:
        if not folders:
            raise ValueError("no reward model: reward=<run folder>, or reward=[<run>,<run>,...] for an ensemble")
        self.scorers = [rlhf.load(f, device=str(device), batch_tokens=batch_tokens) for f in folders]
        for folder, scorer in zip(folders, self.scorers, strict=True):
            if scorer.model.head.names:
                raise ValueError(
                    f"reward={folder} has head=attributes: its rows are no ensemble; use head=linear or ensemble"
                )

    def to(self, device: torch.device | str) -> None:
        """Score on another device from now on: that of the policy."""
        for scorer in self.scorers:
            scorer.engine.to(device)

    def score(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[Float[Tensor, "M B"], Floats]:
        """Raw rewards, and the first run's pooled hidden states."""
        found = [_scores(scorer, prompts, texts) for scorer in self.scorers]
        return torch.cat([scores.rows for scores in found]), found[0].states.double().numpy()


def _scores(scorer: Scorer, prompts: Sequence[Prompt], texts: Sequence[str]) -> GroupScores:
    """Scores in the order of the texts, each rendered alone; equal answers, and a shared prompt, are read once."""
    groups = []
    for prompt, text in zip(prompts, texts, strict=True):
        encoded = scorer.renderer.encode(prompt, [text])
        if not encoded.kept:
            raise ValueError(
                f"a completion of {len(text)} characters is longer than the reward model reads: "
                "lower task.max_new_tokens"
            )
        groups.append(encoded)
    return joined(ScoreMemo(scorer.engine).score(groups))
