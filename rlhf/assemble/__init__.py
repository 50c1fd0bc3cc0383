"""Configuration to objects: the only package that knows hydra and omegaconf.

Everything heavy is imported inside functions, so that a mistyped override answers at once.
"""

from rlhf.assemble.annotate import annotate
from rlhf.assemble.checks.suggestions import plain_errors, suggestions
from rlhf.assemble.evaluate import evaluate
from rlhf.assemble.loggers import SweepTableCallback, no_logger, wandb_logger
from rlhf.assemble.run import train
from rlhf.assemble.sample import sample
from rlhf.assemble.schema.commands import store_defaults
from rlhf.assemble.schema.options import CONF
from rlhf.assemble.serve import serve, serve_command

store_defaults()

__all__ = [
    "CONF", "SweepTableCallback", "annotate", "evaluate", "no_logger", "plain_errors", "sample", "serve",
    "serve_command", "suggestions", "train", "wandb_logger",
]  # fmt: skip
