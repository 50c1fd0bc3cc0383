"""The commands: `train.py` and its neighbours in a checkout, `rlhf-train` and so on where the package is installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

from rlhf import assemble
from rlhf.assemble.schema.options import CONF


class UserConfigs(SearchPathPlugin):
    """The folder `conf` where the user stands stands beside ours: `conf/loss/mine.yaml` there is `loss=mine`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Look there last, so that no file of ours is replaced by accident."""
        own = Path.cwd() / "conf"
        if own.is_dir() and own.resolve() != CONF.resolve():
            search_path.append("user", f"file://{own}")


Plugins.instance().register(UserConfigs)


def command(name: str, run: Callable[[DictConfig], Any]) -> Callable[[], Any]:
    """A Hydra command on `conf/<name>.yaml`; what it returns goes to sweepers that optimise it."""

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)
    def main(cfg: DictConfig) -> Any:
        with assemble.plain_errors():
            return run(cfg)

    return cast(Callable[[], Any], main)


train_command = command("train", lambda cfg: assemble.train(cfg))
evaluate_command = command("evaluate", lambda cfg: assemble.evaluate(cfg))
sample_command = command("sample", lambda cfg: assemble.sample(cfg))
annotate_command = command("annotate", lambda cfg: assemble.annotate(cfg))


def train() -> None:
    """`rlhf-train [group=option] [key=value]`."""
    with assemble.suggestions("train"):
        train_command()


def evaluate() -> None:
    """`rlhf-evaluate run=<folder>`."""
    with assemble.suggestions("evaluate"):
        evaluate_command()


def sample() -> None:
    """`rlhf-sample out=<file>`."""
    with assemble.suggestions("sample"):
        sample_command()


def annotate() -> None:
    """`rlhf-annotate annotator=<option> tasks=<file> out=<file>`."""
    with assemble.suggestions("annotate"):
        annotate_command()


def serve() -> None:
    """`rlhf-serve run=<folder>`."""
    with assemble.suggestions("serve"):
        assemble.serve_command()
