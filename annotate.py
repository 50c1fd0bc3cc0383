"""Tasks to votes: `python annotate.py annotator=... tasks=<file> out=<file>`; what can be chosen: `--help`."""

import hydra
from omegaconf import DictConfig

from rlhf import assemble


@hydra.main(version_base="1.3", config_path=str(assemble.CONF), config_name="annotate")
def main(cfg: DictConfig) -> None:
    """See conf/annotate.yaml."""
    with assemble.plain_errors():
        assemble.annotate(cfg)


if __name__ == "__main__":
    with assemble.suggestions("annotate"):
        main()
