"""The LightningModule that trains a policy on a shaped reward with RLOO: one batch of prompts, one rollout, one step.

REINFORCE with a leave-one-out baseline (RLOO; Kool et al. 2019, Ahmadian et al. 2024): a completion is one action, G of
them per prompt, each with its shaped reward R. With A_i = R_i - mean_{j≠i} R_j the gradient of
-mean_i A_i · log π(y_i | x) is an unbiased estimate of -∇E[R], also where R holds -β · k1.
`rlhf.optimise.policy.ppo_module` makes more of a rollout.

Traces (one row per step; `traces.csv`, and under `train/` in the loggers):
    reward        mean score of the completions: members aggregated, in standard deviations on the reference's samples
    shaped        mean of what is trained on: reward with uncertainty, rules, clip and KL
    gold          mean true reward, where it is known
    watch         mean of a second reward model that is not trained on, where there is one
    kl, kl_error  nats per completion, summed over its tokens, k1; its standard error
    kl_k2, kl_k3  the same by the other estimators: biased and of small variance; unbiased and never negative
    beta, disagreement (std over members), distance (Mahalanobis, 1 = reference), length (characters), ended,
    group_std (within a prompt), flat_groups (prompts all of whose rewards are equal: they teach nothing)
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf.collect.prompts import Task
from rlhf.optimise.policy.early_stopping import StoppingRule
from rlhf.optimise.policy.rollout import Rollout, RolloutPolicy, isolated_seed
from rlhf.optimise.shaping.ensemble import spread
from rlhf.optimise.shaping.kl_controllers import controller_state_of, load_controller
from rlhf.optimise.shaping.reward_source import ProxyReward, RewardSource, RunReward
from rlhf.optimise.shaping.shape import ShapedReward, k2, k3, sequence_kl
from rlhf.optimise.shaping.shaper import Shaper
from rlhf.records import Prompt, RecordError
from rlhf.reward.resumable import ResumableModule

Gold = Callable[[Sequence[Prompt], Sequence[str]], list[float]]
Trace = dict[str, float]


@dataclass(frozen=True)
class RewardSources:
    """The rewards: the proxy that is trained on, a second one to watch, and the truth where it is known."""

    proxy: RewardSource
    watch: RewardSource | None = None
    gold: Gold | None = None

    def to(self, device: torch.device) -> None:
        """Reward models score where the policy is trained."""
        for source in (self.proxy, self.watch):
            if isinstance(source, RunReward):
                source.to(device)


class PolicyModule(ResumableModule):
    """Trains a policy.

    Args:
        policy: policy and reference.
        reward_sources: what rewards.
        shaper: members and log-probabilities to the shaped reward.
        completions: per prompt, >= 2: RLOO compares them.
        early_stopping: when to stop early; None = never.
        options: of `ResumableModule`.
    """

    least = 2

    def __init__(
        self, policy: Any, reward_sources: RewardSources, shaper: Shaper, *, completions: int,
        early_stopping: StoppingRule | None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(**options)
        self.check_completions(completions)
        self.policy: Any = policy
        self.reward_sources, self.shaper = reward_sources, shaper
        self.completions, self.early_stopping = completions, early_stopping
        self.proxy: ProxyReward | None = None
        self.watch: ProxyReward | None = None
        self.trace: list[Trace] = []
        self.warned: dict[str, Any] | None = None
        self.reference: Trace = {}

    @classmethod
    def check_completions(cls, completions: int, key: str = "task.completions") -> None:
        """Raise RecordError for fewer completions per prompt than `least`."""
        if completions < cls.least:
            raise RecordError(
                f"{completions} must be {cls.least} or more per prompt", key=key,
                remedy="RLOO compares them; algorithm=ppo does not" if cls.least > 1 else "",
            )  # fmt: skip

    def set_reward_scale(self, tasks: Sequence[Task], seed: int) -> None:
        """Set the scale of the rewards on samples of the reference, one per task; leaves the random state alone.

        `reference` then holds what the columns of the trace are on these samples. Raises ValueError where early
        stopping looks at what is not measured.
        """
        with isolated_seed(seed):
            rollout = self.policy.rollout(tasks, 1, reference=True)
        texts, prompts = list(rollout.completions.texts), [task.prompt for task in tasks]
        self.proxy = ProxyReward(self.reward_sources.proxy, prompts, texts)
        watch = self.reward_sources.watch
        self.watch = None if watch is None else ProxyReward(watch, prompts, texts)
        self.reference = self.score_rollout(rollout, tasks, self.policy.ref_logp(rollout))[1]
        if self.early_stopping is not None:
            self.early_stopping.check(self.reference)

    def on_fit_start(self) -> None:
        """The reward models follow the policy to its device."""
        self.reward_sources.to(self.device)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """A batch is prompts: there is nothing to move."""
        return batch

    def training_step(self, tasks: list[Task], batch_idx: int) -> Float[Tensor, ""]:
        """Roll out, shape, and the RLOO loss."""
        self.restore_random_state()
        policy: RolloutPolicy = self.policy
        self.policy.eval()  # dropout would make the sampled and the trained distribution two
        rollout = policy.rollout(tasks, self.completions)
        logp = policy.logp(rollout)
        shaped, row = self.score_rollout(rollout, tasks, logp.detach())
        per_prompt = (len(tasks), self.completions)
        total = torch.where(rollout.mask, logp, 0.0).sum(1)
        loss = rloo_loss(total.view(per_prompt), shaped.seq_reward.view(per_prompt))
        self.shaper.controller.update(row["kl"], len(total))
        self._note(row, shaped.seq_reward.view(per_prompt), len(tasks))
        return loss

    def score_rollout(self, rollout: Rollout, tasks: Sequence[Task], logp: Tensor) -> tuple[ShapedReward, Trace]:
        """The shaped reward of a rollout, and its row of the trace."""
        assert self.proxy is not None, "set_reward_scale() comes first"
        texts = rollout.completions.texts
        prompts = [tasks[i].prompt for i in rollout.group.tolist()]
        members, distance = self.proxy(prompts, texts)
        ref_logp = self.policy.ref_logp(rollout)
        domains = [task.domain for task in tasks]
        shaped = self.shaper(
            members.to(logp.device), logp, ref_logp, rollout.mask, rollout.completions, rollout.group, domains
        )
        kl = sequence_kl(logp, ref_logp, rollout.mask)
        row = {
            "reward": float(self.shaper.aggregate(members)[0].mean()),
            "shaped": float(shaped.seq_reward.mean()),
            "kl": float(kl.mean()),
            "kl_error": float(kl.std() / len(kl) ** 0.5),
            "kl_k2": float(sequence_kl(logp, ref_logp, rollout.mask, k2).mean()),
            "kl_k3": float(sequence_kl(logp, ref_logp, rollout.mask, k3).mean()),
            "beta": float(shaped.beta.mean()),
            "disagreement": float(spread(members).mean()),
            "distance": float(distance.mean()),
            "length": sum(map(len, texts)) / len(texts),
            "ended": float(rollout.completions.ended.float().mean()),
        }
        if self.reward_sources.gold is not None:
            row["gold"] = sum(self.reward_sources.gold(prompts, texts)) / len(texts)
        if self.watch is not None:
            row["watch"] = float(self.watch(prompts, texts).members.mean())
        return shaped, row

    def measured(self, tasks: Sequence[Task], seed: int, *, reference: bool = False) -> tuple[Trace, Sequence[str]]:
        """The columns of the trace on one completion per prompt, and these; leaves the random state alone."""
        with isolated_seed(seed):
            rollout = self.policy.rollout(tasks, 1, reference=reference)
        logp = self.policy.ref_logp(rollout) if reference else self.policy.logp(rollout).detach()
        return self.score_rollout(rollout, tasks, logp)[1], rollout.completions.texts

    def _note(self, row: Trace, reward: Tensor, size: int) -> None:
        within = reward.std(1) if reward.shape[1] > 1 else torch.zeros(len(reward))
        row |= {"group_std": float(within.mean()), "flat_groups": float((within == 0).float().mean())}
        if row["kl"] < -3 * row["kl_error"] - 1e-6:
            warnings.warn(
                f"the KL estimate is {row['kl']:.3f} nats, more than 3 standard errors below 0: samples and "
                "log-probabilities are not of the same distribution",
                stacklevel=2,
            )
        self.trace.append({"step": float(self.trainer.global_step)} | row)
        self.log_dict({f"train/{name}": value for name, value in row.items()}, batch_size=size)
        shown: Trace = {name: row[name] for name in ("kl", "reward", "gold") if name in row}
        self.log_dict(shown, batch_size=size, prog_bar=True)
        rule = self.early_stopping
        if rule is not None and self.warned is None and (reason := rule(self.trace, self.reference)):
            self.warned = {"step": len(self.trace), "reason": reason}
            self.trainer.should_stop |= rule.stop

    def on_train_start(self) -> None:
        """A run that was stopped early stays stopped, for as long as `early_stopping.stop` holds."""
        if self.warned is not None and self.early_stopping is not None:
            self.trainer.should_stop |= self.early_stopping.stop

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also the controller, the trace and why it stopped."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["controller"] = controller_state_of(self.shaper.controller)
        checkpoint["trace"], checkpoint["warned"] = self.trace, self.warned

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The same back."""
        self.same_algorithm(checkpoint)
        super().on_load_checkpoint(checkpoint)
        load_controller(self.shaper.controller, checkpoint["controller"])
        self.trace, self.warned = list(checkpoint["trace"]), checkpoint["warned"]

    def same_algorithm(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise RecordError for a checkpoint of another task or algorithm."""
        valued = any(name.startswith("value.") for name in checkpoint["state_dict"])
        if "controller" not in checkpoint or valued != hasattr(self, "value"):
            found = "another task" if "controller" not in checkpoint else ("rloo", "ppo")[valued]
            remedy = "a run of task=policy" if "controller" not in checkpoint else f"algorithm={found}"
            raise RecordError(
                f"its checkpoint is of {found}, not of this algorithm", key="ckpt",
                remedy=f"{remedy}, or start anew from its model: model=local model.path=<run>/model",
            )  # fmt: skip


def advantages(reward: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """A_i = R_i - mean of the others of the prompt; a group with a reward that is not finite teaches nothing (0).

    Raises:
        ValueError: fewer than two completions per prompt: nobody to compare with.
    """
    size = reward.shape[-1]
    if size < 2:
        raise ValueError(f"RLOO needs at least 2 completions per prompt, got {size}: task.completions=4")
    others = (reward.sum(-1, keepdim=True) - reward) / (size - 1)
    sound = torch.isfinite(reward).all(-1, keepdim=True)
    return torch.where(sound, reward - others, 0.0).detach()


def rloo_loss(logp: Float[Tensor, "P G"], reward: Float[Tensor, "P G"]) -> Float[Tensor, ""]:
    """-mean of A · log π over prompts and completions.

    Args:
        logp: log-probability of every completion: summed over its tokens, with gradient.
        reward: shaped reward of every completion, without gradient.
    """
    return -(advantages(reward) * logp).mean()
