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


def folder_to_go_on_in(cfg: DictConfig, folder: Path) -> Path:
    """The folder in which `task=active` goes on: `folder` itself, or the one that `ckpt` means.

    Raises:
        FileNotFoundError: there is no run where `ckpt` says.
        ValueError: that run has other settings, which would not fit what it has bought.
    """
    if cfg.ckpt is None:
        return folder
    wanted = _lasting(cfg)
    if cfg.ckpt != "last":
        given = Path(cfg.ckpt)
        if not (given / "arms").is_dir():
            raise FileNotFoundError(f"ckpt={cfg.ckpt}: no folder of a run of task=active")
        stored = _lasting(OmegaConf.load(given / ".hydra" / "config.yaml"))  # type: ignore[arg-type]
        differ = sorted(key for key in wanted if wanted[key] != stored.get(key))
        if differ:
            raise ValueError(
                f"ckpt={cfg.ckpt}: {', '.join(differ)} differ from that run, whose votes would not fit: "
                "give the same settings, or start a new run"
            )
        return given
    found = sorted(Path(cfg.runs).glob("**/arms"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in found:
        config = path.parent / ".hydra" / "config.yaml"
        if config.is_file() and _lasting(OmegaConf.load(config)) == wanted:  # type: ignore[arg-type]
            return path.parent
    raise FileNotFoundError(f"ckpt=last: no run of task=active under {cfg.runs}/ has these settings")


def _lasting(cfg: DictConfig) -> dict[str, Any]:
    """`_comparable` without what may change between two visits: how long it goes on, and what it is compared with."""
    plain = _comparable(cfg)
    task = {k: v for k, v in plain["task"].items() if k not in ("compare_with", "seeds", "policy", "plan")}
    plan = {k: v for k, v in plain["task"].get("plan", {}).items() if k != "rounds"}
    return {**plain, "task": task, "task.plan": plan}


def _comparable(cfg: DictConfig) -> dict[str, Any]:
    """The settings that make two runs the same training, as plain values."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    return {
        k: v
        for k, v in plain.items()
        if k not in ("ckpt", "logger", "runs", "cache", "save_every", "threads")
    }
