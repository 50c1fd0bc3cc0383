"""Hydra's end of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Comparison(Callback):
    """Hydra callback: at the end of a sweep, one table over its jobs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write comparison.csv and comparison.md at the sweep's root."""
        from rlhf.judge.comparison import write_comparison

        for path in write_comparison(Path(config.hydra.sweep.dir)):
            print(f"comparison: {path}", flush=True)
