"""Which checkpoint `ckpt=` means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def checkpoint_to_go_on_from(cfg: DictConfig, folder: Path) -> Path | None:
    """The checkpoint to go on from, or None. Raises FileNotFoundError when there is none where `ckpt` says."""
    if cfg.ckpt is None:
        return None
    if cfg.ckpt != "last":
        given = Path(cfg.ckpt)
        path = given / "checkpoints" / "last.ckpt" if given.is_dir() else given
        if not path.is_file():
            raise FileNotFoundError(f"ckpt={cfg.ckpt}: no such checkpoint, nor a run folder with one")
        return path
    own = folder / "checkpoints" / "last.ckpt"
    if own.is_file():
        return own
    wanted = _comparable(cfg)
    found = sorted(
        Path(cfg.runs).glob("**/checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime, reverse=True
    )
    for path in found:
        config = path.parent.parent / ".hydra" / "config.yaml"
        if config.is_file() and _comparable(OmegaConf.load(config)) == wanted:  # type: ignore[arg-type]
            return path
    raise FileNotFoundError(f"ckpt=last: no run under {cfg.runs}/ with this configuration has a last.ckpt")


def _comparable(cfg: DictConfig) -> dict[str, Any]:
    """The settings that make two runs the same training, as plain values."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    return {
        k: v
        for k, v in plain.items()
        if k not in ("ckpt", "logger", "runs", "cache", "save_every", "threads")
    }
