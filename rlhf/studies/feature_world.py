"""A world of answers that are points, with a gold reward that can be gamed, and reward models learned from votes.

Gold is linear but for one cue: it pays up to 1, and costs beyond. Answers that were voted on seldom go there; the best
of many sampled ones do. Reward models are small networks trained with the project's own loss; members of an ensemble
differ in their start and in their bootstrap of the votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit

from rlhf.data.batch import Target
from rlhf.reward.losses import soft_label
from rlhf.stats.arrays import Floats

WIDTH = 8
"""Numbers that an answer is."""


@dataclass(frozen=True)
class FeatureWorld:
    """Gold reward w · x + 1.5 h(x_0), where h rises to h(1) = 1 and falls three times as fast beyond.

    weight  [WIDTH] w, of length 1, w_0 = 0
    """

    weight: Floats

    @classmethod
    def draw(cls, seed: int) -> FeatureWorld:
        """The world of this seed."""
        weight = np.random.default_rng(seed).normal(size=WIDTH)
        weight[0] = 0.0
        return cls(weight / np.linalg.norm(weight))

    def gold(self, x: Floats) -> Floats:
        """True rewards [...] of answers [..., WIDTH]."""
        cue = x[..., 0]
        return np.asarray(x @ self.weight + 1.5 * np.where(cue < 1, cue, 1 - 3 * (cue - 1)))

    def votes(
        self, pairs: int, noise: float, rng: np.random.Generator, *, spread: float, sharpness: float | None = None
    ) -> tuple[Floats, Floats]:
        """Pairs of answers, and which of each was preferred.

        Args:
            pairs: how many, P.
            noise: probability that a vote is flipped, 0..1.
            rng: where answers and votes come from.
            spread: standard deviation of the answers in every direction.
            sharpness: P(first wins) = σ(sharpness · (gold_first - gold_second)) before flipping; None = the better
                one always wins.

        Returns:
            answers [P, 2, WIDTH], and [P] 1.0 where the first was preferred, else 0.0.
        """
        x = spread * rng.normal(size=(pairs, 2, WIDTH))
        lead = -np.diff(self.gold(x), axis=1)[:, 0]
        first = lead > 0 if sharpness is None else rng.random(pairs) < expit(sharpness * lead)
        return x, np.where(rng.random(pairs) < noise, ~first, first).astype(np.float64)


def pair_target(win: Sequence[float] | Floats, weight: Sequence[float] | Floats) -> Target:
    """Pairs as the project's losses take them: the first's share of the votes [P], and the weight [P]."""
    p = torch.as_tensor(win, dtype=torch.float32)
    square = torch.zeros(len(p), 2, 2)
    square[:, 0, 1], square[:, 1, 0] = p, 1 - p
    observed = ~torch.eye(2, dtype=torch.bool).expand(len(p), 2, 2)
    empty = torch.zeros_like(square)
    return Target(
        win_prob=square, tie_prob=empty, observed=observed, margin=empty,
        rank=(square.sum(2) < 0.5).long(), score=torch.zeros(len(p), 2, 0),
        candidate=torch.ones(len(p), 2, dtype=torch.bool), weight=torch.as_tensor(weight, dtype=torch.float32),
    )  # fmt: skip


class Members(torch.nn.Module):
    """M networks of one hidden layer, side by side."""

    def __init__(self, members: int, hidden: int = 32, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.first = torch.nn.Parameter(torch.randn(members, WIDTH, hidden, generator=g) / WIDTH**0.5)
        self.bias = torch.nn.Parameter(torch.randn(members, 1, hidden, generator=g))
        self.second = torch.nn.Parameter(torch.randn(members, hidden, generator=g) / hidden**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rewards [M, N] of answers [N, WIDTH]."""
        hidden = torch.nn.functional.softplus(torch.matmul(x, self.first) + self.bias)
        return torch.einsum("mnh,mh->mn", hidden, self.second)

    def rewards(self, x: Floats) -> Floats:
        """The same as arrays, without gradients; answers [..., WIDTH] become [M, N] in their order."""
        with torch.inference_mode():
            found = self(torch.tensor(x.reshape(-1, WIDTH), dtype=torch.float32))
        return np.asarray(found.double().numpy())


def train(x: Floats, win: Floats, *, members: int, steps: int, seed: int) -> Members:
    """One single model and an ensemble, learned from the same votes with Adam and loss=soft_label, full batch.

    Args:
        x: [P, 2, WIDTH] pairs of answers.
        win: [P] 1 where the first was preferred.
        members: of the ensemble, M.
        steps: of training.
        seed: of starting weights and bootstraps.

    Returns:
        M + 1 networks: the first, the single model, sees all votes; each of the others its own bootstrap of them.
    """
    model = Members(members + 1, seed=seed)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(win), np.full(len(win), 1 / len(win)), size=members + 1)
    counts[0] = 1
    weight = torch.tensor(counts, dtype=torch.float32)
    labels, flat = (pair_target(win, np.ones(len(win))), torch.tensor(x.reshape(-1, WIDTH), dtype=torch.float32))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        loss = soft_label(model(flat).unflatten(1, (-1, 2)), labels)
        optimizer.zero_grad()
        (loss * weight).mean(1).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model
