"""Selectors that follow the head's errors on what is labelled, and votes that are worth asking for twice."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import expit, logit

from rlhf.records import RecordError
from rlhf.select.checks import option
from rlhf.select.pool import Candidates, LabelState, PairPool, Selection
from rlhf.select.strategies.diversity import quotas
from rlhf.select.strategies.selector import Selector, at_random, best, in_groups
from rlhf.select.strategies.uncertainty import binary_entropy, laplace_power
from rlhf.stats.arrays import Floats, Ints, Rng


def error_focused(
    candidates: Candidates, budget: int, rng: Rng, *, within: Selector = laplace_power,
    prior_pairs: float = 10.0, power: float = 1.0, most: float = 0.5,
) -> Selection:  # fmt: skip
    """More labels for the domains in which the head, out of fold, is wrong more often.

    Quotas in proportion to (pairs of the domain in the pool) · ê^power with the shrunken error rate
    ê_d = (errors_d + κ ē) / (m_d + κ), so that a domain with two labels, both wrong, is not flooded.

    Args:
        within: how pairs are chosen in a domain.
        prior_pairs: κ >= 0, pairs' worth of belief in the overall error rate ē.
        power: 0 = as the pool is; larger follows errors harder.
        most: largest share of the batch for one domain, where others have pairs left.
    """
    option("prior_pairs", prior_pairs, 0)
    option("power", power, 0)
    option("most", most, 0, 1, above=True)
    domain = candidates.pool.domain[candidates.rows]
    codes, here = np.unique(domain, return_inverse=True)
    rate = error_rates(candidates.pool, candidates.state, prior_pairs)
    size = np.bincount(here, minlength=len(codes))
    share = np.array([rate[int(code)] for code in codes]) ** power * size
    room = np.minimum(size, int(np.ceil(most * budget)) if len(codes) > 1 else budget)
    quota = quotas(share, room, min(budget, int(room.sum())))
    quota += quotas(share, size - quota, budget - int(quota.sum()))
    names = [f"{candidates.pool.domain_name(code)} errs in {rate[code]:.2f}" for code in codes.tolist()]
    why = [f"error-focused: domain {name} of its pairs" for name in names]
    return in_groups(candidates, here, quota, within, rng, lambda place, reason: why[place])


def error_rates(pool: PairPool, state: LabelState, prior_pairs: float) -> dict[int, float]:
    """Shrunken out-of-fold error rate of every domain code of the pool; ½ where nothing is known."""
    known = np.isfinite(state.out_of_fold) & (state.share != 0.5)
    wrong = ((state.out_of_fold[known] > 0.5) != (state.share[known] > 0.5)).astype(float)
    domain = pool.domain[state.rows[known]]
    overall = (wrong.sum() + 1) / (len(wrong) + 2)
    rates = {}
    for code in np.unique(pool.domain):
        of = wrong[domain == code]
        rates[int(code)] = float((of.sum() + prior_pairs * overall) / max(len(of) + prior_pairs, 1e-12))
    return rates


def second_votes(
    pool: PairPool, state: LabelState, budget: int, rng: Rng, *, reliability: float = 0.8, most_votes: int = 5
) -> Selection:
    """Which labelled pairs deserve another vote: where votes and head together leave the answer most open.

    log-odds of the answer = logit p + (for - against) log γ/(1-γ), p out of fold, γ the chance that a vote is right
    (the idea of ActiveLab, Goh & Mueller 2023, for pairs). The utility is the entropy of that answer in nats.

    Args:
        pool, state, rng: as in `query`.
        budget: at most; fewer where fewer pairs have room for a vote.
        reliability: γ in (½, 1).
        most_votes: pairs with so many are left alone.
    """
    p = np.where(np.isfinite(state.out_of_fold), state.out_of_fold, 0.5)
    lead = (2 * state.share - 1) * state.votes
    log_odds = logit(np.clip(p, 1e-6, 1 - 1e-6)) + lead * logit(reliability)
    open_places = np.flatnonzero((state.votes < most_votes) & pool.selectable[state.rows])
    order = open_places[np.argsort(pool.ids[state.rows[open_places]])]
    utility = binary_entropy(np.asarray(expit(log_odds)))[order]
    candidates = Candidates(pool, state, state.rows[order])
    return best(candidates, utility, budget, "second vote: answer open by nats", rng)


def domain_quotas(
    candidates: Candidates, budget: int, rng: Rng, *, within: Selector = at_random,
    shares: Mapping[Any, float] | None = None,
) -> Selection:  # fmt: skip
    """Fixed quotas per domain, each filled by a selector of its own.

    Args:
        within: how pairs are chosen in a domain.
        shares: name of a domain (`PairPool.domain_name`) -> share of the batch, relative, >= 0; None = all domains
            alike. Domains that are not named, or have the share 0, get only what no other has pairs for.

    Raises:
        RecordError: a domain that the pool does not have, a negative share, or none above 0.
    """
    wanted = None if shares is None else _shares_by_code(candidates.pool, shares)
    domain = candidates.pool.domain[candidates.rows]
    codes, here = np.unique(domain, return_inverse=True)
    size: Ints = np.bincount(here, minlength=len(codes))
    share: Floats = np.array([1.0 if wanted is None else wanted.get(int(code), 0.0) for code in codes])
    quota = quotas(share, size, budget)
    names = [candidates.pool.domain_name(int(code)) for code in codes]
    return in_groups(candidates, here, quota, within, rng, lambda i, why: f"quota of domain {names[i]}: {why}")


def _shares_by_code(pool: PairPool, shares: Mapping[Any, float]) -> dict[int, float]:
    known = {pool.domain_name(int(code)): int(code) for code in np.unique(pool.domain)}
    unknown = [str(name) for name in shares if str(name) not in known]
    wrong = [f"{name}={value}" for name, value in shares.items() if not 0 <= value < math.inf]
    problem = (
        f"no domain of the pool: {', '.join(unknown)}" if unknown
        else f"shares must be 0 or more: {', '.join(wrong)}" if wrong
        else "" if any(shares.values()) else "at least one share must be above 0"
    )  # fmt: skip
    if problem:
        raise RecordError(problem, key="selector.shares", remedy=f"the domains are {', '.join(sorted(known))}")
    return {known[str(name)]: float(value) for name, value in shares.items()}
