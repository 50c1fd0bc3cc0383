"""The task `policy`: train on a shaped reward, watch, evaluate on held-out prompts, export."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from rlhf.collect.prompts import Task
from rlhf.optimise.policy.export import export_policy
from rlhf.optimise.policy.figures import draw_traces
from rlhf.optimise.policy.module import PolicyModule
from rlhf.optimise.policy.oversight import Oversight, read_votes, shares, win_rates, write_tasks
from rlhf.optimise.policy.prompts import PromptData, count_trimmed
from rlhf.optimise.policy.rollout import CausalRolloutPolicy, RolloutPolicy, isolated_seed
from rlhf.optimise.shaping.kl_controllers import load_controller
from rlhf.optimise.shaping.shape import explain
from rlhf.records.tables import write_csv
from rlhf.reward.checkpoint import load_weights
from rlhf.reward.files import log_end, note_wandb, write_json


@dataclass
class PolicyRun:
    """Everything one run needs; `rlhf.assemble` builds it from the configuration."""

    folder: Path
    data: PromptData
    module: PolicyModule
    trainer: pl.Trainer
    checkpoint: Path | None
    seed: int
    reference_samples: int
    eval_prompts: int
    oversight: Oversight | None = None
    previous: RolloutPolicy | None = None
    dry_run: bool = False


class AskPeople(pl.Callback):
    """Writes a blinded task file at set steps; see `rlhf.optimise.policy.oversight`."""

    def __init__(self, run: PolicyRun, oversight: Oversight) -> None:
        self.run, self.oversight = run, oversight

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        """After every `every`-th step."""
        if trainer.global_step % self.oversight.every == 0:
            tasks = overseen(self.run, self.oversight)
            said = ask_all(self.run, tasks, seed=self.oversight.seed + trainer.global_step)
            gold = self.run.module.reward_sources.gold
            folder = self.run.folder / "oversight"
            step = trainer.global_step
            if write_tasks(folder, step, tasks, said, seed=self.oversight.seed, gold=gold) is None:
                print(f"oversight at step {step}: all answers are alike, there is nothing to vote on")


def overseen(run: PolicyRun, oversight: Oversight) -> list[Task]:
    """The prompts that people are asked about."""
    return shares({split: run.data.prompts(split) for split in ("train", "val", "test")}, oversight.prompts)


def ask_all(run: PolicyRun, tasks: Sequence[Task], *, seed: int) -> dict[str, list[str]]:
    """What policy, reference and previous generation answer, each drawn with random numbers of its own.

    The training's random state is left alone.
    """
    policy: RolloutPolicy = run.module.policy
    with isolated_seed(seed):
        said = {
            "policy": list(policy.rollout(tasks, 1).completions.texts),
            "reference": list(policy.rollout(tasks, 1, reference=True).completions.texts),
        }
        if run.previous is not None:
            said["previous"] = list(run.previous.rollout(tasks, 1).completions.texts)
    return said


def train_policy(run: PolicyRun) -> dict[str, float]:
    """Leave in the run's folder: checkpoints, traces.csv and .png, metrics.json, oversight/, model/.

    Returns:
        The metrics of metrics.json: kl, reward, gold, ... on held-out prompts, for the policy and (`reference/`)
        before it; `prompts/train/trimmed` of `prompts/train/count`, ...
    """
    note_wandb(run.module, run.trainer)
    list(read_votes(run.folder / "oversight"))  # bad votes are refused before anything is trained
    tasks = run.data.prompts("train")
    groups = {"train": tasks, "evaluated": run.data.prompts("test")[: run.eval_prompts]}
    if run.oversight is not None:
        groups["oversight"] = overseen(run, run.oversight)
    prompts = count_trimmed(run.module.policy, groups)
    run.module.set_reward_scale([tasks[i % len(tasks)] for i in range(run.reference_samples)], run.seed)
    if run.dry_run:
        print(dry_run(run))
        return {}
    if run.oversight is not None:
        run.trainer.callbacks.append(AskPeople(run, run.oversight))  # type: ignore[attr-defined]
    checkpoint = str(run.checkpoint) if run.checkpoint else None
    run.trainer.fit(run.module, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    write_traces(run.folder / "traces.csv", run.module.trace)
    if run.trainer.interrupted:
        raise KeyboardInterrupt(f"stopped; go on with ckpt={run.folder}")
    metrics = {"steps": float(run.trainer.global_step)} | held_out(run) | prompts
    if run.module.warned is not None:
        print(
            f"early stopping at step {run.module.warned['step']}: {run.module.warned['reason']} "
            f"(where it stops the run, ckpt={run.folder} early_stopping.stop=false trains on)"
        )
        metrics["warned_at"] = float(run.module.warned["step"])
    if isinstance(run.module.policy, CausalRolloutPolicy):
        policy = run.module.policy
        metrics["export/difference"] = export_policy(policy.policy, policy.renderer, run.folder / "model")
    write_json(run.folder / "metrics.json", metrics)
    votes = {step: win_rates(records) for step, records in read_votes(run.folder / "oversight")}
    draw_traces(run.folder / "traces.png", run.module.trace, votes)
    log_end(run.trainer.loggers, metrics, run.folder, step=run.trainer.global_step)
    names = ("gold", "reward", "kl", "length")
    before = ", ".join(f"{n} {metrics[f'reference/{n}']:.2f}" for n in names if f"reference/{n}" in metrics)
    print(f"reference: {before}\npolicy:    " + ", ".join(f"{n} {metrics[n]:.2f}" for n in names if n in metrics))
    return metrics


def held_out(run: PolicyRun) -> dict[str, float]:
    """Columns of the trace on test prompts, one completion each, for the policy and for its reference."""
    tasks = run.data.prompts("test")[: run.eval_prompts]
    found: dict[str, float] = {}
    for prefix, reference in (("", False), ("reference/", True)):
        row, texts = run.module.measured(tasks, run.seed + 1, reference=reference)
        found |= {prefix + name: value for name, value in row.items()}
        if run.module.reward_sources.gold is not None:
            gold = np.array(run.module.reward_sources.gold([t.prompt for t in tasks], texts))
            found[f"{prefix}gold/error"] = float(gold.std(ddof=1) / np.sqrt(len(gold)))
    return found | {"eval_prompts": float(len(tasks))}


def dry_run(run: PolicyRun) -> str:
    """One completion, its reward term by term; of the policy in `checkpoint`, where there is one."""
    who = "the reference itself, before any step: its KL is 0 by construction; ckpt=<run> shows a trained one"
    if run.checkpoint is not None:
        stored = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
        run.module.same_algorithm(stored)
        load_weights(run.module, run.checkpoint)
        load_controller(run.module.shaper.controller, stored["controller"])
        who = f"{run.checkpoint}, after {stored['global_step']} steps"
    tasks = run.data.prompts("train")[:2]
    with isolated_seed(run.seed):
        rollout = run.module.policy.rollout(tasks, max(2, run.module.completions))
    logp = run.module.policy.logp(rollout).detach()
    shaped, row = run.module.score_rollout(rollout, tasks, logp)
    tokens = [""] * rollout.mask.shape[1]
    if isinstance(run.module.policy, CausalRolloutPolicy):
        tokenizer: Any = run.module.policy.renderer.tokenizer
        tokens = [tokenizer.decode([i]) for i in rollout.completions.tokens[0].tolist()]
    cut = ", which the policy reads without its beginning" if run.module.policy.trimmed(tasks[:1]) else ""
    head = f"policy: {who}\nprompt{cut}: {tasks[0].prompt}\ncompletion: {rollout.completions.texts[0]}\n"
    batch = json.dumps({k: round(v, 4) for k, v in row.items()})
    return f"{head}{explain(shaped, 0, tokens, rollout.mask)}\nbatch: {batch}"


def write_traces(path: Path, trace: Sequence[Mapping[str, float]]) -> None:
    """One row per step."""
    if trace:
        write_csv(path, trace)


def quick_trainer(steps: int, loggers: Sequence[Any] = ()) -> pl.Trainer:
    """A trainer of so many steps that writes nothing but what its loggers are told."""
    return pl.Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=list(loggers) or False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
    )  # fmt: skip
