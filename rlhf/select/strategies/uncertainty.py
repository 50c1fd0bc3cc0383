"""Selectors that ask where the head is unsure, and by how much a vote would change it.

Each is `(candidates, budget, rng, **options) -> Selection` and chooses the highest utility, divided by the cost of a
vote to the power of `cost_power`. `reliability` is γ of an annotator, `votes` is m to be obtained per pair.
"""

import numpy as np
from scipy.special import entr, expit

from rlhf.select.checks import option
from rlhf.select.laplace import information
from rlhf.select.pool import Candidates, Selection
from rlhf.select.strategies.selector import best
from rlhf.stats.arrays import Floats, Rng

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def margin(candidates: Candidates, budget: int, rng: Rng, *, cost_power: float = 0.0) -> Selection:
    """Nearest to a draw: -|p - ½|. Easily the worst choice where labels are noisy: a draw is often a real tie."""
    utility = 0.5 - np.abs(candidates.probability - 0.5)
    return best(candidates, per_cost(candidates, utility, cost_power), budget, "margin: p within ½ -", rng)


def entropy(candidates: Candidates, budget: int, rng: Rng, *, cost_power: float = 0.0) -> Selection:
    """h(p) = -p log p - (1-p) log(1-p) in nats. Orders as `margin` does; differs once costs differ."""
    utility = binary_entropy(candidates.probability)
    return best(candidates, per_cost(candidates, utility, cost_power), budget, "entropy in nats", rng)


def disagreement(
    candidates: Candidates, budget: int, rng: Rng, *, members: int = 20, cost_power: float = 0.0
) -> Selection:
    """Variance over members of the reward difference; a reward shifted as a whole changes nothing.

    The members are the ensemble's (`pool.members`) where there is one, else that many draws, 2 or more, from the
    posterior.
    """
    option("members", members, 2)
    utility = member_margins(candidates, members, rng).var(0)
    return best(candidates, per_cost(candidates, utility, cost_power), budget, "disagreement: variance", rng)


def bald(candidates: Candidates, budget: int, rng: Rng, *, cost_power: float = 0.0) -> Selection:
    """Mutual information of vote and head, h(E p) - E h(p) (Houlsby et al. 2011), in nats.

    Over the ensemble's members where there is one; else over the Laplace posterior, by quadrature with 16 nodes.
    """
    if candidates.pool.members is not None:
        p = expit(candidates.pool.reward_differences(candidates.pool.members, candidates.rows))
        utility = binary_entropy(p.mean(0)) - binary_entropy(p).mean(0)
    else:
        utility = mutual_information(candidates.margin, candidates.variance)
    return best(candidates, per_cost(candidates, utility, cost_power), budget, "BALD in nats", rng)


def fisher(
    candidates: Candidates, budget: int, rng: Rng, *, reliability: float = 1.0, votes: float = 1.0,
    cost_power: float = 0.0,
) -> Selection:  # fmt: skip
    """log(1 + w s²): twice what m votes of reliability γ on this pair alone tell about the head, in nats."""
    utility = np.log1p(vote_information(candidates, reliability, votes) * candidates.variance)
    return best(candidates, per_cost(candidates, utility, cost_power), budget, "information: log(1 + w s²)", rng)


def laplace_power(
    candidates: Candidates, budget: int, rng: Rng, *, temperature: float = 1.0,
    reliability: float = 1.0, cost_power: float = 0.0,
) -> Selection:  # fmt: skip
    """A sample without replacement, P ∝ (w s²)^(1/T): top-k of log(w s²) / T + Gumbel noise (Kirsch et al. 2023).

    The noise keeps near-copies of one pair from filling the batch, at the cost of one matrix product.

    Args:
        temperature: T > 0; small = always the best, large = at random.
    """
    option("temperature", temperature, 0, above=True)
    utility = vote_information(candidates, reliability, 1.0) * candidates.variance
    worth = per_cost(candidates, utility, cost_power)
    noisy = np.log(np.maximum(worth, 1e-300)) / temperature + rng.gumbel(size=len(candidates))
    return best(candidates, noisy, budget, "Laplace-power: log(w s²) + noise =", rng)


def gradient_norm(candidates: Candidates, budget: int, rng: Rng, *, cost_power: float = 0.0) -> Selection:
    """Expected length of the loss gradient (Settles & Craven 2008): E|∇ℓ| = p(1-p)|z| + (1-p)p|z| = 2w|z|."""
    utility = 2 * candidates.weight * candidates.each(lambda z: np.linalg.norm(z, axis=1))
    return best(candidates, per_cost(candidates, utility, cost_power), budget, "expected gradient 2w|z| =", rng)


def max_gap(candidates: Candidates, budget: int, rng: Rng, *, cost_power: float = 0.0) -> Selection:
    """Largest |μ|: pairs that seem decided. For preference data of policies; rarely for reward models."""
    return best(candidates, per_cost(candidates, np.abs(candidates.margin), cost_power), budget, "gap |μ| =", rng)


def vote_information(candidates: Candidates, reliability: float, votes: float) -> Floats:
    """w_γ [n], m votes; see `laplace.information`."""
    return information(candidates.probability, votes=votes, reliability=reliability)


def per_cost(candidates: Candidates, utility: Floats, power: float) -> Floats:
    """Utility [n] per unit of cost^power; power 0 leaves costs out. Raises RecordError for a negative power."""
    option("cost_power", power, 0)
    if power == 0:
        return utility
    return np.asarray(utility / candidates.pool.cost[candidates.rows] ** power)


def member_margins(candidates: Candidates, members: int, rng: Rng) -> Floats:
    """Reward differences [M, n] of the ensemble's members, or of that many draws from the posterior."""
    if candidates.pool.members is not None:
        return np.asarray(candidates.pool.reward_differences(candidates.pool.members, candidates.rows))
    theta = candidates.state.posterior.draw(members, rng)
    return candidates.each(lambda z: z @ theta.T).reshape(len(candidates), members).T


def mutual_information(mean: Floats, variance: Floats) -> Floats:
    """h(E σ(μ)) - E h(σ(μ)) over μ ~ N(mean, variance), elementwise, by 16-node Gauss-Hermite quadrature."""
    spread = np.sqrt(variance)
    average, inner = np.zeros_like(mean), np.zeros_like(mean)
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        p = expit(mean + spread * node)
        average += weight * p
        inner += weight * binary_entropy(p)
    return np.maximum(binary_entropy(average) - inner, 0)


def binary_entropy(p: Floats) -> Floats:
    """h(p) in nats."""
    return np.asarray(entr(p) + entr(1 - p))
