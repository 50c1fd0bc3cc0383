"""Prompts to completions to tasks: `python sample.py model=... sampler=... out=<file>`; choices: `--help`."""

from rlhf.assemble.console import sample
from rlhf.assemble.console import sample_command as main

__all__ = ["main"]

if __name__ == "__main__":
    sample()
