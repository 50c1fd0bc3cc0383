"""Train: `python train.py [group=option] [key=value]`; what can be chosen: `python train.py --help`."""

from rlhf.assemble.console import train
from rlhf.assemble.console import train_command as main

__all__ = ["main"]

if __name__ == "__main__":
    train()
