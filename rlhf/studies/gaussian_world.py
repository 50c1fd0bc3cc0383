"""A world where overoptimisation is exact: answers are points x ~ N(μ, I), the policy is μ, KL = |μ|² / 2.

gold(x) = w · x + s(x_1),  s(t) = t up to 1 and 1 - 2 (t - 1)² beyond: one direction is good until it is too much, as
length is. Reward models are Bradley-Terry on linear features, learned from pairs of answers that spread less (std 0.7)
than what a policy samples: they see the good side of x_1 only. Labels are flipped with a given chance.

The world is built to turn over; it shows the mechanism and what mitigates it, it is no evidence that real rewards do.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from rlhf.evaluation.metrics.best_of_n import best_of
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.ensemble import Aggregator

TRAINING_SPREAD = 0.7


@dataclass(frozen=True)
class GaussianWorld:
    """One world and its ensemble of reward models.

    Args:
        dimensions: of x.
        pairs: labelled.
        noise: chance that a label is flipped.
        members: reward models, each on its own bootstrap of the pairs.
        seed: of everything.
    """

    dimensions: int = 10
    pairs: int = 300
    noise: float = 0.25
    members: int = 5
    seed: int = 0

    def gold(self, x: Floats) -> Floats:
        """True rewards [...] of points [..., D]."""
        rng = np.random.default_rng((self.seed, 1))
        direction = rng.normal(size=self.dimensions) / np.sqrt(self.dimensions)
        direction[0] = 0.0
        first = x[..., 0]
        found: Floats = x @ direction + np.where(first < 1, first, 1 - 2 * (first - 1) ** 2)
        return found

    def reward_models(self) -> Floats:
        """Weights [M, D], each scaled to std 1 on the reference N(0, I)."""
        rng = np.random.default_rng((self.seed, 2))
        a, b = TRAINING_SPREAD * rng.normal(size=(2, self.pairs, self.dimensions))
        won = rng.random(self.pairs) < expit(self.gold(a) - self.gold(b))
        won ^= rng.random(self.pairs) < self.noise
        rows = []
        for _ in range(self.members):
            drawn = rng.integers(self.pairs, size=self.pairs)
            model = LogisticRegression(C=1.0, fit_intercept=False).fit((a - b)[drawn], won[drawn])
            rows.append(model.coef_[0] / np.linalg.norm(model.coef_[0]))
        return np.stack(rows)


def single(rewards: Floats) -> Floats:
    """The first member alone."""
    found: Floats = rewards[0]
    return found


def rl_curve(
    world: GaussianWorld, aggregate: Aggregator, *, beta: float = 0.0, steps: int = 400, group: int = 64,
    lr: float = 0.1,
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """RLOO on μ: KL (exact), mean gold and mean proxy at every step.

    The reward of a point is aggregate(members) - β · log N(x; μ, I) / N(x; 0, I), k1 in the reward; the baseline is the
    mean of the others; the gradient of log N(x; μ, I) is x - μ.
    """
    weights = world.reward_models()
    rng = np.random.default_rng((world.seed, 3))
    probe = rng.normal(size=(2000, world.dimensions))
    mu = np.zeros(world.dimensions)
    out = np.empty((steps, 3))
    for step in range(steps):
        members = np.einsum("md,nd->mn", weights, probe + mu)
        out[step] = (mu @ mu) / 2, world.gold(probe + mu).mean(), aggregate(members).mean()
        noise = rng.normal(size=(group, world.dimensions))
        x = mu + noise
        reward = aggregate(np.einsum("md,nd->mn", weights, x)) - beta * (x @ mu - (mu @ mu) / 2)
        advantage = reward - (reward.sum() - reward) / (group - 1)
        mu = mu + lr * (advantage[:, None] * noise).mean(0)
    return out[:, 0], out[:, 1], out[:, 2]


def best_of_n_curve(world: GaussianWorld, aggregate: Aggregator, ns: Ints, *, prompts: int = 400) -> Floats:
    """Mean gold [len(ns)] of the best of n by the proxy, from max(ns) samples per prompt, unbiased for every n."""
    weights, most = world.reward_models(), int(ns.max())
    rng = np.random.default_rng((world.seed, 4))
    total = np.zeros(len(ns))
    for _ in range(prompts):
        x = rng.normal(size=(most, world.dimensions))
        total += best_of(ns.tolist(), aggregate(np.einsum("md,nd->mn", weights, x)), world.gold(x))
    return total / prompts


class RlFit(NamedTuple):
    """Of `fit_rl`: α, β, the share of variance explained, and the d of the peak (inf where there is none)."""

    alpha: float
    beta: float
    r2: float
    peak: float


def fit_rl(d: ArrayLike, gain: ArrayLike) -> RlFit:
    """The published form of overoptimisation by RL (Gao et al. 2023), d = √KL in nats: R = d (α - β log d).

    R is the gain in gold over the reference; its peak is at d = exp(α/β - 1). It is linear in α and β, so least
    squares is exact. Points at d = 0 carry no information and are left out. That of best-of-n is
    `rlhf.evaluation.metrics.best_of_n.gao_fit`. Raises ValueError for fewer than 3 points.
    """
    x, y = np.asarray(d, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    x, y = x[x > 0], y[x > 0]
    if len(y) < 3:
        raise ValueError(f"{len(y)} points: two coefficients need at least 3 to say how well they fit")
    columns = np.stack([x, -x * np.log(x)], 1)
    alpha, beta = np.linalg.lstsq(columns, y, rcond=None)[0]
    r2 = 1 - np.sum((y - columns @ [alpha, beta]) ** 2) / np.sum((y - y.mean()) ** 2)
    return RlFit(float(alpha), float(beta), float(r2), float(np.exp(alpha / beta - 1)) if beta > 0 else np.inf)
