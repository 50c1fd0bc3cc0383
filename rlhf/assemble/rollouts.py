"""What a rollout and its shaped reward must be like, as far as the configuration says: before torch is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from rlhf.assemble.algorithm import check_known_completions
from rlhf.assemble.checks.schema import Real, Rule, Whole, check_ranges
from rlhf.optimise.limits import check_horizon
from rlhf.records import RecordError

RULE: Mapping[str, Rule] = {
    "size": Real(0, above=True), "violation.limit": Whole(1), "violation.buffer": Whole(1), "violation.n": Whole(1)
}  # fmt: skip
"""Of what stands under a name in `shaping.rules`."""


def check_rollouts(cfg: DictConfig) -> None:
    """Raise RecordError for too few completions, a horizon below what an update needs, or rules that make no sense."""
    plan, at = (cfg.task.plan, "task.plan") if "plan" in cfg.task else (cfg.task, "task")
    check_known_completions(cfg.algorithm, plan.completions, f"{at}.completions")
    for key, controller in _controllers(cfg.shaping.controller, "shaping.controller"):
        if "horizon" in controller:
            check_horizon(controller.horizon, plan.prompts * plan.completions, key=f"{key}.horizon")
    check_rules(cfg)


def check_rules(cfg: DictConfig) -> None:
    """Raise RecordError for numbers of a rule out of their range, or a regular expression that is none."""
    for name, rule in (cfg.shaping.rules or {}).items():
        at = f"shaping.rules.{name}"
        check_ranges(cfg, {f"{at}.{key}": allowed for key, allowed in RULE.items()})
        violation: Any = (rule or {}).get("violation") or {}
        if "buffer" in violation and "limit" in violation and violation.buffer > violation.limit:
            raise RecordError(
                f"{violation.buffer} is more than limit={violation.limit}: the penalty rises over the last `buffer` "
                "tokens before the limit", key=f"{at}.violation.buffer", remedy=f"1 to {violation.limit}",
            )  # fmt: skip
        if "pattern" in violation:
            _check_pattern(violation.pattern, f"{at}.violation.pattern")


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


def _check_pattern(pattern: str, key: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise RecordError(
            f"{pattern} is no regular expression: {error}", key=key,
            remedy="as of Python's re; brackets and dots that are meant as such get a backslash",
        ) from error  # fmt: skip
