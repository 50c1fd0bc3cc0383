"""Train: `python train.py [group=option] [key=value]`; what can be chosen: `python train.py --help`."""

import hydra
from omegaconf import DictConfig

from rlhf import assemble


@hydra.main(version_base="1.3", config_path=str(assemble.CONF), config_name="train")
def main(cfg: DictConfig) -> float:
    """Returns the monitored metric, for sweepers that optimise it."""
    with assemble.plain_errors():
        return assemble.train(cfg)


if __name__ == "__main__":
    with assemble.suggestions("train"):
        main()
