"""A model is named by a folder or by its name on the Hugging Face hub: which of the two was meant?"""

import re
from difflib import get_close_matches
from pathlib import Path

HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")  # `name` or `organisation/name`; everything else is a path
SHOWN = 3


def missing_folder(name: str, key: str) -> str | None:
    """What to say where `name` must be a folder and there is none; None for a folder, and for what may be a hub name.

    A path starts with / . or ~, ends with /, has more than one folder above it, or begins with a folder that exists
    here: `runs/nope` is a mistyped run where there is a folder `runs`.

    Args:
        name: as the user wrote it.
        key: of the configuration, for the message.
    """
    path = Path(name)
    if path.expanduser().is_dir():
        return None if path.is_dir() else f"{key}={name}: write {path.expanduser()}, ~ is not expanded here"
    looks = HUB.fullmatch(name) and not name.startswith((".", "~"))
    if looks and not (len(path.parts) > 1 and Path(path.parts[0]).is_dir()):
        return None
    return f"{key}={name}: no such folder{_near(path.expanduser())} (a hub name is `name` or `organisation/name`)"


def not_found(name: str, key: str) -> str:
    """What to say of a name that could be either and is neither."""
    return (
        f"{key}={name}: no such folder here, and no model of that name in the Hugging Face cache or within reach of "
        f"the hub; mend the path, or fetch the model once where there is a network: hf download {name}"
    )


def _near(path: Path) -> str:
    """The nearest folder above that exists, and what in it the missing name is close to."""
    above = next((p for p in path.parents if p.is_dir()), None)
    if above is None or above == Path(above.anchor) != Path():
        return ""
    wrong = path.relative_to(above).parts[0]
    there = sorted(p.name for p in above.iterdir() if p.is_dir() and not p.name.startswith("."))
    close = get_close_matches(wrong, there, n=SHOWN, cutoff=0.5)
    said = f", did you mean {' or '.join(close)}?" if close else ""
    place = "this folder" if above == Path() else above
    return f": {place} has no {wrong}{said}"
