"""A small network on frozen features as the head; its last layer has the exact Laplace posterior of the linear head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GroupKFold
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rlhf.select.laplace import fit
from rlhf.select.learners import Labels, LinearHead, Trained, with_features
from rlhf.select.pool import Floats, LabelState, PairPool
from rlhf.select.world import World


@dataclass(frozen=True)
class MlpHead:
    """r(φ) = w · tanh(W φ + b), trained on all labels every round; weight decay by cross-validation over prompts.

    Selectors see the hidden layer as features and the members' rewards; the posterior is the last layer's.

    Args:
        hidden: units of the layer.
        members: networks with starts of their own; their mean is the reward.
        steps: optimizer steps (Adam, all labels at once).
        lr: step size.
        decays: weight decays that are tried, in units of a loss summed over votes.
        folds: of the cross-validation.
        warm_until: labels below which the linear head stands in.
    """

    hidden: int = 32
    members: int = 3
    steps: int = 150
    lr: float = 0.02
    decays: Sequence[float] = (0.1, 1.0, 10.0)
    folds: int = 3
    warm_until: int = 20

    def begin(self, world: World, folder: Path) -> MlpHead:
        """Itself: networks start anew every round."""
        return self

    def __call__(self, pool: PairPool, labels: Labels, seed: int) -> Trained:
        """The networks, and the labels' predictions out of fold."""
        groups = pool.prompt[labels.rows]
        if len(labels.rows) < self.warm_until or len(np.unique(groups)) < self.folds:
            return LinearHead()(pool, labels, seed)
        assert pool.right is not None, "a network on differences would depend on the side"
        left, right = (torch.from_numpy(np.asarray(pool.features[side[labels.rows]], np.float32))
                       for side in (pool.left, pool.right))  # fmt: skip
        share, votes = (torch.from_numpy(np.asarray(v, np.float32)) for v in (labels.share, labels.votes))
        out_of_fold = np.zeros((len(self.decays), len(labels.rows)))
        for train, test in GroupKFold(self.folds, shuffle=True, random_state=seed).split(
            groups, groups=groups
        ):
            part = torch.from_numpy(train)
            for i, decay in enumerate(self.decays):
                network = self._train(left[part], right[part], share[part], votes[part], decay, seed)
                with torch.inference_mode():
                    out_of_fold[i, test] = (network(left[test]) - network(right[test])).numpy()
        losses = labels.share * np.logaddexp(0, -out_of_fold) + (1 - labels.share) * np.logaddexp(
            0, out_of_fold
        )
        mean = (losses * labels.votes).sum(1) / max(labels.votes.sum(), 1)
        best = int(np.argmin(mean))
        everything = (left, right, share, votes, self.decays[best])
        networks = [self._train(*everything, seed + 1 + m) for m in range(self.members)]
        p = 1 / (1 + np.exp(-out_of_fold[best]))
        return self._trained(pool, labels, networks, self.decays[best], p, float(mean[best]))

    def _train(
        self,
        left: torch.Tensor,
        right: torch.Tensor,
        share: torch.Tensor,
        votes: torch.Tensor,
        decay: float,
        seed: int,
    ) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Linear(left.shape[1], self.hidden),
                nn.Tanh(),
                nn.Linear(self.hidden, 1, bias=False),
                nn.Flatten(0),
            )
        optimizer = torch.optim.Adam(network.parameters(), lr=self.lr)
        for _ in range(self.steps):
            optimizer.zero_grad()
            mu = network(left) - network(right)
            data = binary_cross_entropy_with_logits(mu, share, weight=votes, reduction="sum")
            shrink = sum((parameter**2).sum() for parameter in network.parameters())
            ((data + decay / 2 * shrink) / len(share)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return network.eval()

    @torch.inference_mode()
    def _trained(
        self,
        pool: PairPool,
        labels: Labels,
        networks: list[nn.Sequential],
        decay: float,
        p: Floats,
        nll: float,
    ) -> Trained:
        features = torch.from_numpy(np.asarray(pool.features, np.float32))
        members = np.stack([network(features).numpy() for network in networks])
        hidden = np.concatenate([network[:2](features).numpy() for network in networks], axis=1)
        seen = with_features(pool, hidden, members if self.members > 1 else None)
        posterior = fit(seen.z(labels.rows), labels.share, labels.votes, decay)
        state = LabelState(labels.rows, labels.share, labels.votes, posterior, p)
        return Trained(seen, state, members.mean(0), nll)
