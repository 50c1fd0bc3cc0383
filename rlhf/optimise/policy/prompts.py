"""Prompts to roll out on: of the data's records, split by prompt as everywhere, in a resumable order."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch

from rlhf.collect.prompts import Task
from rlhf.data.order import GroupOrder, ResumableLoader
from rlhf.data.splits import Splitter
from rlhf.optimise.limits import held_out_of
from rlhf.optimise.policy.rollout import RolloutPolicy
from rlhf.records import Comparison, prompt_hash


def task_of(record: Comparison) -> Task:
    """The prompt of a record."""
    return Task(prompt_hash(record.prompt), record.prompt_id, record.prompt, record.domain, None)


@dataclass(frozen=True)
class SplitPrompts:
    """Prompts to train on, the records with these prompts, and prompts that are held out."""

    start: list[Comparison]
    tasks: list[Task]
    held_out: list[Task]


def hold_out(records: Sequence[Comparison], share: float) -> SplitPrompts:
    """The different prompts of records, the last share of them (0..1, one at least) held out."""
    keyed = [(task_of(r), r) for r in records]
    tasks = list({task.key: task for task, _ in keyed}.values())
    cut = len(tasks) - held_out_of(len(tasks), share)
    known = {task.key for task in tasks[:cut]}
    return SplitPrompts([r for task, r in keyed if task.key in known], tasks[:cut], tasks[cut:])


def draw_batches(
    tasks: Sequence[Task], steps: int, size: int, rng: np.random.Generator
) -> torch.utils.data.DataLoader[list[Task]]:
    """So many batches of `size` prompts (all, where there are fewer), each drawn without replacement."""
    batches = [[tasks[i] for i in rng.permutation(len(tasks))[:size].tolist()] for _ in range(steps)]
    return torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=list)  # type: ignore[arg-type]


class PromptData(pl.LightningDataModule):
    """The different prompts of records; their completions and votes are not looked at.

    Args:
        records: where the prompts are; held in memory without their completions.
        splitter: which split a prompt belongs to.
        batch_size: prompts per step.
        seed: of the order.

    Raises:
        ValueError: no prompts to train on or to evaluate with.
    """

    def __init__(self, records: Iterable[Comparison], splitter: Splitter, *, batch_size: int, seed: int) -> None:
        super().__init__()
        records = list(records)
        if splitter.needs_fit:
            splitter.fit(records)
        self.tasks: dict[str, dict[str, Task]] = {"train": {}, "val": {}, "test": {}}
        for record in records:
            task = task_of(record)
            self.tasks[splitter.split_of(record)].setdefault(task.key, task)
        for split, tasks in self.tasks.items():
            if not tasks:
                raise ValueError(f"no prompts in the {split} split: more data, or split=balanced")
        self.batch_size, self.seed = batch_size, seed
        self.resume: dict[str, int] | None = None

    def prompts(self, split: str) -> list[Task]:
        """The prompts of a split."""
        return list(self.tasks[split].values())

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled by (seed, epoch); resumes in the middle of an epoch."""
        tasks = np.array(self.prompts("train"), dtype=object)  # the loader asks for lists of places
        order = GroupOrder(len(tasks), batch_size=self.batch_size, seed=self.seed)
        loader = ResumableLoader(tasks, batch_size=None, sampler=order, collate_fn=list)  # type: ignore[arg-type]
        if self.resume is not None:
            loader.load_state_dict(self.resume)
            self.resume = None
        return loader


def count_trimmed(
    policy: RolloutPolicy, groups: Mapping[str, Sequence[Task]], *, key: str = "task.max_new_tokens"
) -> dict[str, float]:
    """How many prompts of every group the policy cannot read whole; warns where there are any.

    Args:
        policy: the policy.
        groups: name -> prompts.
        key: of the length limit of a completion.

    Returns:
        `prompts/<name>/count` and `prompts/<name>/trimmed`.
    """
    found = {name: policy.trimmed(tasks) for name, tasks in groups.items()}
    if any(found.values()):
        said = ", ".join(f"{n} of {len(groups[name])} ({name})" for name, n in found.items())
        warnings.warn(
            f"prompts that lose their beginning before the policy reads them: {said}; whoever scores its answers may "
            f"see them whole (max_length is for prompt and completion: a larger max_length, or a smaller {key})",
            stacklevel=2,
        )
    counts: dict[str, float] = {}
    for name, n in found.items():
        counts |= {f"prompts/{name}/count": float(len(groups[name])), f"prompts/{name}/trimmed": float(n)}
    return counts
