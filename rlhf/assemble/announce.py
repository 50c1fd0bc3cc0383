"""What a command is about to do, said before anything heavy is imported."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rlhf.assemble.schema.options import CONF, meaning_of

PARTS = ("model", "head", "adapter", "loss")
"""Groups that say what is trained."""


def announce(cfg: DictConfig) -> None:
    """Print four lines: the task, what it reads, what it trains, and where it writes."""
    if not HydraConfig.initialized():
        return
    hydra_cfg = HydraConfig.get()
    chosen = hydra_cfg.runtime.choices
    parts = [f"{group}={chosen[group]}" for group in PARTS if chosen.get(group)]
    rows = {
        "task": f"{chosen.get('task')}: {_meaning('task', chosen.get('task'))}",
        "reads": _data(cfg, chosen.get("data")),
        "trains": " ".join(parts),
        "writes": str(_shortest(Path(hydra_cfg.runtime.output_dir))),
    }
    print("\n".join(f"{name:<7} {text}" for name, text in rows.items()), flush=True)


def _meaning(group: str, name: Any) -> str:
    path = CONF / group / f"{name}.yaml"
    return meaning_of(path) if path.is_file() else ""


def _data(cfg: DictConfig, name: Any) -> str:
    data = cfg.get("data") or {}
    place = data.get("path") or data.get("hub")
    return f"{name}: {place or _meaning('data', name)}"


def _shortest(path: Path) -> Path:
    """Relative to where the user stands, if it lies there."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
