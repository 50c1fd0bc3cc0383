"""Models and runs that a configuration names are looked for before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from rlhf.record_types import RecordError
from rlhf.reward.model_name import missing_folder


def listed(entries: Any) -> list[Any]:
    """One entry of a key, or several, as a list; null is none."""
    if entries is None:
        return []
    return list(entries) if isinstance(entries, ListConfig | list) else [entries]


def check_model(cfg: DictConfig) -> None:
    """A model of one's own is named, there, and a model.

    Raises:
        RecordError: `model.path` is not given or holds no model.
        FileNotFoundError: `model.path` is written as a folder, and there is none.
    """
    if "path" not in cfg.model.keys():  # noqa: SIM118  # `in` does not see ???
        return
    if OmegaConf.is_missing(cfg.model, "path") or cfg.model.path is None:
        raise RecordError(
            "is not given",
            key="model.path",
            remedy="model.path=<folder of a Hugging Face model, or its name on the hub>",
        )
    if wrong := missing_folder(str(cfg.model.path), "model.path"):
        raise FileNotFoundError(wrong)
    folder = Path(str(cfg.model.path))
    if folder.is_dir() and not (folder / "config.json").is_file():
        inner = (folder / "model" / "config.json").is_file()
        raise RecordError(
            f"{folder} holds no model: no config.json in it",
            key="model.path",
            remedy=f"model.path={folder}/model" if inner else "the exported folder: <run>/model",
        )


def check_folders(folders: Sequence[str], key: str, leaves: str, what: str) -> None:
    """Every folder is there and holds `leaves`, itself or in `model/`.

    Raises:
        RecordError: it does not, with what stands where it should.
    """
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise RecordError(f"there is no folder {folder}", key=key, remedy=f"the folder of {what}")
        if not any((place / leaves).is_file() for place in (folder, folder / "model")):
            raise RecordError(
                f"{folder} holds no model of {what}: no {leaves} here or in model/",
                key=key,
                remedy=f"the folder of {what} that has ended",
            )
