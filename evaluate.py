"""Evaluate: `python evaluate.py run=<folder> [data=<importer> data.path=<file>]`; what can be chosen: `--help`."""

from rlhf.assemble.console import evaluate
from rlhf.assemble.console import evaluate_command as main

__all__ = ["main"]

if __name__ == "__main__":
    evaluate()
