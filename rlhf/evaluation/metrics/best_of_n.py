"""Best-of-n: what picking the highest reward of n answers does to the reward itself, and to what it stands for.

Everything is exact given the N scored answers of a prompt: the expectation over all subsets of n, not a simulation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import Estimate, cluster_bootstrap
from rlhf.stats.ranks import ranks_of

WIN = "/win_rate"
"""Ends the names of win rates in a curve."""
FIT_FROM = 5
"""Prompts that a fit needs at least: fewer say nothing about how the gain goes on."""


def selection_weights(n: int, size: int) -> Floats:
    """P [size] that place i of `size`, in rising order, is the best of n drawn without replacement.

    C(i-1, n-1) / C(size, n) for i = n..size, else 0; sums to 1 (the hockey-stick identity). Computed with log-gamma.

    Raises:
        ValueError: not 1 <= n <= size: a best of n needs n answers.
    """
    if not 1 <= n <= size:
        raise ValueError(f"n={n}: a best of n needs 1 <= n <= {size}, the number of answers")
    place = np.arange(n, size + 1, dtype=np.float64)
    log = gammaln(place) - gammaln(place - n + 1) - gammaln(n)
    log += gammaln(n + 1) + gammaln(size - n + 1) - gammaln(size + 1)
    weight = np.exp(log)
    return np.concatenate([np.zeros(n - 1), weight / weight.sum()])


def best_of(ns: Sequence[int], proxy: Floats, value: Floats) -> Floats:
    """Expected value of the answer with the highest proxy among n of N, without bias, for every n.

    Equal proxies are equally likely to be picked: their values are averaged, so the order of the answers says
    nothing. n = 1 gives the mean, n = N the value of the best (Nakano et al. 2021, app. I; Gao et al. 2023).

    Args:
        ns: how many answers are compared, each 1..N.
        proxy: [N] what is maximised.
        value: [N] or [N, S] what is reported.

    Returns:
        [len(ns)] or [len(ns), S].

    Raises:
        ValueError: an n out of range.
    """
    values = value.reshape(len(proxy), -1)
    found = best_of_each(ns, proxy[None], values[None])[0]
    return np.asarray(found.reshape(len(ns), *value.shape[1:]))


def best_of_each(ns: Sequence[int], proxies: Floats, values: Floats) -> Floats:
    """`best_of` of G prompts with N answers each: proxies [G, N] and values [G, N, S] to [G, len(ns), S].

    Raises:
        ValueError: an n out of range.
    """
    groups, size = proxies.shape
    order = np.argsort(proxies, axis=1, kind="stable")
    rising = np.take_along_axis(proxies, order, axis=1)
    place = np.broadcast_to(np.arange(size), (groups, size))
    new = np.diff(rising, axis=1) != 0
    edge = np.ones((groups, 1), dtype=bool)
    low = np.maximum.accumulate(np.where(np.hstack([edge, new]), place, 0), axis=1)
    after = np.where(np.hstack([new, edge]), place + 1, size)
    high = np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1]
    ordered = np.take_along_axis(values, order[:, :, None], axis=1)
    reached = _reached(tuple(ns), size)
    out = np.empty((groups, len(reached), values.shape[2]))
    for i, row in enumerate(reached):  # chance of a level, shared by the answers on it
        chance = (row[high] - row[low]) / (high - low)
        out[:, i] = (chance[:, None, :] @ ordered)[:, 0]
    return out


@lru_cache
def _reached(ns: tuple[int, ...], size: int) -> Floats:
    """P [len(ns), size + 1] that the pick is among the lowest 0, 1, ..., size."""
    weights = np.stack([selection_weights(n, size) for n in ns])
    return np.pad(np.cumsum(weights, axis=1), ((0, 0), (1, 0)))


def kl_bound(n: int | Floats) -> Floats:
    """An upper bound of KL(best-of-n || policy) in nats: log n - (n-1)/n (Beirami et al. 2024, thm. 1).

    Reached only where no two answers are alike; a policy that repeats itself moves less, at most log(number of
    different answers).
    """
    n = np.asarray(n, dtype=np.float64)
    return np.asarray(np.log(n) - (n - 1) / n)


def gao_design(kl: Floats) -> Floats:
    """The matrix [2, n] that turns gains R into α and β of R(d) = d (α - β d), d = √KL, by least squares.

    Gao et al. (2023), eq. 1. The fit is linear in R, so it may be averaged over prompts.

    Raises:
        ValueError: fewer than two different distances above 0: nothing can be fitted.
    """
    d = np.sqrt(kl)
    columns = np.stack([d, -(d**2)], axis=1)
    if np.linalg.matrix_rank(columns) < 2:
        raise ValueError("R(d) = d (α - β d) needs at least two different distances above 0")
    return np.asarray(np.linalg.pinv(columns))


@dataclass(frozen=True)
class BestOfNFit:
    """R(d) = d (α - β d), its share of explained variance, and 95% intervals."""

    alpha: float
    beta: float
    r2: float
    alpha_interval: tuple[float, float]
    beta_interval: tuple[float, float]

    @property
    def peak(self) -> float:
        """d* = α / 2β where the gain turns over; infinite where it never does."""
        return self.alpha / (2 * self.beta) if self.alpha > 0 and self.beta > 0 else np.inf


@dataclass(frozen=True)
class Curve:
    """Best-of-n by n, averaged over prompts; `low` and `high` are 95% intervals from resampling prompts.

    ns        [n] how many answers are compared
    kl_bound  [n] upper bound of the KL divergence in nats, see `kl_bound`
    value     name -> [n] mean; `proxy` first, then what was given beside it
    low, high   name -> [n]; NaN where there is one prompt only
    fit       name -> `BestOfNFit` of the gain over n = 1; empty below four n or `FIT_FROM` prompts
    n_prompts   how many prompts took part, n_left_out how many had too few answers
    """

    ns: tuple[int, ...]
    kl_bound: Floats
    value: dict[str, Floats]
    low: dict[str, Floats]
    high: dict[str, Floats]
    fit: dict[str, BestOfNFit]
    n_prompts: int
    n_left_out: int

    def at(self, name: str, i: int) -> Estimate:
        """The mean of `name` at the i-th n, with its interval."""
        return Estimate(*(float(side[name][i]) for side in (self.value, self.low, self.high)))

    @property
    def has_intervals(self) -> bool:
        """Whether prompts could be resampled."""
        return bool(np.isfinite(self.low["proxy"]).all())


def common_size(counts: Ints) -> int:
    """The largest n that half of the prompts reach, of those with a choice at all (2 answers), and 2 of them at least.

    Args:
        counts: answers of every prompt.

    Returns:
        n; of a single prompt with a choice its own number, 0 where there is none.
    """
    falling = np.sort(counts[counts > 1])[::-1]
    needed = min(len(falling), max(2, -(-len(falling) // 2)))
    return int(falling[needed - 1]) if len(falling) else 0


def steps(size: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to `size`, and `size` itself."""
    powers = [2**i for i in range(int(np.log2(size)) + 1)]
    return tuple(dict.fromkeys([*powers, size]))


