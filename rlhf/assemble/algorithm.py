"""What an algorithm, and seeds that it is repeated with, must be like: looked at before models are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.optimise.policy.module import PolicyModule


COMPARED: Mapping[str, int] = {"rlhf.optimise.policy.module.PolicyModule": 2}
"""Completions per prompt that an algorithm needs, where it is more than one: said without importing torch."""


def check_known_completions(algorithm: DictConfig, completions: int, key: str) -> None:
    """`check_completions` before torch is imported; an algorithm that is not known here says it later."""
    least = COMPARED.get(algorithm._target_, 1)
    if completions < least:
        raise RecordError(
            f"{completions} must be {least} or more per prompt", key=key,
            remedy="RLOO compares them; algorithm=ppo does not",
        )  # fmt: skip


def check_completions(algorithm: DictConfig, completions: int, key: str) -> None:
    """Raise RecordError for fewer completions per prompt than the algorithm needs: RLOO compares two, PPO needs one."""
    module: type[PolicyModule] = hydra.utils.get_class(algorithm._target_)
    module.check_completions(completions, key)


def check_seeds(seeds: Sequence[int], key: str, *, least: int = 2) -> None:
    """Raise RecordError for fewer seeds than `least`, or for one that is named twice: it would count as two worlds."""
    if len(seeds) < least:
        raise RecordError(f"{list(seeds)}: at least {least}", key=key, remedy="an interval needs two runs")
    twice = sorted({seed for seed in seeds if list(seeds).count(seed) > 1})
    if twice:
        raise RecordError(
            f"{list(seeds)} names {', '.join(map(str, twice))} more than once", key=key,
            remedy="every seed once: the same run again is no other run, and narrows intervals for nothing",
        )  # fmt: skip
