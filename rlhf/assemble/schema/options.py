"""Groups, their options, and what conf/ says of every key: value and comment stand on one line there."""

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from rlhf.records import RecordError

INSTALLED, CHECKOUT = (Path(__file__).parents[n] / "conf" for n in (2, 3))
CONF = INSTALLED if INSTALLED.is_dir() else CHECKOUT
"""In a wheel it lies in the package; in a checkout beside it."""
CHOICE = re.compile(r"^  - /?(?P<name>[a-z_]+)(?:@_global_\.\w+)?: (?P<option>\S+)(?:\s+# (?P<meaning>.*))?$", re.M)
HIDDEN = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_", "defaults", "hydra")


@dataclass(frozen=True, slots=True)
class Group:
    """A group as a file of conf/ has it: what it chooses, and the option that is chosen by default."""

    name: str
    option: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Row:
    """A key as users type it, its default, what it means, and what it may be."""

    key: str
    default: str
    meaning: str
    bound: str = ""


def groups_of(path: Path) -> list[Group]:
    """The groups that a command's or a task's file chooses from, in its order."""
    found = (Group(*each.group("name", "option", "meaning")) for each in CHOICE.finditer(path.read_text()))
    return [replace(group, meaning=group.meaning or "") for group in found if (CONF / group.name).is_dir()]


def options_of(group: str) -> list[Path]:
    """The files of a group's options, by name."""
    return sorted((CONF / group).glob("*.yaml"))


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


def meaning_of(path: Path) -> str:
    """The first sentence of the comment that an option begins with."""
    begins = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    text = " ".join(line[1:].strip() for line in begins if "@package" not in line)
    return re.split(r"(?<=[.?])\s+(?=[A-Z])|\s*\busage:", text)[0]


def keys_of(path: Path) -> list[Row]:
    """The keys of a file, those of the files that it inherits from first."""
    text = path.read_text()
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        return []
    found: dict[str, Row] = {}
    for key, value in root.value:
        for entry in value.value if key.value == "defaults" else []:
            base = path.parent / f"{str(entry.value).partition('@')[0]}.yaml"
            if isinstance(entry, yaml.ScalarNode) and base.is_file():
                found |= {inherited.key: inherited for inherited in keys_of(base)}
    for own in _keys(root, "", text.splitlines(), ""):
        before = found.get(own.key)
        found[own.key] = replace(own, meaning=before.meaning) if before and not own.meaning else own
    return list(found.values())


def _keys(node: yaml.MappingNode, prefix: str, lines: Sequence[str], said: str) -> Iterator[Row]:
    for key, value in node.value:
        if key.value in HIDDEN:
            continue
        name = f"{prefix}{key.value}"
        nested = isinstance(value, yaml.MappingNode) and bool(value.value)
        flat = isinstance(value, yaml.ScalarNode) or value.flow_style
        meaning = _comment(lines, value.end_mark if flat else key.end_mark) or said
        inner = list(_keys(value, f"{name}.", lines, meaning if flat else "")) if nested else []
        if not inner or (meaning and not flat):
            yield Row(name, _value(value, lines), meaning)
        yield from inner


def _value(node: yaml.Node, lines: Sequence[str]) -> str:
    """As it is written; of what has a target, the target's name."""
    if isinstance(node, yaml.MappingNode) and node.value:
        targets = [value.value for key, value in node.value if key.value == "_target_"]
        return targets[0].rpartition(".")[2] if targets else ""
    if isinstance(node, yaml.SequenceNode) and any(not isinstance(each, yaml.ScalarNode) for each in node.value):
        return "[...]"
    start, end = node.start_mark, node.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column].strip()
    return str(node.value)


def _comment(lines: Sequence[str], after: yaml.Mark) -> str:
    """The comment behind a value, and the lines of comment below it that go on at the same column."""
    line = lines[after.line] if after.line < len(lines) else ""
    start = line.find("#", after.column)
    if start < 0:
        return ""
    found = [line[start + 1 :]]
    for more in lines[after.line + 1 :]:
        if len(more) - len(more.lstrip()) != start or not more.lstrip().startswith("#"):
            break
        found.append(more.lstrip()[1:])
    return " ".join(part.strip() for part in found)
