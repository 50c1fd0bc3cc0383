"""What a mistyped override was probably meant to be."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

CONF = Path(__file__).parent.parent.parent / "conf"


@contextmanager
def suggestions(config_name: str) -> Iterator[None]:
    """When the command line names what does not exist, say what was probably meant."""
    try:
        yield
    except SystemExit as end:
        if end.code:
            for line in _suggest(config_name, sys.argv[1:]):
                print(line, file=sys.stderr)
        raise


def _suggest(config_name: str, arguments: Sequence[str]) -> Iterator[str]:
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        known = _keys(OmegaConf.to_container(hydra.compose(config_name), resolve=False))
        known += [p.name for p in CONF.iterdir() if p.is_dir()]
        groups = [o for o in overrides if (CONF / o.partition("=")[0]).is_dir() and "," not in o]
        sound = groups if _composes(config_name, groups) else []
        for override in overrides:
            if "," not in override and not _composes(config_name, [*sound, override]):
                key, _, value = override.lstrip("+~").partition("=")
                options = [p.stem for p in (CONF / key).glob("*.yaml")]
                close = get_close_matches(value if options else key, options or known, n=1)
                if close:
                    meant = f"{key}={close[0]}" if options else f"{close[0]}={value}"
                    yield f"\n{override}: did you mean {meant} ?"


def _composes(config_name: str, overrides: Sequence[str]) -> bool:
    try:
        hydra.compose(config_name, overrides=list(overrides))
    except HydraException:
        return False
    return True


def _keys(plain: Any, prefix: str = "") -> list[str]:
    found = [f"{prefix}{key}" for key in plain]
    for key, value in plain.items():
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else []
    return found
