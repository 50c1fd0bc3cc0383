"""Four ways from the same votes to better answers: RLOO, PPO, DPO, best-of-n.

The policy is the toy world's (`TabularPolicy`): gold and KL of the trained ones are exact, summed over its decisions.
The KL of best-of-n is the upper bound log n - (n - 1) / n (Beirami et al. 2024), its gold a mean over sampled answers.
RLOO, PPO and best-of-n know the votes through one reward model, DPO directly.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.collect.prompts import Task
from rlhf.data.batch import Target
from rlhf.evaluation.metrics.best_of_n import best_of
from rlhf.optimise.policy.module import PolicyModule, RewardSources
from rlhf.optimise.policy.prompts import draw_batches
from rlhf.optimise.policy.rollout import isolated_seed
from rlhf.optimise.policy.train import quick_trainer
from rlhf.optimise.shaping.ensemble import mean
from rlhf.optimise.shaping.kl_controllers import Fixed
from rlhf.optimise.shaping.reward_source import RewardSource
from rlhf.optimise.shaping.shaper import Shaper
from rlhf.records import Comparison
from rlhf.reward.losses import dpo
from rlhf.reward.schedule import constant
from rlhf.studies.feature_world import pair_target
from rlhf.toy.gold import ToyGold
from rlhf.toy.linear_reward import labelled_pairs
from rlhf.toy.tabular_policy import TabularPolicy


@dataclass(frozen=True)
class TradeoffWorld:
    """One seed: records with votes, prompts to train on and to evaluate with, the truth, a reward model."""

    records: Sequence[Comparison]
    tasks: Sequence[Task]
    held_out: Sequence[Task]
    gold: ToyGold
    reward_source: RewardSource
    seed: int


@dataclass(frozen=True)
class MethodOutcome:
    """One method on one world.

    gold        mean true reward on held-out prompts, log-odds
    kl          nats from the reference
    length      characters of an answer
    samples     answers sampled and scored by the reward model in training
    per_answer  the same for every answer in use; 1 is sampled and not scored
    seconds     of CPU: training, or (best-of-n) one answer to every held-out prompt
    """

    gold: float
    kl: float
    length: float
    samples: int
    per_answer: int
    seconds: float


Method = Callable[[TradeoffWorld, TabularPolicy], MethodOutcome]


@dataclass(frozen=True)
class TrainedMethod:
    """A policy trained by an algorithm on the reward less β · KL.

    Args:
        algorithm: `PolicyModule` (RLOO), `PpoModule`, or another with the same arguments.
        beta: of the KL.
        learning_rate: of Adam.
        steps: rollouts. prompts, completions: per rollout.
    """

    algorithm: Callable[..., PolicyModule]
    beta: float
    learning_rate: float
    steps: int
    prompts: int
    completions: int

    def __call__(self, world: TradeoffWorld, policy: TabularPolicy) -> MethodOutcome:
        """Train, then evaluate."""
        begun = time.process_time()
        module = self.algorithm(
            policy, RewardSources(world.reward_source), Shaper(Fixed(self.beta), mean), early_stopping=None,
            completions=self.completions, optimizer=partial(torch.optim.Adam, lr=self.learning_rate), schedule=constant,
        )  # fmt: skip
        module.set_reward_scale([world.tasks[i % len(world.tasks)] for i in range(256)], world.seed)
        batches = draw_batches(world.tasks, self.steps, self.prompts, np.random.default_rng((world.seed, 5)))
        torch.manual_seed(world.seed)
        quick_trainer(self.steps).fit(module, batches)
        samples = self.steps * min(self.prompts, len(world.tasks)) * self.completions
        return _evaluated(world, policy, samples, time.process_time() - begun)


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

    def __call__(self, world: TradeoffWorld, policy: TabularPolicy) -> MethodOutcome:
        """Train, then evaluate."""
        begun = time.process_time()
        rollout = policy.recall(
            [r.prompt for r in world.records for _ in r.completions],
            [c.text for r in world.records for c in r.completions],
        )
        first, second, target = _targets(world.records)
        optimizer = torch.optim.Adam(policy.parameters(), lr=self.lr)
        ref = policy.ref_logp(rollout).sum(1).detach()
        for _ in range(self.steps):
            ratio = policy.logp(rollout).sum(1) - ref
            loss = dpo(torch.stack([ratio[first], ratio[second]], 1), target, beta=self.beta)
            optimizer.zero_grad()
            total: Any = (loss * target.weight).sum() / target.weight.sum()
            total.backward()
            optimizer.step()
        return _evaluated(world, policy, 0, time.process_time() - begun)


@dataclass(frozen=True)
class BestOfNMethod:
    """The reference, and of n answers the one with the highest mean reward.

    Args:
        n: answers per prompt.
        draws: times n answers are sampled per prompt; all choices of n of them count, so that the estimate is steadier.
    """

    n: int
    draws: int = 2

    def __call__(self, world: TradeoffWorld, policy: TabularPolicy) -> MethodOutcome:
        """Nothing is trained: sample, pick, evaluate."""
        begun = time.process_time()
        tasks, size = list(world.held_out), self.n * self.draws
        with isolated_seed(world.seed + 1):
            texts = list(policy.rollout(tasks, size, reference=True).completions.texts)
        prompts = [t.prompt for t in tasks for _ in range(size)]
        reward = world.reward_source.score(prompts, texts)[0].mean(0).view(len(tasks), size).double().numpy()
        seconds = (time.process_time() - begun) / self.draws
        known = np.array([world.gold(prompts, texts), [len(text) for text in texts]], dtype=np.float64)
        picked = [
            [float(best_of([self.n], own, value)[0]) for own, value in zip(reward, values, strict=True)]
            for values in known.reshape(2, len(tasks), size)
        ]
        gold, length = (float(np.mean(values)) for values in picked)
        return MethodOutcome(gold, math.log(self.n) - (self.n - 1) / self.n, length, 0, self.n, seconds)


def untrained(world: TradeoffWorld, policy: TabularPolicy) -> MethodOutcome:
    """The reference as it is."""
    return _evaluated(world, policy, 0, 0.0)


def _evaluated(world: TradeoffWorld, policy: TabularPolicy, samples: int, seconds: float) -> MethodOutcome:
    tasks = list(world.held_out)
    with isolated_seed(world.seed + 1):
        texts = list(policy.rollout(tasks, 1).completions.texts)
    domains = [t.domain for t in tasks]
    length = sum(map(len, texts)) / len(texts)
    return MethodOutcome(policy.expected_gold(domains), policy.kl(domains), length, samples, 1, seconds)


def _targets(records: Sequence[Comparison]) -> tuple[Tensor, Tensor, Target]:
    """Places of both completions of every labelled pair, and the pairs as targets of K = 2."""
    _, first, second, win, _, votes = zip(*labelled_pairs(records), strict=True)
    return torch.tensor(first), torch.tensor(second), pair_target(win, votes)
