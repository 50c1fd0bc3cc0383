"""What a checkpoint needs beside weights and optimizer so that a resumed run is the run it would have been."""

import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

MONITORED: Mapping[str, str] = {"val/nll": "min", "val/pair_accuracy": "max", "val/ece": "min"}
"""What early stopping and the best checkpoint can look at, and which end of it is the better one."""


def better(monitor: str) -> str:
    """`min` or `max`: the better end of a validation metric. Raises ValueError where it is not one of them."""
    if monitor not in MONITORED:
        raise ValueError(f"monitor={monitor}: validation measures {', '.join(MONITORED)}")
    return MONITORED[monitor]


def random_state() -> dict[str, Any]:
    """State of every random generator training draws from, in types that `weights_only` loading accepts."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": (str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(cached)),
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put every generator back to where `random_state` found it."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def drop_frozen(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state without frozen parameters: under an adapter the base is read from its own folder again."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    return {name: value for name, value in state.items() if name not in frozen}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a checkpoint by today's names: what holds them was called otherwise once."""
    found = {}
    for name, value in state.items():
        name = name.replace("backbone.carrier.", "backbone.classifier.")
        found["policy." + name.removeprefix("speaker.") if name.startswith("speaker.") else name] = value
    return found


def load_weights(module: nn.Module, checkpoint: str | Path) -> None:
    """Put the weights of a checkpoint into the module. Raises ValueError where they are those of another model."""
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    missing, unexpected = module.load_state_dict(renamed(stored), strict=False)
    check_loaded(module, missing, unexpected)


def check_loaded(module: nn.Module, missing: list[str], unexpected: list[str]) -> None:
    """Only frozen parameters may be missing from a checkpoint. Raises ValueError with the names."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    lost = sorted(set(missing) - frozen)
    if lost or unexpected:
        raise ValueError(
            f"the checkpoint does not fit this model: missing {lost[:5]}, unexpected {unexpected[:5]}; "
            "resume with the model, head, adapter and loss the run was started with"
        )


class KeepBest(ModelCheckpoint):
    """Writes checkpoints/best.ckpt whenever the monitored metric improves.

    A resumed run has a folder of its own: it takes the best checkpoint so far, and its score, along.

    Args:
        folder: where `best.ckpt` goes.
        monitor: metric. mode: `min` or `max`.
    """

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(
            folder, "best", monitor, mode=mode, enable_version_counter=False, save_on_train_epoch_end=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Move the old run's best checkpoint here."""
        old = Path(state_dict["best_model_path"])
        if old.is_file() and str(old.parent) != str(self.dirpath):
            new = Path(str(self.dirpath)) / old.name
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old, new)
            names = {str(old): str(new)}
            best_k = {names.get(k, k): v for k, v in state_dict["best_k_models"].items()}
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": str(new),
                "best_k_models": best_k,
                "kth_best_model_path": names.get(state_dict["kth_best_model_path"], ""),
            }
        super().load_state_dict(state_dict)


class KeepLast(pl.Callback):
    """Writes checkpoints/last.ckpt every `every_n_steps` optimizer steps and at the end of every epoch.

    A run that ends in the middle of an epoch, at its `max_steps` or because it is told to stop, is written there as one
    that is not over: given more steps, it goes on with the rest of that epoch.

    Args:
        folder: where `last.ckpt` goes.
        every_n_steps: steps between two writes; a killed run loses at most these.
    """

    def __init__(self, folder: Path, every_n_steps: int = 100) -> None:
        self.path, self.every_n_steps = folder / "last.ckpt", every_n_steps
        self.saved_at = -1

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        """Save in the middle of an epoch."""
        step = trainer.global_step
        due = step % self.every_n_steps == 0 or step == trainer.max_steps or trainer.should_stop
        if due and step != self.saved_at:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of a whole epoch, after validation and early stopping."""
        if trainer.is_last_batch or trainer.global_step != self.saved_at:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        self.saved_at = trainer.global_step
        trainer.save_checkpoint(self.path)


def stored_wandb_id(checkpoint: Path | None) -> str | None:
    """The W&B run a checkpoint belongs to, or None."""
    if checkpoint is None:
        return None
    stored: str | None = torch.load(checkpoint, map_location="cpu", weights_only=True).get("wandb_id")
    return stored
