"""What a rollout and its shaped reward must be like, as far as the configuration says: before torch is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.schema.bounds import Settings, check_ranges
from rlhf.assemble.schema.groups import Shaping
from rlhf.optimise.limits import check_horizon
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.optimise.policy.module import PolicyModule

COMPARED: Mapping[str, int] = {"rlhf.optimise.policy.module.PolicyModule": 2}
"""Completions per prompt that an algorithm needs, where it is more than one: said without importing torch."""


class _Shaped(Settings):
    shaping: Shaping


def check_rollouts(cfg: DictConfig) -> None:
    """Raise RecordError for a shaping out of bounds, too few completions, or a horizon below what an update needs."""
    check_ranges(cfg, _Shaped)
    plan, at = (cfg.task.plan, "task.plan") if "plan" in cfg.task else (cfg.task, "task")
    least = COMPARED.get(cfg.algorithm._target_, 1)  # an algorithm that is not known here says it later
    if plan.completions < least:
        raise RecordError(
            f"{plan.completions} must be {least} or more per prompt", key=f"{at}.completions",
            remedy="RLOO compares them; algorithm=ppo does not",
        )  # fmt: skip
    for key, controller in _controllers(cfg.shaping.controller, "shaping.controller"):
        if "horizon" in controller:
            check_horizon(controller.horizon, plan.prompts * plan.completions, key=f"{key}.horizon")


def check_room(cfg: DictConfig) -> None:
    """Raise RecordError where `max_length` cannot hold `min_prompt` tokens of a prompt and the longest answer."""
    shortest = cfg.batches.min_prompt
    if shortest >= cfg.max_length:
        raise RecordError(f"batches.min_prompt={shortest} must be less than max_length={cfg.max_length}")
    least = max(1, shortest)
    for key in ("task.max_new_tokens", "policy.max_new_tokens"):
        longest = OmegaConf.select(cfg, key)
        if longest is not None and cfg.max_length - longest < least:
            raise RecordError(
                f"max_length={cfg.max_length}, of which {key}={longest} are for the completion, leaves the policy "
                f"{max(0, cfg.max_length - longest)} tokens of a prompt; "
                f"batches.min_prompt={shortest}: at least {least}",
                key=key, remedy=f"{key}={cfg.max_length - least} or less, or max_length={longest + least} or more",
            )  # fmt: skip


def check_policy_adapter(cfg: DictConfig) -> None:
    """Raise RecordError for adapter=frozen: it trains a head alone, and a policy has none."""
    if cfg.adapter.build._target_ == "rlhf.models.lora.frozen":
        raise RecordError(
            "frozen trains a reward head alone, and a policy has none", key="adapter",
            remedy="adapter=lora, or adapter=none",
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


@contextmanager
def at_key(where: str) -> Iterator[None]:
    """Put before what is wrong, in which of several configurations it is."""
    try:
        yield
    except RecordError as error:
        raise RecordError(f"{where}: {error}") from error


def _controllers(controller: DictConfig, key: str) -> Iterator[tuple[str, DictConfig]]:
    """A controller and those inside it, with their keys."""
    yield key, controller
    if "controller" in controller:
        yield from _controllers(controller.controller, f"{key}.controller")
