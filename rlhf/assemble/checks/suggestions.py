"""What a mistyped override was probably meant to be; a mistake in the input told without the stack of the program."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import hydra
from hydra.errors import CompactHydraException, HydraException, InstantiationException
from omegaconf import OmegaConf

from rlhf.assemble.checks.renamed import current, renamed
from rlhf.assemble.help import page, task_groups
from rlhf.assemble.schema.bounds import defaults_of
from rlhf.assemble.schema.commands import Optimised
from rlhf.assemble.schema.options import CONF, option_names
from rlhf.records import RecordError

FLAGS = (
    "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion", "config-path",
    "config-name", "config-dir", "experimental-rerun", "info",
)  # fmt: skip
"""Hydra's own; `help` is answered here."""


@contextmanager
def suggestions(config_name: str) -> Iterator[None]:
    """Answer `--help`, dashes and old names; where the command line names what does not exist, say what was meant.

    Raises:
        SystemExit: after the answer, without an error for `--help` alone.
    """
    arguments = sys.argv[1:]
    if {"-h", "--help"} & {*arguments}:
        print(page(config_name, arguments))
        raise SystemExit
    if wrong := [*_without_dashes(config_name, arguments), *renamed(config_name, arguments)]:
        raise SystemExit("\n".join(wrong))
    try:
        yield
    except SystemExit as end:
        if end.code:
            for line in _suggest(config_name, arguments):
                print(line, file=sys.stderr)
        raise


def _without_dashes(config_name: str, arguments: Sequence[str]) -> Iterator[str]:
    """What to type instead of `--key value` and `--key=value`."""
    for argument, after in pairwise([*arguments, ""]):
        name, equals, value = argument[2:].partition("=")
        follows = bool(after) and after[0] != "-" and "=" not in after
        hydras = any(flag.startswith(name) for flag in FLAGS) and not (name == "run" and (equals or follows))
        if not argument.startswith("--") or hydras:
            continue
        value = value if equals else after if follows else "true"
        key = current(config_name, name.replace("-", "_")) or name.replace("-", "_")
        keys = _known(config_name, [])
        meant = f"{key}={value}" if key in keys or (CONF / key).is_dir() else _meant(key, value, keys)
        yield f"{argument}{' ' + after if follows and not equals else ''}: keys are typed without dashes: {meant}"


def _suggest(config_name: str, arguments: Sequence[str]) -> Iterator[str]:
    overrides = [a for a in arguments if "=" in a and not a.startswith(("-", "+", "~", "hydra"))]
    groups = [o for o in overrides if (CONF / o.partition("=")[0]).is_dir()]
    sound, answered = [], set()
    for override in groups:
        key, _, values = override.partition("=")
        options = option_names(key)
        wrong = [v for v in values.split(",") if v not in (*options, "null")]
        sound += [] if wrong else [f"{key}={values.split(',')[0]}"]
        for value in wrong:
            close = get_close_matches(value, options, n=1)
            meant = f"did you mean {key}={close[0]} ?" if close else f"{key} is one of {', '.join(options)}"
            yield f"\n{override}: {meant}"
            answered.add(override)
    keys = _known(config_name, sound)
    known = keys + [path.name for path in CONF.iterdir() if path.is_dir()]
    for override in (o for o in overrides if o not in answered):
        key, _, value = override.partition("=")
        if key not in keys and (tasks := _tasks_with(key)):
            yield f"\n{override}: {key} is of task={' and task='.join(tasks)}: task={tasks[0]} {override}"
        elif override not in groups and key not in known:
            yield f"\n{override}: {_meant(key, value, known)}"


def _tasks_with(key: str) -> list[str]:
    """The tasks that alone have a group, or a key of their own."""
    if key in defaults_of(Optimised):
        return ["policy"]
    return [task for task, groups in task_groups().items() if key in {group.name for group in groups}]


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
    """Every key of the configuration with these choices."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            cfg = hydra.compose(config_name, overrides=list(groups))
        except HydraException:
            cfg = hydra.compose(config_name)
    return _keys(OmegaConf.to_container(cfg, resolve=False))


def _keys(plain: Any, prefix: str = "") -> list[str]:
    inside = dict(enumerate(plain)) if isinstance(plain, list) else plain
    found = [f"{prefix}{key}" for key in inside]
    for key, value in inside.items():
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict | list) else []
    return found


class BadInput(CompactHydraException):
    """What was wrong with file, line, key, and the remedy; Hydra prints it alone unless HYDRA_FULL_ERROR=1."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise a RecordError, or that a file is not there, as BadInput; whatever else goes wrong keeps its stack.

    One of something that the configuration names is told without Hydra's words around it.
    """
    try:
        yield
    except InstantiationException as error:
        if isinstance(error.__cause__, RecordError | FileNotFoundError):
            raise BadInput(f"\n{error.__cause__}") from error
        raise
    except (RecordError, FileNotFoundError) as error:
        raise BadInput(f"\n{error}") from error
