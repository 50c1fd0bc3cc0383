"""A small network on frozen features as the head; its last layer has the exact Laplace posterior of the linear head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import GroupKFold
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rlhf.evaluation.metrics.calibration import nll
from rlhf.select.laplace import fit
from rlhf.select.loop.learners import Labels, Learner, LinearLearner, TrainedRound, with_features
from rlhf.select.pool import PairPool
from rlhf.stats.arrays import Floats, Ints


@dataclass(frozen=True)
class MlpLearner(Learner):
    """r(φ) = w · tanh(W φ + b), trained on all labels every round; weight decay by cross-validation over prompts.

    Selectors see the hidden layer as features and the members' rewards; the posterior is the last layer's. All networks
    of the cross-validation are trained at once as columns of one matrix, on each labelled answer once: Adam works
    element by element, so that each comes out as if it were trained alone.

    Args:
        hidden: units of the layer.
        members: networks with starts of their own; their mean is the reward.
        steps: optimizer steps (Adam, all labels at once).
        lr: step size.
        decays: weight decays that are tried, in units of a loss summed over votes.
        folds: of the cross-validation.
        warm_until: labels below which the linear head stands in.
    """

    hidden: int = 16
    members: int = 3
    steps: int = 75
    lr: float = 0.05
    decays: Sequence[float] = (0.3, 1.0, 3.0, 10.0, 30.0)
    folds: int = 3
    warm_until: int = 20

    def __call__(self, pool: PairPool, labels: Labels, seed: int) -> TrainedRound:
        """The networks, and the labels' predictions out of fold."""
        groups = pool.prompt[labels.rows]
        if len(labels.rows) < self.warm_until or len(np.unique(groups)) < self.folds:
            return LinearLearner()(pool, labels, seed)
        pairs = _Pairs.of(pool, labels)
        predicted = self._out_of_fold(pairs, labels, groups, seed)
        mean = (nll(predicted, labels.share) * labels.votes).sum(1) / max(labels.votes.sum(), 1)
        best = int(np.argmin(mean))
        decay = self.decays[best]
        everything = np.ones((self.members, len(labels.rows)), bool)
        starts = [seed + 1 + m for m in range(self.members)]
        networks = self._train(pairs, everything, [decay] * self.members, starts)
        p = 1 / (1 + np.exp(-predicted[best]))
        return self._trained(pool, labels, networks, decay, p, float(mean[best]))

    def _out_of_fold(self, pairs: _Pairs, labels: Labels, groups: Ints, seed: int) -> Floats:
        """Reward differences [decays, m] by networks that did not see the pair's prompt."""
        cut = GroupKFold(self.folds, shuffle=True, random_state=seed).split(groups, groups=groups)
        tests = [test for _, test in cut]
        cells = [(i, decay, test) for i, decay in enumerate(self.decays) for test in tests]
        used = np.ones((len(cells), len(labels.rows)), bool)
        for cell, (_, _, test) in enumerate(cells):
            used[cell, test] = False
        networks = self._train(pairs, used, [decay for _, decay, _ in cells], [seed] * len(cells))
        with torch.inference_mode():
            margins = pairs.margins(networks).double().numpy()
        out = np.zeros((len(self.decays), len(labels.rows)))
        for cell, (i, _, test) in enumerate(cells):
            out[i, test] = margins[test, cell]
        return out

    def _train(self, pairs: _Pairs, used: np.ndarray, decays: Sequence[float], seeds: Sequence[int]) -> _Networks:
        """K networks at once: used [K, m] says which pairs each sees."""
        networks = _Networks(pairs.features.shape[1], self.hidden, seeds)
        count = torch.from_numpy(used.sum(1).astype(np.float32))
        weight = torch.from_numpy(used.T.astype(np.float32)) * pairs.votes[:, None] / count
        target = pairs.share[:, None].expand(-1, len(seeds))
        shrink = torch.tensor(decays, dtype=torch.float32) / 2 / count
        optimizer = torch.optim.Adam(networks.parameters(), lr=self.lr, foreach=True)
        for _ in range(self.steps):
            optimizer.zero_grad()
            margins = pairs.margins(networks)
            data = binary_cross_entropy_with_logits(margins, target, weight=weight, reduction="sum")
            (data + (shrink * networks.squares()).sum()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return networks

    @torch.inference_mode()
    def _trained(
        self, pool: PairPool, labels: Labels, networks: _Networks, decay: float, p: Floats, loss: float
    ) -> TrainedRound:
        hidden = networks.hidden(_single(pool.features))
        members = networks.rewards(hidden).T.numpy()
        target = None if pool.target is None else networks.hidden(_single(pool.target)).numpy()
        seen = with_features(pool, hidden.numpy(), members if self.members > 1 else None, target)
        posterior = fit(seen.z(labels.rows), labels.share, labels.votes, decay)
        return TrainedRound(seen, labels.state(posterior, p), members.mean(0), loss)


@dataclass(frozen=True)
class _Pairs:
    """Labelled pairs as rows of the answers they are made of: features [U, d]; left, right, share, votes [m]."""

    features: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    share: torch.Tensor
    votes: torch.Tensor

    @classmethod
    def of(cls, pool: PairPool, labels: Labels) -> _Pairs:
        assert pool.right is not None, "a network on differences would depend on the side"
        sides = np.concatenate([pool.left[labels.rows], pool.right[labels.rows]])
        answers, place = np.unique(sides, return_inverse=True)
        left, right = torch.from_numpy(place).chunk(2)
        share, votes = (torch.from_numpy(np.asarray(v, np.float32)) for v in (labels.share, labels.votes))
        features = torch.from_numpy(np.asarray(pool.features[answers], np.float32))
        return cls(features, left, right, share, votes)

    def margins(self, networks: _Networks) -> torch.Tensor:
        """Reward differences [m, K]."""
        rewards = networks.rewards(networks.hidden(self.features))
        return rewards[self.left] - rewards[self.right]


class _Networks(nn.Module):
    """K networks of h units side by side: inner [d, K h], bias [K h], outer [K, h]."""

    def __init__(self, width: int, hidden: int, seeds: Sequence[int]) -> None:
        super().__init__()
        starts = dict(zip(seeds, _starts(width, hidden, seeds), strict=True))
        inner, bias, outer = zip(*(starts[seed] for seed in seeds), strict=True)
        self.inner = nn.Parameter(torch.cat(inner, dim=1))
        self.bias = nn.Parameter(torch.cat(bias))
        self.outer = nn.Parameter(torch.stack(outer))

    def hidden(self, features: torch.Tensor) -> torch.Tensor:
        """Hidden layers [N, K h] of features [N, d]."""
        return torch.addmm(self.bias, features, self.inner).tanh()

    def rewards(self, hidden: torch.Tensor) -> torch.Tensor:
        """Rewards [N, K] of hidden layers [N, K h]."""
        return (hidden.view(len(hidden), *self.outer.shape) * self.outer).sum(-1)

    def squares(self) -> torch.Tensor:
        """Squared length [K] of each network's weights."""
        inner = (self.inner**2).sum(0) + self.bias**2
        return inner.view_as(self.outer).sum(1) + (self.outer**2).sum(1)


def _single(features: Floats) -> torch.Tensor:
    return torch.from_numpy(np.asarray(features, np.float32))


def _starts(width: int, hidden: int, seeds: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, last = nn.Linear(width, hidden), nn.Linear(hidden, 1, bias=False)
        yield first.weight.detach().T.contiguous(), first.bias.detach(), last.weight.detach()[0]
