"""RLOO, DPO and best-of-n from the same votes: what each gains in gold, at what KL, at what cost, how stably.

The policy is the toy world's (`ToySpeaker`), so the KL of RLOO and DPO is exact; that of best-of-n is the upper bound
log n - (n - 1) / n (Beirami et al. 2024). All three see the same records; RLOO and best-of-n through a reward model.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.annotate.aggregation import soft
from rlhf.collect.prompts import Task
from rlhf.data.batch import Target
from rlhf.optimise.ablation import interval
from rlhf.optimise.policy import Gold, Judges, PolicyModule
from rlhf.optimise.proxy import Judge
from rlhf.optimise.shaper import Shaper
from rlhf.optimise.speaking import aside
from rlhf.optimise.toy_speaker import ToySpeaker
from rlhf.optimise.tuning import write_json
from rlhf.record_types import Comparison
from rlhf.reward.losses import dpo


@dataclass(frozen=True)
class World:
    """One seed: records with votes, prompts to train on and to judge with, the truth, a reward model of the records."""

    records: Sequence[Comparison]
    tasks: Sequence[Task]
    held_out: Sequence[Task]
    gold: Gold
    judge: Judge
    seed: int


@dataclass(frozen=True)
class Outcome:
    """One method on one world. samples: drawn in training; per_answer: drawn for every answer in use."""

    gold: float
    kl: float
    length: float
    samples: int
    per_answer: int
    seconds: float


Method = Callable[[World, ToySpeaker], Outcome]


@dataclass(frozen=True)
class Rloo:
    """A policy trained on the shaped reward.

    Args:
        shaper: `() -> Shaper`, fresh for every run.
        steps, prompts, completions: of training.
        trainer: `(steps) -> Trainer`.
        optimizing: options of `PolicyModule`.
    """

    shaper: Callable[[], Shaper]
    steps: int
    prompts: int
    completions: int
    trainer: Callable[[int], Any]
    optimizing: dict[str, Any]

    def __call__(self, world: World, speaker: ToySpeaker) -> Outcome:
        """Train, then judge."""
        begun = time.process_time()
        module = PolicyModule(
            speaker,
            Judges(world.judge),
            self.shaper(),
            completions=self.completions,
            warning=None,
            **self.optimizing,
        )
        module.settle([world.tasks[i % len(world.tasks)] for i in range(256)], world.seed)
        rng = np.random.default_rng((world.seed, 5))
        batches = [
            [world.tasks[i] for i in rng.permutation(len(world.tasks))[: self.prompts].tolist()]
            for _ in range(self.steps)
        ]
        torch.manual_seed(world.seed)
        loader: Any = torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=list)  # type: ignore[arg-type]
        self.trainer(self.steps).fit(module, loader)
        samples = self.steps * min(self.prompts, len(world.tasks)) * self.completions
        return _judged(world, speaker, samples, time.process_time() - begun)


@dataclass(frozen=True)
class Dpo:
    """A policy trained on the votes themselves, all pairs in one batch.

    Args:
        beta: of `rlhf.reward.losses.dpo`.
        steps: of Adam. lr: its learning rate.
    """

    beta: float
    steps: int = 150
    lr: float = 0.05

    def __call__(self, world: World, speaker: ToySpeaker) -> Outcome:
        """Train, then judge."""
        begun = time.process_time()
        rollout = speaker.recall(
            [r.prompt for r in world.records for _ in r.completions],
            [c.text for r in world.records for c in r.completions],
        )
        first, second, target = _targets(world.records)
        optimizer = torch.optim.Adam(speaker.parameters(), lr=self.lr)
        ref = speaker.ref_logp(rollout).sum(1).detach()
        for _ in range(self.steps):
            ratio = speaker.logp(rollout).sum(1) - ref
            loss = dpo(torch.stack([ratio[first], ratio[second]], 1), target, beta=self.beta)
            optimizer.zero_grad()
            total: Any = (loss * target.weight).sum() / target.weight.sum()
            total.backward()
            optimizer.step()
        return _judged(world, speaker, 0, time.process_time() - begun)


@dataclass(frozen=True)
class BestOfN:
    """The reference, and of n answers the one with the highest mean reward.

    Args:
        n: answers sampled per prompt.
    """

    n: int

    def __call__(self, world: World, speaker: ToySpeaker) -> Outcome:
        """Nothing is trained: sample, pick, judge."""
        begun = time.process_time()
        tasks = list(world.held_out)
        with aside(world.seed + 1):
            texts = list(speaker.speak(tasks, self.n, reference=True).spoken.texts)
        prompts = [t.prompt for t in tasks for _ in range(self.n)]
        reward = world.judge.look(prompts, texts)[0].mean(0).view(len(tasks), self.n)
        best = [texts[i * self.n + int(k)] for i, k in enumerate(reward.argmax(1))]
        gold = float(np.mean(world.gold([t.prompt for t in tasks], best)))
        length = sum(map(len, best)) / len(best)
        seconds = time.process_time() - begun
        return Outcome(gold, math.log(self.n) - (self.n - 1) / self.n, length, 0, self.n, seconds)


def compare(
    methods: dict[str, Method], worlds: Sequence[World], make: Callable[[Gold], ToySpeaker], folder: Path
) -> dict[str, float]:
    """Every method on every world; leaves tradeoff.csv (a row per run) and tradeoff.md.

    Returns:
        `<method>/<column>` with `/low`, `/high` (95%, t over seeds), `/sd` of gold over seeds; also `reference/gold`.
    """
    rows: list[dict[str, Any]] = []
    every: dict[str, Method] = {"reference": BestOfN(1), **methods}
    for world in worlds:
        for name, method in every.items():
            outcome = method(world, make(world.gold))
            rows.append({"method": name, "seed": world.seed} | vars(outcome))
    with (folder / "tradeoff.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    metrics: dict[str, float] = {}
    lines = ["| method | gold | sd over seeds | KL, nats | length | samples to train | per answer | CPU s |"]
    lines.append("| --- " * 8 + "|")
    for name in ("reference", *methods):
        own = [row for row in rows if row["method"] == name]
        for column in ("gold", "kl", "length", "samples", "per_answer", "seconds"):
            mean, low, high = interval([row[column] for row in own])
            metrics |= {f"{name}/{column}": mean, f"{name}/{column}/low": low, f"{name}/{column}/high": high}
        metrics[f"{name}/sd"] = float(np.std([row["gold"] for row in own], ddof=1))
        show = {
            c: metrics[f"{name}/{c}"]
            for c in ("gold", "kl", "length", "samples", "per_answer", "seconds", "sd")
        }
        ends = f"[{metrics[name + '/gold/low']:.2f}, {metrics[name + '/gold/high']:.2f}]"
        lines.append(
            f"| {name} | {show['gold']:.2f} {ends} | {show['sd']:.2f} | {show['kl']:.2f} | {show['length']:.0f} | "
            f"{show['samples']:.0f} | {show['per_answer']:.0f} | {show['seconds']:.1f} |"
        )
    (folder / "tradeoff.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "metrics.json", metrics)
    return metrics


def _judged(world: World, speaker: ToySpeaker, samples: int, seconds: float) -> Outcome:
    tasks = list(world.held_out)
    with aside(world.seed + 1):
        texts = list(speaker.speak(tasks, 1).spoken.texts)
    gold = float(np.mean(world.gold([t.prompt for t in tasks], texts)))
    kl = speaker.kl([t.domain for t in tasks])
    return Outcome(gold, kl, sum(map(len, texts)) / len(texts), samples, 1, seconds)


def _targets(records: Sequence[Comparison]) -> tuple[Tensor, Tensor, Target]:
    """Places of both completions of every judged pair, and the pairs as targets of K = 2."""
    first, second, win, votes = [], [], [], []
    start = 0
    for record in records:
        label = soft(record)
        for i, j in np.argwhere(np.triu(label.observed, 1)).tolist():
            first.append(start + i)
            second.append(start + j)
            win.append(float(label.win_prob[i, j]))
            votes.append(float(label.votes[i, j]))
        start += len(record.completions)
    p, size = torch.tensor(win), len(win)
    zero = torch.zeros(size, 2, 2)
    win_prob = torch.stack([torch.stack([0 * p, p], 1), torch.stack([1 - p, 0 * p], 1)], 1)
    target = Target(
        win_prob=win_prob, tie_prob=zero, observed=~torch.eye(2, dtype=torch.bool).expand(size, 2, 2), margin=zero,
        rank=(win_prob.sum(2) < 0.5).long(), score=torch.zeros(size, 2, 0),
        candidate=torch.ones(size, 2, dtype=torch.bool), weight=torch.tensor(votes),
    )  # fmt: skip
    return torch.tensor(first), torch.tensor(second), target
