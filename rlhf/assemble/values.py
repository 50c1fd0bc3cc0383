"""Numbers and paths of the configuration that can be judged by themselves: before torch, whose import takes seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf.record_types import RecordError
from rlhf.reward.model_name import missing_folder

POSITIVE = (
    "optimizer.build.lr", "task.loss.beta", "task.lr", "task.decoding.temperature", "speaker.decoding.temperature",
    "shaping.controller.init", "shaping.controller.target", "shaping.controller.horizon",
    "shaping.controller.episodes", "shaping.clip",
)  # fmt: skip
"""Keys whose value must be above 0, where there is such a key and it is not null."""
NOT_NEGATIVE = (
    "optimizer.weight_decay", "task.loss.label_smoothing", "shaping.controller.beta", "shaping.controller.start",
    "shaping.controller.end", "shaping.controller.controller.beta",
)  # fmt: skip
"""Keys whose value must be 0 or more."""
AT_LEAST = {
    1: (
        "epochs", "batch_size", "eval_batch_size", "max_length", "task.steps", "task.prompts", "task.max_new_tokens",
        "task.eval_prompts", "speaker.max_new_tokens", "task.plan.generations", "task.plan.steps", "task.plan.prompts",
        "task.plan.samples", "task.plan.labelled", "task.plan.judged", "task.plan.oversight",
    ),
    2: ("task.completions", "task.plan.completions", "task.plan.k"),
    32: ("task.reference_samples", "task.plan.reference_samples"),
}  # fmt: skip
"""Least value of counts: completions of a prompt are compared with each other, 32 samples set the scale of a reward."""


def check_values(cfg: DictConfig) -> None:
    """Refuse what cannot be meant.

    Raises:
        RecordError: a number out of range, with its key; `model.path` is not given or holds no model.
        FileNotFoundError: `model.path` is written as a folder, and there is none.
    """
    for key in POSITIVE:
        _above(cfg, key, 0, "above 0", strictly=True)
    for key in NOT_NEGATIVE:
        _above(cfg, key, 0, "0 or more")
    for least, keys in AT_LEAST.items():
        for key in keys:
            _above(cfg, key, least, f"at least {least}")
    smoothing = OmegaConf.select(cfg, "task.loss.label_smoothing")
    if smoothing is not None and smoothing >= 0.5:
        raise RecordError(
            f"{smoothing} must be below 0.5: half of the labels flipped say nothing",
            key="task.loss.label_smoothing",
        )
    _model(cfg)


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


def _above(cfg: DictConfig, key: str, least: float, said: str, *, strictly: bool = False) -> None:
    value: Any = OmegaConf.select(cfg, key)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecordError(f"{value} must be a number, {said}", key=key)
    if value < least or (strictly and value == least):
        raise RecordError(f"{value} must be {said}", key=key)


def _model(cfg: DictConfig) -> None:
    """A model of one's own that is named, there, and a model."""
    missing = OmegaConf.is_missing(cfg.model, "path")  # `in` does not see what is ???
    if "path" not in cfg.model and not missing:
        return
    if missing or cfg.model.path is None:
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
