"""What `--help` prints: the command, examples, groups with their options, keys with meaning and default."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten, wrap

import yaml

from rlhf.assemble.schema.bounds import Settings, bound_at, said, settings_in
from rlhf.assemble.schema.commands import COMMANDS, Optimised
from rlhf.assemble.schema.options import CONF, Group, Row, groups_of, keys_of, meaning_of, options_of

WIDTH = 100
COLUMN = 34
"""Where meanings begin."""
TYPES: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", list: "a list"}
END = """More
  {command} <group>=<option> --help
      the keys of that option; docs/reference/keys.md has every key of every option, and its bounds
  {command} --hydra-help
      Hydra's own flags: -m, --cfg job, --info, --config-dir, ..."""


def page(command: str, overrides: Sequence[str] = ()) -> str:
    """The help of a command, or of the options that the overrides choose."""
    chosen = [(group, CONF / group / f"{option}.yaml") for group, _, option in (o.partition("=") for o in overrides)]
    parts = [_option(group, path) for group, path in chosen if path.is_file()]
    return "\n\n".join(parts or _command(command))


def command_rows(command: str) -> list[Row]:
    """The keys of a command that are no group's, those of tasks after them."""
    schema = COMMANDS[command]
    rows = list(_fields(schema, ""))
    rows += [_bounded(row, [schema]) for row in keys_of(CONF / f"{command}.yaml")]
    return rows + (list(_fields(Optimised, "")) if command == "train" else [])


def option_rows(group: str, path: Path) -> list[Row]:
    """The keys of an option; none of one that only changes others, such as an experiment."""
    if "@package _global_" in path.read_text():
        return []
    rows = (replace(row, key=f"{group}.{row.key}") for row in keys_of(path))
    return [_bounded(row, COMMANDS.values()) for row in rows]


def task_groups() -> dict[str, list[Group]]:
    """Task -> the groups that only it has."""
    found = {path.stem: groups_of(path) for path in options_of("task")}
    return {task: groups for task, groups in found.items() if groups}


def _fields(schema: type[Settings], prefix: str) -> Iterator[Row]:
    for name, field in schema.model_fields.items():
        inner = settings_in(field.annotation)
        if not field.is_required():
            default = "null" if field.default is None else str(field.default).replace("'", '"')
            default = default.lower() if isinstance(field.default, bool) else default
            yield Row(prefix + name, default, field.description or "", said(field.rebuild_annotation()))
        elif inner not in (None, schema):
            yield from _fields(inner, f"{prefix}{name}.")


def _command(command: str) -> Iterator[str]:
    schema = COMMANDS[command]
    yield "\n".join(wrap(schema.__doc__ or "", WIDTH))
    usage = "[group=option] [key=value]" if groups_of(CONF / f"{command}.yaml") else "[key=value]"
    yield f"Usage\n  {schema.command} {usage}     -m: one run per value, as in seed=0,1,2"
    yield "Examples\n" + "\n".join(f"  {schema.command} {given}\n      {meaning}" for given, meaning in schema.examples)
    groups = groups_of(CONF / f"{command}.yaml")
    if groups:
        yield "Groups: group=option, * is the default\n" + "\n".join(map(_group, groups))
    shown = {group.name for group in groups}
    for task, own in task_groups().items() if command == "train" else ():
        new = [group for group in own if group.name not in shown]
        shown |= {group.name for group in new}
        if new:
            yield f"Groups that task={task} has beside them\n" + "\n".join(map(_group, new))
    yield "Keys: key=value\n" + "\n".join(_row(row) for row in command_rows(command) if row.meaning)
    yield END.format(command=schema.command)


def _option(group: str, path: Path) -> str:
    rows = option_rows(group, path)
    head = "\n".join(wrap(f"{group}={path.stem}: {meaning_of(path)}", WIDTH))
    return "\n".join([head, *map(_row, rows)])


def _group(group: Group) -> str:
    head = f"{group.name}: {group.meaning}" if group.meaning else group.name
    lines = wrap(head, WIDTH, initial_indent="  ", subsequent_indent="      ")
    for path in options_of(group.name):
        star = "*" if path.stem == group.option else " "
        lines.append(f"  {star} {path.stem:23} {shorten(meaning_of(path), WIDTH - 28, placeholder=' ...')}")
    return "\n".join(lines)


def _row(row: Row) -> str:
    meaning = wrap(row.meaning, WIDTH - COLUMN)
    name = shorten(f"{row.key}={row.default}" if row.default else row.key, WIDTH - 4, placeholder="...")
    beside = len(name) < COLUMN - 3
    lines = [f"  {name:{COLUMN - 3}} {meaning[0]}" if beside and meaning else f"  {name}"]
    return "\n".join([*lines, *(" " * COLUMN + line for line in meaning[beside:])])


def _bounded(row: Row, schemas: Iterable[type[Settings]]) -> Row:
    """With the bounds that a schema has for it, else the type of its value in conf/."""
    known = next(filter(None, (bound_at(schema, row.key) for schema in schemas)), "")
    return replace(row, bound=known or TYPES.get(type(yaml.safe_load(row.default)), ""))
