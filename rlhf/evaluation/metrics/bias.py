"""What a reward pays for besides quality: length, and changes of style that a probe makes on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.ranking import spearman, spearman_influence, stacks
from rlhf.evaluation.metrics.results import Results
from rlhf.evaluation.metrics.scored import Scored
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import DIFFERENCE, SHARE, bounds, cluster_bootstrap, cluster_sums, resampled_sums
from rlhf.stats.ranks import ranks_of

NEGLIGIBLE = 1e-4
"""Log-odds below which a change is rounding: rewards are sums in single precision, in another order."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval over prompts."""

    value: float
    low: float
    high: float


def length_correlation(scored: Scored, *, samples: int, seed: int) -> Estimate | None:
    """Spearman of reward and length inside each group, averaged; None where no group has both unequal."""
    numbers: list[Ints] = [np.zeros(0, np.int64)]
    rhos: list[Floats] = [np.zeros(0)]
    for number, reward, _, length in stacks(scored, np.isfinite(scored.reward)):
        rho = spearman(reward, length)
        defined = ~np.isnan(rho)
        numbers.append(number[defined])
        rhos.append(rho[defined])
    rho = np.concatenate(rhos)
    if not len(rho):
        return None
    return mean(rho, scored.prompt[np.concatenate(numbers)], samples=samples, seed=seed, within=DIFFERENCE)


def partial_length_correlation(scored: Scored, *, samples: int, seed: int) -> Estimate | None:
    """Correlation of the ranks of reward and length inside groups when the ranks of the votes are held fixed.

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz²)(1 - r_yz²)) with x reward, y length, z the votes' rank, from ranks centred
    in their group and pooled over groups (a group counts more the more it varies). A reward that follows length
    only because better answers are longer has 0.
    """
    numbers, products = [np.zeros(0, np.int64)], [np.zeros((0, 6))]
    for number, reward, rank, length in stacks(scored, scored.rank >= 0):
        x, y, z = (ranks_of(v) - (v.shape[-1] + 1) / 2 for v in (reward, length, -rank))
        numbers.append(number)
        products.append(
            np.stack([(a * b).sum(-1) for a, b in ((x, x), (y, y), (z, z), (x, y), (x, z), (y, z))], -1)
        )
    total = np.concatenate(products)
    if not len(total):
        return None
    sums = cluster_sums(total, scored.prompt[np.concatenate(numbers)])
    value = float(_partial(sums.sum(0)))
    if not np.isfinite(value):
        return None
    return Estimate(value, *_quantiles(_partial(resampled_sums(sums, samples=samples, seed=seed)), len(sums)))


def _partial(sums: Floats) -> Floats:
    xx, yy, zz, xy, xz, yz = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r, s, t = xy / np.sqrt(xx * yy), xz / np.sqrt(xx * zz), yz / np.sqrt(yy * zz)
        return np.asarray((r - s * t) / np.sqrt((1 - s**2) * (1 - t**2)))


def correlation(a: Floats, b: Floats, cluster: Ints, *, samples: int, seed: int) -> Estimate:
    """Spearman of a and b [N] over all entries together, with its interval over clusters; NaN where one is constant.

    From the influence function (`rlhf.evaluation.metrics.ranking.spearman_influence`): exact to first order.
    """
    rho, influence = spearman_influence(a, b)
    found = mean(rho + influence, cluster, samples=samples, seed=seed)
    return Estimate(rho, *np.clip([found.low, found.high], -1.0, 1.0).tolist())


def mean(
    values: Floats, cluster: Ints, *, samples: int, seed: int, within: tuple[float, float] | None = None
) -> Estimate:
    """Mean of values [N] with its interval over clusters.

    Args:
        values: NaN does not count, but its cluster is drawn like the others, so that two means over the same
            clusters have the same resamples.
        cluster: [N].
        samples, seed: of the bootstrap.
        within: as in `cluster_bootstrap`.
    """
    counted = np.isfinite(values)
    sums = cluster_sums([np.where(counted, values, 0.0), counted.astype(np.float64)], cluster)
    low, high = cluster_bootstrap(sums[:, :1], sums[:, 1:], samples=samples, seed=seed, within=within)
    value = float(values[counted].mean()) if counted.any() else float("nan")
    return Estimate(value, float(low[0]), float(high[0]))


@dataclass(frozen=True, slots=True)
class Probe:
    """What a change of the answers does.

    effect     mean change of the reward in log-odds (1 = odds of 2.7 to 1 for the changed answer over itself)
    raised     share of the answers whose reward rose, equal rewards one half: 0.5 where the change means nothing
    overtakes  share of the rightly ordered pairs in which the worse answer, changed, beats the better one as it
               was; None where there is no such pair
    answers    how many answers were changed
    largest    largest absolute change, in log-odds
    """

    effect: Estimate
    raised: Estimate
    overtakes: Estimate | None
    answers: int
    largest: float


def probe(before: Results, after: Results, temperature: float, *, samples: int, seed: int) -> Probe | None:
    """Compare the same answers before and after a change; None where none was scored both times."""
    place = matched(before, after)
    both = place >= 0
    if not both.any():
        return None
    scored = before.scored
    original = scored.reward[both]
    change = (after.scored.reward[place[both]] - original) / temperature
    change = np.where(np.abs(change) < NEGLIGIBLE, 0.0, change)
    cluster = scored.prompt[scored.group[both]]
    rose = np.where(change == 0, 0.5, change > 0)
    return Probe(
        effect=mean(change, cluster, samples=samples, seed=seed),
        raised=mean(rose.astype(np.float64), cluster, samples=samples, seed=seed, within=SHARE),
        overtakes=_overtakes(scored, after.scored.reward, place, samples, seed),
        answers=int(both.sum()),
        largest=float(np.abs(after.scored.reward[place[both]] - original).max() / temperature),
    )


def _overtakes(scored: Scored, changed: Floats, place: Ints, samples: int, seed: int) -> Estimate | None:
    won = scored.win_prob > 0.5
    better, worse = np.where(won, scored.first, scored.second), np.where(won, scored.second, scored.first)
    used = (credit(scored.difference, scored.win_prob) == 1) & (place[worse] >= 0)
    if not used.any():
        return None
    beats = changed[place[worse[used]]] > scored.reward[better[used]]
    return mean(beats.astype(np.float64), scored.pair_prompt[used], samples=samples, seed=seed, within=SHARE)


def matched(before: Results, after: Results) -> Ints:
    """Where [N] every completion of `before` stands in `after`; -1 = nowhere."""
    width = int(max(before.place.max(initial=0), after.place.max(initial=0))) + 1
    wanted = before.record[before.scored.group] * width + before.place
    there = after.record[after.scored.group] * width + after.place
    order = np.argsort(there, kind="stable")
    spot = np.searchsorted(there[order], wanted)
    found = np.append(order, 0)[np.minimum(spot, len(order))]
    hit = (spot < len(order)) & (np.append(there, -1)[found] == wanted)
    return np.where(hit, found, -1).astype(np.int64)


def _quantiles(drawn: Floats, clusters: int) -> tuple[float, float]:
    known = drawn[np.isfinite(drawn)]
    if clusters < 2 or not len(known):
        return np.nan, np.nan
    low, high = np.clip(bounds(known, clusters), *DIFFERENCE)
    return float(low), float(high)
