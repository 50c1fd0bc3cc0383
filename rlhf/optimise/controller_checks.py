"""Does a controller of β fit the data?"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rlhf.optimise.shaping.kl_controllers import PerDomain
from rlhf.records import RecordError


def check_domains(controller: Any, known: Collection[str | None]) -> None:
    """Look for domains that no prompt has: their factor would never count, and nobody would know.

    Args:
        controller: whose `PerDomain`, also inside another controller, is looked at.
        known: the domains of the data's prompts; None = a prompt without one.

    Raises:
        RecordError: a factor is for a domain that is not known.
    """
    named = sorted(set(controller.factors) - set(known)) if isinstance(controller, PerDomain) else []
    if named:
        there = ", ".join(sorted(d for d in known if d is not None)) or "none: its records have no `domain`"
        raise RecordError(
            f"the data has no prompts of the domain {', '.join(named)}; its domains: {there}",
            key="shaping.controller.factors",
            remedy=f"~shaping.controller.factors.{named[0]} takes it out, "
            "+shaping.controller.factors.<domain>=<factor> adds one",
        )
    inner = getattr(controller, "controller", None)
    if inner is not None:
        check_domains(inner, known)
