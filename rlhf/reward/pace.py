"""How many optimiser steps a training will take, said before the first: large groups can leave very few."""

import pytorch_lightning as pl

from rlhf.data.datamodule import PreferenceData

FEW = 100
"""Steps of a training. With fewer, warm-up and decay leave a model almost as it was."""


class Pace(pl.Callback):
    """Prints what a step and an epoch are, and a remedy where the steps are few."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, not declared
        if trainer.is_global_zero and isinstance(data, PreferenceData):
            print(pace(data, trainer), flush=True)


def pace(data: PreferenceData, trainer: pl.Trainer) -> str:
    """Steps an epoch and in all, of how many records; a second line where they are few.

    Args:
        data: set up.
        trainer: with `data` attached.
    """
    total, each = int(trainer.estimated_stepping_batches), trainer.accumulate_grad_batches
    steps = -(-int(trainer.num_training_batches) // each)
    records, groups = (data.report[f"merge/records_{when}"] for when in ("before", "after"))
    of = f"{records:,} records" if groups == records else f"{records:,} records in {groups:,} groups"
    said = f"steps   {steps:,} an epoch, {total:,} at most: {of}"
    return said if total >= FEW else f"{said}\n        that is few: {_remedy(data, trainer, total)}"


def _remedy(data: PreferenceData, trainer: pl.Trainer, total: int) -> str:
    """What would give about `FEW` steps."""
    if trainer.accumulate_grad_batches > 1:
        return "trainer.accumulate_grad_batches=1 would give more"
    if data.batch_tokens is not None:
        return "a smaller batches.batch_tokens would give more"
    smaller = max(1, data.batch_size * total // FEW)
    if smaller < data.batch_size:
        return f"batch_size={smaller} would give about {total * data.batch_size // smaller}"
    epochs = -(-FEW * (trainer.max_epochs or 1) // max(1, total))
    return f"epochs={epochs} would give about {FEW}"
