"""What a selector sees: pairs of completions with cached features, and what is labelled so far. numpy only.

    N   completions, each with a feature vector of d numbers (the trunk's last hidden state, or any embedding)
    n   pairs of completions of one prompt: rows of the pool; z_i = features[left_i] - features[right_i]
    m   labelled pairs: some of the rows

With posterior θ ~ N(θ̂, H⁻¹) of the reward head: μ_i = z_i·θ̂, p_i = σ(μ_i), Fisher weight w_i = p_i (1 - p_i) and
s_i² = z_iᵀ H⁻¹ z_i. Differences are formed in blocks, so that memory stays flat in n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from rlhf.records import RecordError
from rlhf.select.checks import finite, within
from rlhf.select.laplace import Posterior, information
from rlhf.stats.arrays import Bools, Floats, Ints

MEASURED = ("margin", "probability", "weight", "variance", "side")
"""What is computed once for every candidate, when a selector first asks."""

BLOCK = 8_192
"""Pairs whose differences are held at once: 8 MB in double precision at d = 128."""


@dataclass(frozen=True)
class PairPool:
    """n pairs over N completions; all columns are arrays.

    features         [N, d], float16 to float64, may be memory-mapped
    left, right      [n] rows of `features`; `right` None: features already are differences, one row per pair
    ids              [n] names of the pairs, unique and sortable: what order and random draws are tied to
    prompt           [n] codes of the prompts, 0, 1, ...
    domain           [n] codes, -1 = none
    domains          names behind the codes, by which selectors and their options know them; without it, the codes
    length           [N] characters of the completions
    cost             [n] of one vote on the pair, > 0, any unit
    selectable       [n] False for pairs of validation and test prompts, which no selector may touch
    prompt_features  [P, e] embedding of every prompt code; without it, the mean over the prompt's completions
    members          [M, N] rewards of an ensemble's members; without it, the Laplace posterior stands for them
    target           [T, e] features of completions of the current policy, for policy-aware selection
    target_prompt    [T] codes of their prompts; without it, all answer one prompt
    frozen           [N, e] features of the completions that `target` compares with; without it, `features`
    target_features  [T, d] the policy's completions as the model that gave `features` sees them; without it, `target`

    Raises:
        ValueError: columns that do not fit each other, or ids that repeat.
        RecordError: features, rewards, lengths or costs that are not finite: the key and the first row.
    """

    features: Floats
    left: Ints
    right: Ints | None
    ids: NDArray[Any]
    prompt: Ints
    domain: Ints = None  # type: ignore[assignment]  # filled in below
    length: Floats | None = None
    cost: Floats = None  # type: ignore[assignment]
    selectable: Bools = None  # type: ignore[assignment]
    prompt_features: Floats | None = None
    members: Floats | None = None
    target: Floats | None = None
    target_prompt: Ints | None = None
    frozen: Floats | None = None
    target_features: Floats | None = None
    domains: Sequence[str] | None = None

    def __post_init__(self) -> None:
        n = len(self.left)
        defaults = {"domain": np.full(n, -1), "cost": np.ones(n), "selectable": np.ones(n, bool)}
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("ids", "prompt", *defaults, *(["right"] if self.right is not None else [])):
            if len(getattr(self, name)) != n:
                raise ValueError(f"pool.{name} has {len(getattr(self, name))} entries for {n} pairs")
        if not np.all(self.cost > 0):
            raise ValueError("pool.cost must be positive everywhere")
        if len(np.unique(self.ids)) != n:
            raise ValueError("pool.ids repeat: every pair needs a name of its own")
        for name in ("features", "length", "cost", "prompt_features", "target", "frozen", "target_features"):
            finite(f"pool.{name}", getattr(self, name))
        if self.members is not None:
            finite("pool.members", np.asarray(self.members).T)
        if self.domains is not None and int(self.domain.max(initial=-1)) >= len(self.domains):
            raise ValueError(f"pool.domain has the code {self.domain.max()}, pool.domains {len(self.domains)} names")

    def __len__(self) -> int:
        return len(self.left)

    @property
    def width(self) -> int:
        """D."""
        return int(self.features.shape[1])

    def answers(self, rows: Ints) -> Ints:
        """Rows of `features` that these pairs are made of, each once."""
        sides = [self.left] if self.right is None else [self.left, self.right]
        return np.unique(np.concatenate([side[rows] for side in sides]))

    def domain_name(self, code: int) -> str:
        """What a domain code is called: its name, `no domain` for -1, the code itself where there are no names."""
        if code < 0:
            return "no domain"
        return str(code) if self.domains is None else self.domains[code]

    def z(self, rows: Ints, precision: type[np.floating] = np.float64) -> Floats:
        """Differences [len(rows), d], in double precision unless less is asked for."""
        first = self.features[self.left[rows]].astype(precision, copy=False)
        if self.right is not None:
            first -= self.features[self.right[rows]]
        return first

    def reward_differences(self, rewards: Floats, rows: Ints) -> Floats:
        """Left less right [..., len(rows)] of rewards [..., N]."""
        first = rewards[..., self.left[rows]]
        return first if self.right is None else first - rewards[..., self.right[rows]]


@dataclass(frozen=True)
class LabelState:
    """What is known at the beginning of a round.

    rows         [m] labelled rows of the pool, each once
    share        [m] share of the votes for the left completion, a tie counting one half
    votes        [m] votes on each
    posterior    of the reward head, fitted on these labels
    out_of_fold  [m] P(left is better) by heads that did not see the pair's prompt; NaN where unknown

    Raises:
        RecordError: columns of different length, rows that repeat or are negative, shares outside 0..1, negative votes.
    """

    rows: Ints
    share: Floats
    votes: Floats
    posterior: Posterior
    out_of_fold: Floats

    def __post_init__(self) -> None:
        for name in ("share", "votes", "out_of_fold"):
            if len(getattr(self, name)) != len(self.rows):
                raise RecordError(f"{len(getattr(self, name))} entries for {len(self.rows)} rows", key=f"state.{name}")
        within("state.rows", np.asarray(self.rows, np.float64), 0)
        if len(np.unique(self.rows)) != len(self.rows):
            values, counts = np.unique(self.rows, return_counts=True)
            raise RecordError(
                f"row {values[counts > 1][0]} of the pool is there {counts[counts > 1][0]} times", key="state.rows",
                remedy="give every labelled pair once, with the share and number of all its votes",
            )  # fmt: skip
        within("state.share", self.share, 0, 1)
        within("state.votes", self.votes, 0)
        within("state.out_of_fold", self.out_of_fold, 0, 1, unknown=True)

    @classmethod
    def empty(cls, width: int, *, regularisation: float = 1.0) -> LabelState:
        """Nothing labelled: the posterior is the prior N(0, I / regularisation)."""
        none = np.zeros(0)
        return cls(none.astype(np.int64), none, none, Posterior.prior(width, regularisation), none)


@dataclass(frozen=True)
class Selection:
    """What to label next, best first.

    indices    [k] rows of the pool, distinct
    utilities  [k] in the selector's own unit; NaN for random draws
    reasons    [k] one sentence each
    random     [k] True for draws that every candidate had an equal chance to be: an unbiased sample to monitor by
    """

    indices: Ints
    utilities: Floats
    reasons: list[str]
    random: Bools

    def __len__(self) -> int:
        return len(self.indices)

    @classmethod
    def join(cls, parts: list[Selection]) -> Selection:
        """One after another."""
        return cls(
            np.concatenate([p.indices for p in parts] or [np.zeros(0, np.int64)]),
            np.concatenate([p.utilities for p in parts] or [np.zeros(0)]),
            [reason for p in parts for reason in p.reasons],
            np.concatenate([p.random for p in parts] or [np.zeros(0, bool)]),
        )

    def told(self, reasons: Iterable[str], *, random: bool = False) -> Selection:
        """The same pairs with other reasons; their draws count as random only where `random` says so."""
        kept = self.random if random else np.zeros(len(self), bool)
        return Selection(self.indices, self.utilities, list(reasons), kept)

    def take(self, places: Ints) -> Selection:
        """These places of it, in this order."""
        reasons = [self.reasons[i] for i in places]
        return Selection(self.indices[places], self.utilities[places], reasons, self.random[places])


class Candidates:
    """The pairs that may be chosen, in an order that depends on their ids alone, with what the head says of them.

    Args:
        pool: all pairs.
        state: what is labelled, and the posterior.
        rows: rows of the pool that may be chosen, sorted by id.
    """

    def __init__(self, pool: PairPool, state: LabelState, rows: Ints) -> None:
        self.pool, self.state, self.rows = pool, state, rows

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, places: Ints | Bools) -> Candidates:
        """The candidates at these places, in their order; what was computed for them goes along."""
        part = Candidates(self.pool, self.state, self.rows[places])
        known = {name: self.__dict__[name][places] for name in MEASURED if name in self.__dict__}
        part.__dict__.update(known)
        return part

    def without(self, chosen: Ints) -> Candidates:
        """The candidates without these rows of the pool."""
        return self.only(~np.isin(self.rows, chosen))

    def each(self, measure: Callable[[Floats], Floats]) -> Floats:
        """`measure` of the differences [b, d], block by block, put together."""
        found = [measure(self.pool.z(self.rows[start : start + BLOCK])) for start in range(0, len(self), BLOCK)]
        return np.concatenate(found) if found else np.zeros(0)

    @cached_property
    def margin(self) -> Floats:
        """μ [n], left less right."""
        return self.each(lambda z: z @ self.state.posterior.theta)

    @cached_property
    def probability(self) -> Floats:
        """P(left is better) [n] = σ(μ)."""
        return np.asarray(expit(self.margin))

    @cached_property
    def weight(self) -> Floats:
        """Fisher weight w [n] = p (1 - p)."""
        return information(self.probability)

    @cached_property
    def variance(self) -> Floats:
        """s² [n], the posterior variance of μ: shift-invariant by construction."""
        return self.each(self.state.posterior.variance)

    @cached_property
    def side(self) -> Floats:
        """+1 or -1 [n]: times z, it points to the predicted winner whichever side that stood on."""
        anchor = np.random.default_rng(0).standard_normal(self.pool.width)
        undecided = self.each(lambda z: z @ anchor) if (self.margin == 0).any() else np.ones(len(self))
        return np.where(self.margin == 0, np.where(undecided < 0, -1.0, 1.0), np.sign(self.margin))
