"""One generation of iterated RLHF: two reward models, a policy trained on one of them, its numbers when evaluated."""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from rlhf.collect.decoding import Decoding, Same, Sampler
from rlhf.collect.filtering import Filtering
from rlhf.collect.prompts import Task
from rlhf.optimise.iterate.pair_selection import PairSelection, SelectPairs
from rlhf.optimise.iterate.progress import EveryStep, Progress
from rlhf.optimise.limits import check_oversight
from rlhf.optimise.policy.early_stopping import StoppingRule
from rlhf.optimise.policy.module import Gold, PolicyModule, RewardSources, Trace
from rlhf.optimise.policy.prompts import draw_batches
from rlhf.optimise.policy.train import quick_trainer, write_traces
from rlhf.optimise.shaping.kl_controllers import controller_state_of, load_controller
from rlhf.optimise.shaping.reward_source import RewardSource
from rlhf.optimise.shaping.shaper import Shaper
from rlhf.records import Comparison, prompt_hash
from rlhf.reward.checkpoint import check_loaded, drop_frozen
from rlhf.stats.t_interval import t_interval

WHOLE = Same(Decoding(temperature=1.0, top_p=1.0))
RewardLearner = Callable[[Sequence[Comparison], int], RewardSource]
"""`(records with votes, seed) -> reward model`."""
Annotate = Callable[[Iterable[Comparison]], Iterable[Comparison]]


@dataclass(frozen=True)
class IteratePlan:
    """The numbers of a loop.

    Args:
        generations: policies trained one after the other.
        steps: of RLOO per generation. prompts, completions: per step.
        samples: prompts that a generation's policy answers for the next reward model; k: completions of each.
        labelled: pairs of these answers that are voted on.
        update_reward: False trains every generation on the first reward model.
        reference_samples: completions that set the scale of the reward.
        eval_prompts: held-out prompts behind the numbers at the end, at most.
        oversight: other held-out prompts, of the task file for people; votes on them train the next reward model.
    """

    generations: int = 3
    steps: int = 80
    prompts: int = 16
    completions: int = 4
    samples: int = 150
    k: int = 3
    labelled: int = 100
    update_reward: bool = True
    reference_samples: int = 256
    eval_prompts: int = 300
    oversight: int = 30


@dataclass
class Loop:
    """Everything the loop needs.

    Args:
        folder: of the run.
        policy: policy and (fixed) reference.
        start: records with votes, from the reference.
        tasks: prompts to train on; held_out: prompts to evaluate and to oversee with, never the same ones for both.
        reward_learner: records to a reward model.
        shaper: fresh, its controller at the start; it goes on through the generations.
        optimizing: options of `PolicyModule`: optimizer, schedule, weight decay.
        plan: how much of everything.
        trainer: `(steps) -> Trainer`.
        pair_selection: which pairs of sampled answers are voted on.
        gold: true rewards, where known.
        sampler: how answers for the next reward model are decoded, as in sample.py.
        filtering: of sampled completions.
        label_source: casts the votes; None = people do.
        algorithm: `PolicyModule` (RLOO) or one with its arguments; what it learns beside the policy starts anew with
            every generation.
        early_stopping: inside a generation; None = never.
        seed: of everything.
        progress: is told every step and generation.
    """

    folder: Path
    policy: Any
    start: Sequence[Comparison]
    tasks: Sequence[Task]
    held_out: Sequence[Task]
    reward_learner: RewardLearner
    shaper: Shaper
    optimizing: dict[str, Any]
    plan: IteratePlan = IteratePlan()
    trainer: Callable[[int], Any] = quick_trainer
    pair_selection: SelectPairs = field(default_factory=PairSelection)
    gold: Gold | None = None
    sampler: Sampler = WHOLE
    filtering: Callable[[], Filtering] = Filtering
    label_source: Annotate | None = None
    algorithm: Callable[..., PolicyModule] = PolicyModule
    early_stopping: StoppingRule | None = None
    seed: int = 0
    progress: Progress = field(default_factory=Progress)
    trace: list[Trace] = field(default_factory=list, init=False)
    starts: list[int] = field(default_factory=list, init=False)
    stopped: list[int] = field(default_factory=list, init=False)
    stop_reasons: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        check_oversight(self.plan.oversight, len(self.held_out))

    @property
    def overseen(self) -> list[Task]:
        """Held-out prompts of the oversight: the last ones."""
        return list(self.held_out[len(self.held_out) - self.plan.oversight :])

    @property
    def eval_tasks(self) -> list[Task]:
        """Held-out prompts behind the numbers; no reward model learns from votes on them."""
        return list(self.held_out[: len(self.held_out) - self.plan.oversight][: self.plan.eval_prompts])


