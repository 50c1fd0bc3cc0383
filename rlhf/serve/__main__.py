"""Scores over HTTP: `python -m rlhf.serve run=<folder>`; what can be chosen: `--help`."""

from rlhf import assemble

if __name__ == "__main__":
    with assemble.suggestions("serve"):
        assemble.serve_command()