def curve(
    proxies: Sequence[Floats],
    values: Mapping[str, Sequence[Floats]],
    *,
    size: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Curve:
    """The curve over prompts.

    Args:
        proxies: per prompt the rewards [N_p] of its answers: what best-of-n maximises.
        values: name -> per prompt the [N_p] numbers to follow: a gold reward, a length.
        size: prompts with fewer answers are left out, so that every n sees the same prompts; None = as `common_size`.
        bootstrap: resamples of prompts.
        seed: of the resampling.

    Returns:
        `value["proxy"]`, each of `values`, and for each of them `<name>/win_rate`: how often the pick is better by
        it than a random answer of the same prompt (equal ones count half).

    Raises:
        ValueError: no prompt has `size` answers, or `size` is below 2.
    """
    counts = np.array([len(p) for p in proxies])
    size = common_size(counts) if size is None else size
    taking = np.flatnonzero(counts >= size).tolist()
    if size < 2 or not len(taking):
        raise ValueError(f"best-of-n needs prompts with at least {max(size, 2)} answers; the largest has "
                         f"{counts.max(initial=0)}")  # fmt: skip
    ns = steps(size)
    names = ["proxy", *(column for name in values for column in (name, f"{name}/win_rate"))]
    rows = np.empty((len(taking), len(ns), len(names)))
    for count in np.unique(counts[taking]):  # prompts with as many answers are one stack
        here = np.flatnonzero(counts[taking] == count)
        alike = [taking[i] for i in here]
        proxy = np.stack([proxies[p] for p in alike])
        followed = [np.stack([several[p] for p in alike]) for several in values.values()]
        beaten = [(ranks_of(v) - 0.5) / count for v in followed]  # the share of answers, equal ones counting half
        columns = [proxy, *(column for pair in zip(followed, beaten, strict=True) for column in pair)]
        rows[here] = best_of_each(ns, proxy, np.stack(columns, axis=2))
    flat = rows.transpose(0, 2, 1).reshape(len(taking), -1)
    low, high = cluster_bootstrap(flat, np.ones_like(flat), samples=bootstrap, seed=seed)
    mean, low, high = (x.reshape(len(names), len(ns)) for x in (flat.mean(0), low, high))
    kl = kl_bound(np.array(ns))
    fits = {}
    if len(ns) > 3 and len(taking) >= FIT_FROM:  # two distances fit any two numbers
        gains = {n: rows[:, :, i] - rows[:, :1, i] for i, n in enumerate(names) if not n.endswith(WIN)}
        fits = {name: gao_fit(kl, gain, bootstrap=bootstrap, seed=seed) for name, gain in gains.items()}
    value, lower, upper = (dict(zip(names, column, strict=True)) for column in (mean, low, high))
    return Curve(ns, kl, value, lower, upper, fits, len(taking), len(proxies) - len(taking))


def gao_fit(kl: Floats, gain: Floats, *, bootstrap: int = 1000, seed: int = 0) -> BestOfNFit:
    """α and β of the mean gain over prompts.

    Args:
        kl: [n] KL divergence (or its bound) in nats.
        gain: [P, n] per prompt, what is gained over n = 1.
        bootstrap, seed: resamples of prompts behind the intervals.

    Raises:
        ValueError: fewer than two different distances above 0.
    """
    design, d = gao_design(kl), np.sqrt(kl)
    each = gain @ design.T
    alpha, beta = each.mean(0)
    low, high = cluster_bootstrap(each, np.ones_like(each), samples=bootstrap, seed=seed)
    seen = gain.mean(0)
    spread = float(((seen - seen.mean()) ** 2).sum())
    missed = float(((seen - d * (alpha - beta * d)) ** 2).sum())
    r2 = 1 - missed / spread if spread else np.nan
    intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return BestOfNFit(float(alpha), float(beta), r2, *intervals)
