"""Prompts to completions to tasks: `python sample.py model=... sampler=... out=<file>`; choices: `--help`."""

import hydra
from omegaconf import DictConfig

from rlhf import assemble


@hydra.main(version_base="1.3", config_path=str(assemble.CONF), config_name="sample")
def main(cfg: DictConfig) -> None:
    """See conf/sample.yaml."""
    with assemble.plain_errors():
        assemble.sample(cfg)


if __name__ == "__main__":
    with assemble.suggestions("sample"):
        main()
