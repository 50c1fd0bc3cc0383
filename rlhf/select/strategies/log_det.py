"""Batches that tell most about the head together: greedy log-determinant of the posterior's precision.

    F(S) = log det(H + Σ_{i in S} w_i z_i z_iᵀ) - log det H,   F(S + i) - F(S) = log(1 + w_i z_iᵀ A⁻¹ z_i)

F is monotone and submodular: the greedy batch has at least 1 - 1/e of the best one's value (Nemhauser et al. 1978; for
Bradley-Terry designs Guo et al. 2018). Gains only fall, so an old gain is an upper bound and most are never looked at
again (lazy greedy, Minoux 1978): the batch is the same, memory is one number per candidate. All gains
that could still be the largest are brought up to date together before a pick: a matrix product instead of a queue.
"""

import numpy as np

from rlhf.select.checks import option
from rlhf.select.pool import Candidates, Selection
from rlhf.select.strategies.selector import chosen
from rlhf.select.strategies.uncertainty import vote_information
from rlhf.stats.arrays import Floats, Ints, Rng

AT_ONCE, IN_HAND, NEAR = 2_048, 256, 65_536
"""Gains brought up to date at once; pairs whose differences stay at hand; pairs searched before all others."""


def log_det(
    candidates: Candidates, budget: int, rng: Rng, *, reliability: float = 1.0, votes: float = 1.0,
    cost_power: float = 0.0, cap: float | None = None,
) -> Selection:  # fmt: skip
    """The greedy batch: what is already chosen counts, so near-copies are not chosen twice.

    Args:
        rng: not used; equal gains go to the first by id.
        reliability: γ of an annotator.
        votes: m votes to be obtained on each.
        cost_power: gains count per cost^power.
        cap: differences longer than this quantile (0..1) of all lengths are shortened to it, so that a few extreme
            pairs, which a linear head fits worst, do not win by their length alone; None leaves them.
    """
    option("cap", cap, 0, 1)
    option("cost_power", cost_power, 0)
    weight = vote_information(candidates, reliability, votes)
    if cap is not None:
        weight = weight * _shorten(candidates, cap)
    price = candidates.pool.cost[candidates.rows] ** cost_power
    places, gains = greedy(candidates, weight, price, budget)
    return chosen(candidates, places, gains, "log-det gain")


def _shorten(candidates: Candidates, quantile: float) -> Floats:
    """Factor on w [n] that does what shortening z to the quantile of |z| does."""
    length = candidates.each(lambda z: (z**2).sum(1))
    return np.asarray(np.minimum(1, np.quantile(length, quantile) / np.maximum(length, 1e-300)))


def greedy(candidates: Candidates, weight: Floats, price: Floats, budget: int) -> tuple[Ints, Floats]:
    """Places of the greedy batch in order [k], and the gain of each when it was chosen [k], in nats per price."""
    gains = _Gains(candidates, weight, price)
    covariance = candidates.state.posterior.covariance()
    places, gained = np.empty(budget, np.int64), np.empty(budget)
    for step in range(budget):
        places[step] = place = gains.take_largest(covariance)
        z = candidates.pool.z(candidates.rows[[place]])[0]
        direction = covariance @ z
        information = float(weight[place] * (z @ direction))
        gained[step] = np.log1p(information) / price[place]
        covariance -= np.outer(direction, direction) * (weight[place] / (1 + information))
    return places, gained


class _Gains:
    """Upper bounds [n] on the gains of all candidates, of which a few are brought up to date before every pick.

    Products are in single precision: gains that agree to 1e-6 may change places.
    """

    def __init__(self, candidates: Candidates, weight: Floats, price: Floats) -> None:
        self.candidates, self.weight, self.price = candidates, weight, price
        self.bound = np.log1p(weight * candidates.variance) / price
        self.picks = 0
        self.checked = np.full(len(candidates), -1, np.int32)  # before which pick the gain was last computed
        self.near: Ints = np.arange(0)  # every place whose bound is `water` or more
        self.water = np.inf
        self.hand: Ints = np.arange(0)  # the best of the last pick, with their differences
        self.z = np.empty((0, candidates.pool.width), np.float32)

    def take_largest(self, covariance: Floats) -> int:
        """The place of the largest gain under the covariance A⁻¹, of equal ones the first; it leaves the race."""
        now = covariance.astype(np.float32)
        best = self._check(self.hand, self.z, now)
        hand, differences = [self.hand], [self.z]
        while len(places := self._open(best)):
            z = self.candidates.pool.z(self.candidates.rows[places], np.float32)
            best = max(best, self._check(places, z, now))
            hand.append(places)
            differences.append(z)
        self.hand, self.z = np.concatenate(hand), np.concatenate(differences)
        taken, *kept = np.lexsort((self.hand, -self.bound[self.hand]))[: IN_HAND + 1]
        place = int(self.hand[taken])
        self.hand, self.z = self.hand[kept], self.z[kept]
        self.bound[place] = -np.inf
        self.picks += 1
        return place

    def _check(self, places: Ints, z: Floats, covariance: Floats) -> float:
        """Bring gains up to date; the largest of them."""
        variance = np.einsum("nd,nd->n", z @ covariance, z).astype(np.float64)
        gain = np.log1p(self.weight[places] * variance) / self.price[places]
        self.bound[places], self.checked[places] = gain, self.picks
        return float(gain.max(initial=-np.inf))

    def _open(self, best: float) -> Ints:
        """Up to AT_ONCE places, the highest first, whose old gain is at least `best`; none: nothing can beat it."""
        while True:
            bound = self.bound[self.near]
            beats = (bound >= best) & np.isfinite(bound) & (self.checked[self.near] < self.picks)
            places = self.near[beats]
            if len(places) or best >= self.water:
                break
            rank = min(NEAR, len(self.bound))
            self.water = -np.partition(-self.bound, rank - 1)[rank - 1]
            self.near = np.flatnonzero(self.bound >= self.water)
        if len(places) > AT_ONCE:
            places = np.sort(places[np.argpartition(-self.bound[places], AT_ONCE - 1)[:AT_ONCE]])
        return places
