"""A world of answers that are points, with a gold reward that can be gamed, and reward models learned from votes.

Gold is linear but for one cue: it pays up to 1, and costs beyond. Answers that were voted on seldom go there; the best
of many sampled ones do. Reward models are small networks trained with the project's own loss; members of an ensemble
differ in their start and in their bootstrap of the votes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from rlhf.data.batch import Target
from rlhf.reward.losses import soft_label

Floats = NDArray[np.float64]
WIDTH = 8
SEEN, SAMPLED = 0.7, 1.0
"""Spread of the answers that were voted on, and of those a policy samples."""


@dataclass(frozen=True)
class World:
    """Gold reward w · x + hump(x_0), where hump rises to x_0 = 1 and falls three times as fast beyond."""

    weight: Floats

    @classmethod
    def draw(cls, seed: int) -> World:
        weight = np.random.default_rng(seed).normal(size=WIDTH)
        weight[0] = 0.0
        return cls(weight / np.linalg.norm(weight))

    def gold(self, x: Floats) -> Floats:
        cue = x[..., 0]
        return np.asarray(x @ self.weight + 1.5 * np.where(cue < 1, cue, 1 - 3 * (cue - 1)))

    def votes(
        self, pairs: int, noise: float, rng: np.random.Generator, *, sharpness: float | None = None
    ) -> tuple[Floats, Floats]:
        """Pairs [P, 2, WIDTH], and 1 where the first won [P], flipped with probability `noise`.

        The better one wins, or with probability σ(sharpness · lead in gold) where a sharpness is given.
        """
        x = SEEN * rng.normal(size=(pairs, 2, WIDTH))
        lead = -np.diff(self.gold(x), axis=1)[:, 0]
        first = lead > 0 if sharpness is None else rng.random(pairs) < expit(sharpness * lead)
        return x, np.where(rng.random(pairs) < noise, ~first, first).astype(np.float64)


def target(win: Floats) -> Target:
    """Votes on pairs as the project's losses take them."""
    p = torch.tensor(win, dtype=torch.float32)
    square = torch.zeros(len(p), 2, 2)
    square[:, 0, 1], square[:, 1, 0] = p, 1 - p
    observed = ~torch.eye(2, dtype=torch.bool).expand(len(p), 2, 2)
    empty = torch.zeros_like(square)
    return Target(
        win_prob=square, tie_prob=empty, observed=observed, margin=empty,
        rank=torch.full((len(p), 2), -1), score=torch.zeros(len(p), 2, 0),
        candidate=torch.ones(len(p), 2, dtype=torch.bool), weight=torch.ones(len(p)),
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
        with torch.inference_mode():
            return self(torch.tensor(x, dtype=torch.float32)).double().numpy()


def train(x: Floats, win: Floats, *, members: int, steps: int, seed: int) -> Members:
    """Members 1..M-1 each see their own bootstrap of the votes; member 0, the single model, sees all of them."""
    model = Members(members, seed=seed)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(win), np.full(len(win), 1 / len(win)), size=members)
    counts[0] = 1
    weight = torch.tensor(counts, dtype=torch.float32)
    labels, flat = target(win), torch.tensor(x.reshape(-1, WIDTH), dtype=torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        loss = soft_label(model(flat).unflatten(1, (-1, 2)), labels)
        optimizer.zero_grad()
        (loss * weight).mean(1).sum().backward()
        optimizer.step()
    return model
