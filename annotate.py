"""Tasks to votes: `python annotate.py annotator=... tasks=<file> out=<file>`; what can be chosen: `--help`."""

from rlhf.assemble.console import annotate
from rlhf.assemble.console import annotate_command as main

__all__ = ["main"]

if __name__ == "__main__":
    annotate()
