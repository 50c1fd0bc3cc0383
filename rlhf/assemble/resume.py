"""Which checkpoint `ckpt=` means."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.aliases import stored_config
from rlhf.records import RecordError

ACTIVE = ("compare_with", "compare_votes", "seeds", "policy", "ceiling")
"""Keys of `task=active` that may change between two visits: what it is compared with."""
LONGER = ("rounds", "generations")
"""Keys of a plan that say how long it goes on."""


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
    found = sorted(Path(cfg.runs).glob("**/checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in found:
        config = path.parent.parent / ".hydra" / "config.yaml"
        if config.is_file() and _comparable(stored_config(config)) == wanted:
            return path
    raise FileNotFoundError(f"ckpt=last: no run under {cfg.runs}/ with this configuration has a last.ckpt")


def only_from_the_start(cfg: DictConfig) -> None:
    """For a task of minutes that keeps no state. Raises RecordError where `ckpt` asks to go on with one."""
    if cfg.ckpt is not None:
        raise RecordError(f"{cfg.ckpt}: this task keeps no state to go on from", key="ckpt", remedy="leave it out")


def folder_to_go_on_in(cfg: DictConfig, folder: Path, *, leaves: str = "arms", free: Sequence[str] = ACTIVE) -> Path:
    """The folder in which a task of many parts goes on: `folder` itself, or the one that `ckpt` means.

    Args:
        cfg: of conf/train.yaml.
        folder: of this run.
        leaves: pattern of what such a run leaves in its folder.
        free: keys of the task that may change between two visits.

    Raises:
        FileNotFoundError: there is no run where `ckpt` says.
        ValueError: that run has other settings, which would not fit what it holds.
    """
    if cfg.ckpt is None:
        return folder
    wanted = _lasting(cfg, free)
    if cfg.ckpt != "last":
        given = Path(cfg.ckpt)
        config = given / ".hydra" / "config.yaml"
        if not any(given.glob(leaves)) or not config.is_file():
            raise FileNotFoundError(f"ckpt={cfg.ckpt}: no folder of a run of this task ({leaves} in it)")
        stored = _lasting(stored_config(config), free)
        differ = sorted(key for key in {*wanted, *stored} if wanted.get(key) != stored.get(key))
        if differ:
            raise ValueError(
                f"ckpt={cfg.ckpt}: {', '.join(differ)} differ from that run, whose results would not fit: "
                "give the same settings, or start a new run"
            )
        return given
    configs = [folder / ".hydra" / "config.yaml", *Path(cfg.runs).glob("**/.hydra/config.yaml")]
    for config in sorted(filter(Path.is_file, configs), key=lambda path: path.stat().st_mtime, reverse=True):
        found = config.parent.parent
        if any(found.glob(leaves)) and _lasting(stored_config(config), free) == wanted:
            return found
    raise FileNotFoundError(f"ckpt=last: no run of this task under {cfg.runs}/ has these settings ({leaves} in it)")


def _lasting(cfg: DictConfig, free: Sequence[str]) -> dict[str, Any]:
    """`_comparable`, flat where tasks are concerned, without what may change between two visits."""
    plain = _comparable(cfg)
    task, plan = plain.pop("task"), {}
    if isinstance(task.get("plan"), dict):
        plan = {f"task.plan.{k}": v for k, v in task.pop("plan").items() if k not in LONGER}
    return plain | {f"task.{k}": v for k, v in task.items() if k not in free} | plan


def _comparable(cfg: DictConfig) -> dict[str, Any]:
    """The settings that make two runs the same training, as plain values."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    if isinstance(plain.get("task"), dict):
        plain["task"].pop("check", None)  # what is looked at first changes no result
    for component, key in (("batches", "cache"), ("trainer", "save_every"), ("trainer", "threads")):
        if isinstance(plain.get(component), dict):
            plain[component].pop(key, None)
    return {k: v for k, v in plain.items() if k not in ("ckpt", "logger", "runs")}
