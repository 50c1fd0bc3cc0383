"""Writes docs/reference/keys.md, every key of every command and option: `python -m rlhf.assemble.reference`."""

from collections.abc import Iterator, Sequence

from rlhf.assemble.help import command_rows, option_rows
from rlhf.assemble.schema.commands import COMMANDS
from rlhf.assemble.schema.options import CONF, Row, groups_of, meaning_of, options_of

PATH = CONF.parent / "docs" / "reference" / "keys.md"
BEGIN = """# Keys

Written by `python -m rlhf.assemble.reference` from the schema and from the comments in `conf/`; do not edit it here.
A key is typed as `key=value`, an option as `group=option`. `${...}` takes the value of another key.
"""


def reference() -> str:
    """The page, as Markdown."""
    return "\n".join([BEGIN, *_commands(), *_groups()])


def _commands() -> Iterator[str]:
    for command, schema in COMMANDS.items():
        yield f"## {schema.command}\n\n{schema.__doc__}\n"
        if groups := groups_of(CONF / f"{command}.yaml"):
            yield "Groups: " + ", ".join(f"[{group.name}](#{group.name})" for group in groups) + ".\n"
        yield from _table(["key", "meaning", "bounds", "default"], command_rows(command))


def _groups() -> Iterator[str]:
    for group in sorted(path.name for path in CONF.iterdir() if path.is_dir()):
        yield f"## {group}\n"
        for path in options_of(group):
            yield f"- `{group}={path.stem}`: {meaning_of(path)}"
        yield ""
        rows = {path.stem: option_rows(group, path) for path in options_of(group)}
        if any(rows.values()):
            yield from _table(["key", "meaning", "bounds", "value", "options"], _merged(rows))


def _merged(rows: dict[str, list[Row]]) -> list[tuple[Row, str]]:
    """Equal keys of several options once, with the options that have them; empty where all do."""
    found: dict[Row, list[str]] = {}
    for option, own in rows.items():
        for row in own:
            found.setdefault(row, []).append(option)
    named = [(row, "" if len(options) == len(rows) else ", ".join(options)) for row, options in found.items()]
    return sorted(named, key=lambda entry: entry[0].key)


def _table(columns: Sequence[str], rows: Sequence[Row | tuple[Row, str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for entry in rows:
        row, *options = entry if isinstance(entry, tuple) else (entry,)
        cells = [f"`{row.key}`", row.meaning, row.bound, f"`{row.default}`" if row.default else "", *options]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


if __name__ == "__main__":
    PATH.write_text(reference())
    print(PATH)
