"""What every run leaves: JSON files in its folder, last numbers and figures in its loggers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented; numbers of numpy as numbers, everything else that JSON does not know as text."""
    plain = json.dumps(content, indent=2, default=lambda x: x.item() if isinstance(x, np.generic) else str(x))
    path.write_text(plain)


def note_wandb(module: Any, trainer: pl.Trainer) -> None:
    """The W&B run goes into the checkpoint, so that a resumed run goes on in it."""
    module.wandb_id = next((str(x.version) for x in trainer.loggers if "Wandb" in type(x).__name__), None)


def log_end(loggers: Sequence[Any], metrics: Mapping[str, float], folder: Path, *, step: int = 0) -> None:
    """A job's last numbers, as `final/...`, and the figures in its folder, where a logger shows images."""
    for logger in loggers:
        logger.log_metrics({f"final/{name}": value for name, value in metrics.items()}, step=step)
        show = getattr(logger, "log_image", None)
        if show is not None:
            for path in sorted(folder.glob("*.png")):
                show(path.stem, [str(path)])
