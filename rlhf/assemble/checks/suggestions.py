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

CONF = Path(__file__).parents[3] / "conf"


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
    overrides = [a for a in arguments if "=" in a and not a.startswith(("-", "+", "~", "hydra"))]
    groups = [o for o in overrides if (CONF / o.partition("=")[0]).is_dir()]
    sound = []
    for override in groups:
        key, _, values = override.partition("=")
        options = [p.stem for p in (CONF / key).glob("*.yaml")]
        wrong = [v for v in values.split(",") if v not in (*options, "null")]
        sound += [] if wrong else [f"{key}={values.split(',')[0]}"]
        for value in wrong:
            close = get_close_matches(value, options, n=1)
            meant = (
                f"did you mean {key}={close[0]} ?"
                if close
                else f"{key} is one of {', '.join(sorted(options))}"
            )
            yield f"\n{override}: {meant}"
    known = _known(config_name, sound)
    for override in overrides:
        key, _, value = override.partition("=")
        if override not in groups and key not in known:
            yield f"\n{override}: {_meant(key, value, known)}"


def _meant(key: str, value: str, known: Sequence[str]) -> str:
    """The nearest key beside the one that was given, else what there is beside it, else the nearest anywhere."""
    parent, _, leaf = key.rpartition(".")
    beside = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    close = get_close_matches(leaf, beside, n=1)
    if close:
        return f"did you mean {parent}{'.' if parent else ''}{close[0]}={value} ?"
    if parent and beside:
        return f"{parent} here has {', '.join(beside)}"
    anywhere = get_close_matches(key, known, n=1) or [k for k in known if k.rpartition(".")[2] == leaf][:1]
    return f"did you mean {anywhere[0]}={value} ?" if anywhere else "no such key"


def _known(config_name: str, groups: Sequence[str]) -> list[str]:
    """Every key of the configuration with these choices, and the groups."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            cfg = hydra.compose(config_name, overrides=list(groups))
        except HydraException:
            cfg = hydra.compose(config_name)
    keys = _keys(OmegaConf.to_container(cfg, resolve=False))
    return keys + [p.name for p in CONF.iterdir() if p.is_dir()]


def _keys(plain: Any, prefix: str = "") -> list[str]:
    inside = dict(enumerate(plain)) if isinstance(plain, list) else plain
    found = [f"{prefix}{key}" for key in inside]
    for key, value in inside.items():
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict | list) else []
    return found
