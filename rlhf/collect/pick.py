"""Which of a prompt's completions are kept, by a reward model: all, the best of n, or rejection sampling."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

import rlhf
from rlhf.records import Comparison, Completion, Prompt

Reward = Callable[[Prompt, Sequence[str]], list[float]]
"""Rewards of the completions of a prompt; `rlhf.load(run).score` is one."""


def scored(record: Comparison, reward: Reward) -> Comparison:
    """The record with every completion's reward under `meta.reward`."""
    values = reward(record.prompt, [c.text for c in record.completions])
    completions = tuple(
        replace(c, meta={**c.meta, "reward": round(float(r), 6)})
        for c, r in zip(record.completions, values, strict=True)
    )
    return replace(record, completions=completions)


@dataclass(frozen=True)
class BestOfN:
    """The `keep` completions with the highest reward, best first (best-of-n; Stiennon et al. 2020).

    KL(best of n || policy) <= log n - (n - 1) / n (Beirami et al. 2024), with n the completions sampled per prompt.

    Args:
        reward: rewards of completions.
        keep: how many stay.
        worst: the worst one stays too, for pairs that differ clearly.
    """

    reward: Reward
    keep: int = 1
    worst: bool = False

    def __call__(self, record: Comparison) -> Comparison:
        """The record with the chosen completions."""
        known = scored(record, self.reward)
        ordered = sorted(known.completions, key=_reward, reverse=True)
        last = ordered[-1:] if self.worst and len(ordered) > self.keep else []
        return replace(known, completions=tuple(ordered[: self.keep] + last))


@dataclass(frozen=True)
class Rejection:
    """Statistical rejection sampling (Liu et al. 2024, RSO, algorithm 1): accept with chance exp((r - r_max) / beta).

    The accepted completions are distributed as the policy tilted by exp(r / beta), as far as the sampled ones reach.

    Args:
        reward: rewards of completions.
        beta: temperature, in units of reward: small keeps the best, large keeps any.
        keep: how many are accepted, at most.
        seed: of the acceptance.
    """

    reward: Reward
    beta: float = 0.5
    keep: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"pick.beta={self.beta} must be positive")

    def __call__(self, record: Comparison) -> Comparison:
        """The record with the accepted completions, in the order of acceptance."""
        known = scored(record, self.reward)
        digest = sha256(f"{self.seed}:{record.prompt_id}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        left = list(known.completions)
        accepted: list[Completion] = []
        while left and len(accepted) < self.keep:
            best = max(map(_reward, left))
            for completion in [left[i] for i in rng.permutation(len(left))]:
                if len(accepted) < self.keep and rng.random() < math.exp((_reward(completion) - best) / self.beta):
                    accepted.append(completion)
                    left.remove(completion)
        return replace(known, completions=tuple(accepted))


def everything(record: Comparison) -> Comparison:
    """All completions stay."""
    return record


def reward_of(folder: str, device: str = "cpu") -> Reward:
    """Rewards by the run or exported model in `folder`, scaled by its normalisation to mean 0 and std 1."""
    scorer = rlhf.load(folder, device=device)

    def reward(prompt: Prompt, texts: Sequence[str]) -> list[float]:
        return [float(scorer.calibration.normalise(r)) for r in scorer.score(prompt, texts)]

    return reward


def _reward(completion: Completion) -> float:
    return float(completion.meta["reward"])
