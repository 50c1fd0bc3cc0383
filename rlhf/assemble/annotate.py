"""`annotate.py`: tasks to votes, and the report on them."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from rlhf.assemble.aliases import translated
from rlhf.assemble.schema.bounds import check_ranges
from rlhf.assemble.schema.commands import Annotate


def annotate(cfg: DictConfig) -> None:
    """Build what the configuration names and run it."""
    check_ranges(cfg, Annotate)
    from rlhf.annotate.job import Job

    cfg = translated(cfg)
    job = Job(
        source=hydra.utils.instantiate(cfg.data, _convert_="all"),
        tasks=None if cfg.tasks is None else Path(cfg.tasks),
        out=Path(cfg.out),
        report=hydra.utils.instantiate(cfg.report),
        adjudicate_below=cfg.adjudicate_below,
    )
    hydra.utils.instantiate(cfg.annotator, _convert_="all")(job)
