"""The options of a group, as their files and the bases that these inherit from have them."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.schema.options import CONF, options_of
from rlhf.records import RecordError


def option_names(group: str) -> list[str]:
    """What `group=` can be, in alphabetical order; the bases, in a folder of their own, are none."""
    return [path.stem for path in options_of(group)]


def option(group: str, name: str) -> DictConfig:
    """What `group=name` puts under `group`; interpolations stay as they are written.

    Raises:
        RecordError: the group has no such option.
    """
    known = option_names(group)
    if name not in known:
        raise RecordError(f"{group} has no option {name!r}: one of {', '.join(known)}")
    return OmegaConf.create(_composed(group, name))


@cache
def _composed(group: str, name: str) -> dict[str, Any]:
    """Composed by Hydra, which may be running or not."""
    running = GlobalHydra.instance().is_initialized()
    with nullcontext() if running else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose(overrides=[f"+{group}={name}"])
    return OmegaConf.to_container(composed[group])  # type: ignore[return-value]
