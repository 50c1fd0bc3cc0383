"""Hydra's end of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepTableCallback(Callback):
    """Hydra callback: at the end of a sweep, one table over its jobs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write comparison.csv and comparison.md at the sweep's root; learning curves too, where jobs left some."""
        from rlhf.evaluation.sweep_table import write_comparison

        root = Path(config.hydra.sweep.dir)
        for path in write_comparison(root):
            print(f"comparison: {path}", flush=True)
        curves = sorted(root.glob("*/curve.csv"))
        if curves:
            from rlhf.select.loop.learning_curve import combine

            print(f"comparison: {combine(curves, root)}", flush=True)
