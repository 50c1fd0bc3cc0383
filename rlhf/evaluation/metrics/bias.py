"""What a reward pays for besides quality: length, and changes of style that a probe makes on purpose."""

from dataclasses import dataclass

import numpy as np

from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.metrics.ranking import connected_sets, length_spearman, stacks
from rlhf.evaluation.metrics.scored import Results, Scored
from rlhf.stats.arrays import Floats, Ints
from rlhf.stats.bootstrap import DIFFERENCE, SHARE, Estimate, bounds, cluster_mean, cluster_sums, resampled_sums
from rlhf.stats.ranks import ranks_of

NEGLIGIBLE = 1e-4
"""Log-odds below which a change is rounding: rewards are sums in single precision, in another order."""
UNKNOWN = Estimate(np.nan, np.nan, np.nan)
"""What the set does not define."""


def length_correlation(scored: Scored, *, samples: int, seed: int) -> Estimate:
    """Spearman of reward and length inside each group, averaged; NaN where no group has both unequal."""
    numbers, rho = length_spearman(scored)
    defined = ~np.isnan(rho)
    cluster = scored.prompt[numbers[defined]]
    return cluster_mean(rho[defined], cluster, samples=samples, seed=seed, within=DIFFERENCE)


def partial_length_correlation(scored: Scored, *, samples: int, seed: int) -> Estimate:
    """Correlation of the ranks of reward and length inside groups when the ranks of the votes are held fixed.

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz²)(1 - r_yz²)) with x reward, y length, z the votes' rank, from ranks centred
    among the answers that votes connect and order, and pooled (more variation counts more). A reward that follows
    length only because better answers are longer has 0. NaN where one of them is constant.
    """
    numbers, products = [], []
    sets = connected_sets(scored)
    group = np.zeros(len(sets), np.int64)
    group[sets] = scored.group
    for number, reward, rank, length in stacks(scored, scored.rank >= 0, sets):
        x, y, z = (ranks_of(v) - (v.shape[-1] + 1) / 2 for v in (reward, length, -rank))
        pairs = ((x, x), (y, y), (z, z), (x, y), (x, z), (y, z))
        numbers.append(group[number])
        products.append(np.stack([(a * b).sum(-1) for a, b in pairs], -1))
    if not products:
        return UNKNOWN
    sums = cluster_sums(np.concatenate(products), scored.prompt[np.concatenate(numbers)])
    value = float(_partial(sums.sum(0)))
    if not np.isfinite(value):
        return UNKNOWN
    drawn = _partial(resampled_sums(sums, samples=samples, seed=seed))
    if len(sums) < 2 or not np.isfinite(drawn).any():
        return Estimate(value, np.nan, np.nan)
    low, high = np.clip(bounds(drawn[np.isfinite(drawn)], len(sums)), *DIFFERENCE)
    return Estimate(value, float(low), float(high))


def _partial(sums: Floats) -> Floats:
    xx, yy, zz, xy, xz, yz = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r, s, t = xy / np.sqrt(xx * yy), xz / np.sqrt(xx * zz), yz / np.sqrt(yy * zz)
        return np.asarray((r - s * t) / np.sqrt((1 - s**2) * (1 - t**2)))


@dataclass(frozen=True, slots=True)
class Probe:
    """What a change of the answers does.

    effect     mean change of the reward in log-odds (1 = odds of 2.7 to 1 for the changed answer over itself)
    raised     share of the answers whose reward rose, equal rewards one half: 0.5 where the change means nothing
    overtakes  share of the rightly ordered pairs in which the worse answer, changed, beats the better one as it
               was; NaN where there is no such pair
    answers    how many answers were changed
    largest    largest absolute change, in log-odds
    """

    effect: Estimate
    raised: Estimate
    overtakes: Estimate
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
    used = (credit(scored.difference, scored.win_prob) == 1) & (place[scored.worse] >= 0)
    beats = after.scored.reward[place[scored.worse[used]]] > scored.reward[scored.better[used]]
    return Probe(
        effect=cluster_mean(change, cluster, samples=samples, seed=seed),
        raised=cluster_mean(rose.astype(np.float64), cluster, samples=samples, seed=seed, within=SHARE),
        overtakes=cluster_mean(beats.astype(float), scored.pair_prompt[used], samples=samples, seed=seed, within=SHARE),
        answers=int(both.sum()),
        largest=float(np.abs(after.scored.reward[place[both]] - original).max() / temperature),
    )


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
