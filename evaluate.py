"""Evaluate: `python evaluate.py run=<folder> [data=<importer> data.path=<file>]`; what can be chosen: `--help`."""

import hydra
from omegaconf import DictConfig

from rlhf import assemble


@hydra.main(version_base="1.3", config_path=str(assemble.CONF), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """See conf/evaluate.yaml."""
    with assemble.plain_errors():
        assemble.evaluate(cfg)


if __name__ == "__main__":
    with assemble.suggestions("evaluate"):
        main()