def reward_sources_of(loop: Loop, records: Sequence[Comparison]) -> RewardSources:
    """Two reward models on disjoint halves of the prompts: one is optimised, the other watched."""
    halves: tuple[list[Comparison], list[Comparison]] = ([], [])
    for record in records:
        halves[int(prompt_hash(record.prompt), 16) % 2].append(record)
    proxy, watch = (loop.reward_learner(half, loop.seed + i) for i, half in enumerate(halves))
    return RewardSources(proxy, watch, loop.gold)


def module_of(loop: Loop, reward_sources: RewardSources, number: int) -> PolicyModule:
    """The module of a generation, its rewards scaled on samples of the reference."""
    module = loop.algorithm(
        loop.policy, reward_sources, loop.shaper, completions=loop.plan.completions,
        early_stopping=loop.early_stopping, **loop.optimizing,
    )  # fmt: skip
    tasks = [loop.tasks[i % len(loop.tasks)] for i in range(loop.plan.reference_samples)]
    module.set_reward_scale(tasks, loop.seed + number)
    return module


def exact_gold(policy: Any, tasks: Sequence[Task], *, reference: bool = False) -> float | None:
    """Mean gold reward over prompts, without sampling; None where the policy does not know it (`expected_gold`)."""
    known = getattr(policy, "expected_gold", None)
    return None if known is None else float(known([task.domain for task in tasks], reference=reference))


class ExactGold(pl.Callback):
    """Adds `exact_gold` to the rows of the trace: that of the policy on whose samples the step is taken.

    Its mean is over `tasks`, held-out prompts that evaluate; nobody votes on answers to them.
    """

    def __init__(self, policy: Any, tasks: Sequence[Task]) -> None:
        self.policy, self.tasks = policy, tasks
        self.now = exact_gold(policy, tasks)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        """After a step: what was known before it."""
        if self.now is not None:
            pl_module.trace[-1]["exact_gold"] = self.now  # type: ignore[index]
            self.now = exact_gold(self.policy, self.tasks)


def optimise(loop: Loop, module: PolicyModule, number: int) -> None:
    """The steps of the generation; the trace gets `exact_gold` where it is known."""
    rng = np.random.default_rng((loop.seed, 7, number))
    batches = draw_batches(loop.tasks, loop.plan.steps, loop.plan.prompts, rng)
    torch.manual_seed(loop.seed * 1009 + number)
    trainer = loop.trainer(loop.plan.steps)
    trainer.callbacks += [ExactGold(loop.policy, loop.eval_tasks), EveryStep(loop.progress, len(loop.trace))]
    trainer.fit(module, batches)


def save(loop: Loop, module: PolicyModule, folder: Path) -> None:
    """Leave the trace and the policy, without what was frozen."""
    write_traces(folder / "trace.csv", module.trace)
    state = {
        "speaker": drop_frozen(loop.policy, loop.policy.state_dict()),
        "controller": controller_state_of(loop.shaper.controller),
        "warned": module.warned is not None,
        "reason": _reason(module),
    }
    torch.save(state, folder / "policy.pt")
    _extend(loop, module.trace, _reason(module))


def load(loop: Loop, folder: Path) -> bool:
    """Take a finished generation's policy and trace; False where there is none."""
    if not (folder / "policy.pt").is_file():
        return False
    state = torch.load(folder / "policy.pt", weights_only=True)
    missing, unexpected = loop.policy.load_state_dict(state["speaker"], strict=False)
    check_loaded(loop.policy, missing, unexpected)
    load_controller(loop.shaper.controller, state["controller"])
    with (folder / "trace.csv").open(encoding="utf-8") as file:
        trace = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    _extend(loop, trace, state.get("reason") or ("stopped" if state["warned"] else ""))
    return True


def evaluated(loop: Loop, module: PolicyModule, *, reference: bool = False) -> Trace:
    """The columns of the trace on held-out prompts, one completion each; `gold` with its 95% interval over prompts."""
    tasks = loop.eval_tasks
    row, texts = module.measured(tasks, loop.seed + 1, reference=reference)
    if loop.gold is not None:
        values = np.array(loop.gold([task.prompt for task in tasks], texts))
        row["gold/low"], row["gold/high"] = map(float, t_interval(values)) if len(values) > 1 else (math.nan, math.nan)
    exact = exact_gold(loop.policy, tasks, reference=reference)
    return row if exact is None else row | {"exact_gold": exact}


def _reason(module: PolicyModule) -> str:
    return f"step {module.warned['step']}: {module.warned['reason']}" if module.warned else ""


def _extend(loop: Loop, trace: Sequence[Trace], reason: str) -> None:
    start = len(loop.trace)
    loop.starts.append(start)
    loop.trace += [row | {"step": float(start + i)} for i, row in enumerate(trace)]
    loop.stop_reasons.append(reason)
    if reason:
        loop.stopped.append(len(loop.trace))
