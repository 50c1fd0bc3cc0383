"""Selectors made of selectors: mixes, a random share, a cold start, quotas, no near-copies, the current policy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from rlhf.records import RecordError
from rlhf.select.checks import option
from rlhf.select.pool import Candidates, Selection
from rlhf.select.strategies.diversity import prompt_coverage, quotas, some
from rlhf.select.strategies.error_focused import error_focused
from rlhf.select.strategies.log_det import log_det
from rlhf.select.strategies.selector import Selector, at_random, best, fill
from rlhf.select.strategies.uncertainty import laplace_power, vote_information
from rlhf.stats.arrays import Floats, Rng


@dataclass(frozen=True)
class MixPart:
    """One part of a mix: its name in the reasons, its share of the batch (relative), and how it chooses."""

    name: str
    share: float
    selector: Selector


def mix(candidates: Candidates, budget: int, rng: Rng, *, parts: Sequence[MixPart]) -> Selection:
    """Every part chooses its share of the batch in turn, from what the parts before it left.

    A part that draws at random comes first whatever its place in the list, so that its sample stays unbiased.

    Raises:
        RecordError: no part, or shares that are negative or all 0.
    """
    shares = np.array([part.share for part in parts], float)
    if not len(parts) or not (shares >= 0).all() or shares.sum() == 0:
        raise RecordError("selector.parts: at least one, with shares >= 0 that are not all 0")
    counts = quotas(shares, np.where(shares > 0, budget, 0), budget)
    found: list[Selection] = []
    for place in sorted(range(len(parts)), key=lambda i: parts[i].selector is not at_random):
        if counts[place]:
            part = parts[place]
            picked = part.selector(candidates, int(counts[place]), rng)
            found.append(picked.told((f"{part.name}: {reason}" for reason in picked.reasons), random=True))
            candidates = candidates.without(picked.indices)
    return Selection.join(found)


def cold_start(
    candidates: Candidates, budget: int, rng: Rng, *, then: Selector, labels: int = 30, first: Selector = at_random
) -> Selection:
    """`first` until so many pairs are labelled, `then` afterwards; a batch that crosses the line is split.

    Args:
        then: the selector proper.
        labels: pairs before it takes over; about as many as the features have dimensions that matter.
        first: the selector before.
    """
    early = min(max(labels - len(candidates.state.rows), 0), budget)
    found = first(candidates, early, rng)
    found = found.told((f"cold start: {reason}" for reason in found.reasons), random=True)
    return Selection.join([found, then(candidates.without(found.indices), budget - early, rng)])


def without_copies(
    candidates: Candidates, budget: int, rng: Rng, *, selector: Selector, similarity: float = 0.98,
    per_prompt: int | None = None, factor: int = 4,
) -> Selection:  # fmt: skip
    """The selector's ranking without pairs that nearly repeat a chosen one.

    Args:
        selector: whose ranking.
        similarity: in [0, 1]; 1 refuses exact copies only.
        per_prompt: most pairs of a prompt in one batch; None = no limit.
        factor: how many times the budget the selector is asked for.
    """
    option("similarity", similarity, 0, 1)
    option("per_prompt", per_prompt, 1)
    option("factor", factor, 1)
    ranked = selector(candidates, min(factor * budget, len(candidates)), rng)
    z = candidates.pool.z(ranked.indices)
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    prompt = candidates.pool.prompt[ranked.indices]
    kept: list[int] = []
    for place in range(len(ranked)):
        same_prompt = per_prompt is not None and int((prompt[kept] == prompt[place]).sum()) >= per_prompt
        copy = bool(kept) and float(np.abs(z[kept] @ z[place]).max()) > min(similarity, 1 - 1e-9)
        if not (same_prompt or copy):
            kept.append(place)
        if len(kept) == budget:
            break
    kept_first = ranked.take(np.array(kept, dtype=np.int64))
    return fill(candidates, kept_first, budget, rng, "the rest repeats the batch")


def policy_aware(
    candidates: Candidates, budget: int, rng: Rng, *, power: float = 1.0, temperature: float = 1.0, sample: int = 20_000
) -> Selection:
    """Laplace-power among answers like the current policy's: P ∝ w s² · ρ^power, ρ the density ratio policy / pool.

    ρ of a pair is the geometric mean over its answers of P(policy | φ) / P(pool | φ), by logistic regression on their
    features (Sugiyama et al. 2012), clipped to [0.01, 100]. Without a sample of the policy (`pool.target`) ρ is 1.

    Args:
        power: how much the policy counts; 0 = not at all.
        temperature: of the sampling, as in `laplace_power`.
        sample: most answers of the pool that the classifier sees.
    """
    option("temperature", temperature, 0, above=True)
    option("power", power, 0)
    worth = np.log(np.maximum(vote_information(candidates, 1.0, 1.0) * candidates.variance, 1e-300))
    ratio = np.zeros(len(candidates)) if candidates.pool.target is None else log_density_ratio(candidates, sample, rng)
    noisy = (worth + power * ratio) / temperature + rng.gumbel(size=len(candidates))
    known = "" if candidates.pool.target is not None else " (no sample of the policy)"
    return best(candidates, noisy, budget, f"policy-aware{known}: log(w s² ρ) + noise =", rng)


def log_density_ratio(candidates: Candidates, sample: int, rng: Rng) -> Floats:
    """Log ρ [n] of every candidate pair, see `policy_aware`."""
    pool = candidates.pool
    target = np.asarray(pool.target, np.float64)
    features = pool.features if pool.frozen is None else pool.frozen
    part = some(candidates, sample, rng).rows
    answers = features[pool.answers(part)]
    both = np.vstack([answers.astype(np.float64), target])
    centre, scale = both.mean(0), np.maximum(both.std(0), 1e-6)
    label = np.repeat([0, 1], [len(answers), len(target)])
    model = LogisticRegression(C=0.1, max_iter=500).fit((both - centre) / scale, label)
    prior = np.log(len(target) / len(answers))

    def ratio(rows: np.ndarray) -> Floats:
        odds = model.decision_function((features[rows].astype(np.float64) - centre) / scale) - prior
        return np.asarray(np.clip(odds, np.log(0.01), np.log(100)))

    left = ratio(pool.left[candidates.rows])
    return left if pool.right is None else (left + ratio(pool.right[candidates.rows])) / 2


def safe(candidates: Candidates, budget: int, rng: Rng, *, random_share: float = 0.2) -> Selection:
    """The default: Laplace-power, and a share 0..1 at random: an unbiased monitor of everything the rest distorts."""
    option("random_share", random_share, 0, 1)
    parts = (MixPart("random share", random_share, at_random), MixPart("uncertainty", 1 - random_share, laplace_power))
    return mix(candidates, budget, rng, parts=parts)


def mixed(candidates: Candidates, budget: int, rng: Rng) -> Selection:
    """50% uncertainty (log-det), 30% diversity (prompt coverage), 20% where the head errs (by domain)."""
    parts = (
        MixPart("uncertainty", 0.5, log_det),
        MixPart("diversity", 0.3, prompt_coverage),
        MixPart("errors", 0.2, error_focused),
    )
    return mix(candidates, budget, rng, parts=parts)
