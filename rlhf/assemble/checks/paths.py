"""Models and runs that a configuration names are looked for before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from rlhf.models.names import missing_folder
from rlhf.records import RecordError


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
    if "path" in cfg.model.keys():  # noqa: SIM118  # `in` does not see ???
        _check_path(cfg.model, "model.path")


def check_augment(cfg: DictConfig) -> None:
    """The models that say prompts in other words are named, there, and models.

    Raises:
        RecordError: a path is not given or holds no model.
        FileNotFoundError: a path is written as a folder, and there is none.
    """
    for i, rewrite in enumerate(listed(OmegaConf.select(cfg, "augment.prompts"))):
        policy = rewrite.get("policy") if isinstance(rewrite, DictConfig) else None
        if isinstance(policy, DictConfig) and "path" in policy.keys():  # noqa: SIM118
            _check_path(policy, f"augment.prompts.{i}.policy.path")


def _check_path(named: DictConfig, key: str) -> None:
    if OmegaConf.is_missing(named, "path") or named.path is None:
        raise RecordError(
            "is not given", key=key, remedy=f"{key}=<folder of a Hugging Face model, or its name on the hub>"
        )
    if wrong := missing_folder(str(named.path), key):
        raise FileNotFoundError(wrong)
    folder = Path(str(named.path))
    if folder.is_dir() and not (folder / "config.json").is_file():
        inner = (folder / "model" / "config.json").is_file()
        raise RecordError(
            f"{folder} holds no model: no config.json in it",
            key=key,
            remedy=f"{key}={folder}/model" if inner else "the exported folder: <run>/model",
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
