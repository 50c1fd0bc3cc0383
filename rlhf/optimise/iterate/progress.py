"""What a loop over generations says as it goes: steps and generations to the loggers, a table to the console."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl

COLUMNS = (
    ("reward", "proxy"), ("kl", "KL, nats"), ("length", "length"), ("disagreement", "disagreement"),
    ("distance", "distance"),
)  # fmt: skip
"""Column of the trace, and what the table calls it: the proxy reward is in standard deviations of the reference."""


def heading(gold: bool) -> str:
    """The names of the table's columns; `gold` where true rewards are known."""
    names = [f"{'generation':>10}", *([f"{'gold [95%]':>20}"] if gold else [])]
    return "  ".join([*names, *(f"{name:>12}" for _, name in COLUMNS), "warning"])


def line(name: str, row: Mapping[str, float], warned: str = "") -> str:
    """One line of the table.

    Args:
        name: of the generation.
        row: its means on held-out prompts, with `gold/low` and `gold/high` where there is `gold`.
        warned: what early stopping said.
    """
    cells = [f"{name:>10}"]
    if "gold" in row:
        cells.append(f"{row['gold']:.2f} [{row['gold/low']:.2f}, {row['gold/high']:.2f}]".rjust(20))
    return "  ".join([*cells, *(f"{row[key]:>12.2f}" for key, _ in COLUMNS), warned or "-"])


@dataclass
class Progress:
    """Where the numbers of a loop go.

    Args:
        loggers: Lightning's, of the whole job; the trainings inside a loop have none of their own.
        prefix: of every name, where several loops share the loggers: `KL/seed-0/`.
        show: prints a line.
    """

    loggers: Sequence[Any] = ()
    prefix: str = ""
    show: Callable[[str], None] = print
    rows: list[str] = field(default_factory=list, init=False)

    def step(self, row: Mapping[str, float], step: int) -> None:
        """One step of training, `step` counted through all generations."""
        self._log({f"train/{name}": value for name, value in row.items() if name != "step"}, step)

    def generation(self, name: str, row: Mapping[str, float], step: int, *, warned: str = "", new: bool = True) -> None:
        """A generation's means on held-out prompts; one that was there already is shown, and not logged again."""
        if not self.rows:
            self._show(heading("gold" in row))
        self._show(line(name, row, warned))
        if new:
            self._log({f"generation/{key}": value for key, value in row.items()}, step)

    def _show(self, text: str) -> None:
        self.rows.append(text)
        self.show(text)

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics({self.prefix + name: value for name, value in values.items()}, step=step)


class EveryStep(pl.Callback):
    """Tells `progress` every row of a module's trace as soon as it is there; `before`: steps before this generation."""

    def __init__(self, progress: Progress, before: int) -> None:
        self.progress, self.before = progress, before

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: object, **kwargs: object) -> None:
        """After a step."""
        self.progress.step(pl_module.trace[-1], self.before + len(pl_module.trace) - 1)
