"""`algorithm=ppo`: proximal policy optimisation (PPO; Schulman et al. 2017): several clipped passes over every rollout.

Tokens are the actions, a learned value is the baseline. With the ratio to the policy that sampled the rollout
ρ_t = π(y_t | s_t) / π_old(y_t | s_t),

    L = -mean over completions of Σ_t min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε) A_t)

Before the first step ρ = 1, and ∇L is the policy gradient -Σ_t A_t ∇log π. Generalised advantages (GAE; Schulman et al.
2016), without discount unless γ says so, V = 0 after the last token:

    δ_t = r_t + γ V_{t+1} - V_t,    A_t = δ_t + γλ A_{t+1}

λ = 1 gives the return less V_t (unbiased whatever V is), λ = 0 the TD error δ_t. A completion of one
action, as a bandit's, has A = r - V for every λ.

Advantages are not whitened, as TRL does: where β·KL is in the reward, the shaped reward of the optimal policy
π_ref · exp(r/β) is the same for all completions, and dividing by its standard deviation would leave noise of size 1.

A step is one rollout, as by RLOO: `task.steps`, checkpoints, schedules and oversight count rollouts. All gradient steps
of a rollout but the last are taken inside the training step, the last one by Lightning. Traces, beside those of
`rlhf.optimise.policy.module`:
    clipped          share of tokens whose gradient the clip removed, over all passes
    moved            nats per completion between the sampling policy and the last pass, k3
    value_loss       mean of (V - target)² / 2 over tokens, before the first pass
    value_explained  1 - var(target - V) / var(target), before the first pass
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from rlhf.collect.prompts import Task
from rlhf.optimise.policy.module import PolicyModule
from rlhf.optimise.policy.rollout import Rollout
from rlhf.optimise.shaping.shape import k3, sequence_kl
from rlhf.records import RecordError
from rlhf.reward.schedule import parameter_groups


class Advantages(NamedTuple):
    """advantage [B, T] and what values are to become, advantage + value [B, T]; without gradient, 0 where masked."""

    advantage: Float[Tensor, "B T"]
    target: Float[Tensor, "B T"]


@torch.no_grad()
def gae(
    reward: Float[Tensor, "B T"], value: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], *, lam: float,
    gamma: float = 1.0,
) -> Advantages:  # fmt: skip
    """Generalised advantages. Masked places are not steps: the next step of a token is the next unmasked one.

    Args:
        reward: of every token, as `ShapedReward.token_rewards`.
        value: expected sum of the rewards of this and all later tokens, given what stands before the token.
        mask: True on the completion's tokens.
        lam: λ in 0..1. gamma: γ in 0..1, per token.

    Raises:
        ValueError: λ or γ outside 0..1.
    """
    if not (0 <= lam <= 1 and 0 <= gamma <= 1):
        raise ValueError(f"algorithm.lam={lam}, gamma={gamma}: both lie in 0..1")
    running, later = torch.zeros_like(value[:, 0]), torch.zeros_like(value[:, 0])
    advantage = torch.zeros_like(value)
    for t in reversed(range(value.shape[1])):
        unmasked = mask[:, t]
        error = reward[:, t] + gamma * later - value[:, t]
        running = torch.where(unmasked, error + gamma * lam * running, running)
        later = torch.where(unmasked, value[:, t], later)
        advantage[:, t] = torch.where(unmasked, running, 0.0)
    return Advantages(advantage, advantage + torch.where(mask, value, 0.0))


class Surrogate(NamedTuple):
    """loss with gradient; clipped: share of the tokens whose gradient the clip removed."""

    loss: Float[Tensor, ""]
    clipped: Float[Tensor, ""]


def clipped_surrogate(
    logp: Float[Tensor, "B T"], old_logp: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"], *, clip: float,
) -> Surrogate:  # fmt: skip
    """The clipped surrogate loss, summed over tokens, averaged over completions.

    The clip removes the gradient of a token where ρ > 1 + ε and A > 0, or ρ < 1 - ε and A < 0: where the step would
    lead further away. On the other sides the gradient stays, and leads back.

    Args:
        logp: log-probabilities under the policy, with gradient.
        old_logp: under the policy that sampled, without gradient.
        advantage: of every token.
        mask: True on the completion's tokens; anything may stand elsewhere.
        clip: ε > 0.

    Raises:
        ValueError: ε is not positive.
    """
    if not clip > 0:
        raise ValueError(f"algorithm.clip={clip:g} must be positive: with 0 nothing is learned")
    apart = torch.where(mask, logp, 0.0) - torch.where(mask, old_logp, 0.0)
    ratio, gain = apart.exp(), torch.where(mask, advantage, 0.0)
    free, held = ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain
    loss = -torch.minimum(free, held).sum(1).mean()
    return Surrogate(loss, ((held < free) & mask).sum() / mask.sum().clamp(min=1))


class ValueHead(nn.Module):
    """V(s) = w · s + b, 0 at the start: rewards have mean 0 on the reference, so that is the right value there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: Float[Tensor, "B T H"]) -> Float[Tensor, "B T"]:
        """A value before every token."""
        value: Tensor = self.linear(states.float())[..., 0]
        return value


@dataclass(frozen=True)
class Experience:
    """A rollout with everything its passes need, without gradient.

    old_logp [B, T]   under the policy that sampled
    states [B, T, H]  before every token
    advantage, target [B, T]   of `rlhf.optimise.policy.ppo_module.gae`
    """

    rollout: Rollout
    old_logp: Float[Tensor, "B T"]
    states: Float[Tensor, "B T H"]
    advantage: Float[Tensor, "B T"]
    target: Float[Tensor, "B T"]


class PpoModule(PolicyModule):
    """Trains a policy by PPO, and a value head on the policy's states; their gradients do not mix.

    The head is in the checkpoints, so that a resumed run goes on bit for bit, and not in the exported policy.

    Args:
        policy, sources, options: as in `PolicyModule`, reward sources and shaper among them.
        completions: per prompt, >= 1: values are the baseline, a completion needs no others to be compared with.
        epochs: passes over every rollout.
        minibatches: gradient steps per pass.
        clip: ε of the ratio.
        lam: λ of the advantages.
        value_lr: peak learning rate of the value head.

    Raises:
        RecordError: epochs or minibatches below 1.
    """

    least = 1

    def __init__(
        self, policy: Any, *sources: Any, epochs: int = 4, minibatches: int = 4, clip: float = 0.2, lam: float = 1.0,
        value_lr: float = 1e-3, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(policy, *sources, **options)
        if epochs < 1 or minibatches < 1:
            raise RecordError(f"epochs={epochs}, minibatches={minibatches}: both are at least 1", key="algorithm")
        self.epochs, self.minibatches, self.clip, self.lam = epochs, minibatches, clip, lam
        self.value_lr = value_lr
        self.value = ValueHead(policy.width)

    def groups(self) -> list[dict[str, Any]]:
        """The policy's groups, and the value head with its own learning rate and no decay."""
        head = {"params": list(self.value.parameters()), "weight_decay": 0.0, "lr": self.value_lr}
        return [*parameter_groups(self.policy, self.weight_decay), head]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """The policy's norm and the value head's apart: a bad value must not make the policy's step small."""
        if gradient_clip_val:
            for part in (self.policy, self.value):
                clip_grad_norm_(part.parameters(), gradient_clip_val)

    def on_train_start(self) -> None:
        """Refuse settings under which the inner steps would be wrong.

        Raises:
            RecordError: several processes, accumulated batches, or a precision that scales the loss.
        """
        super().on_train_start()
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        for wrong, remedy in (
            (self.trainer.world_size > 1, "one process: trainer.devices=1, or algorithm=rloo"),
            (self.trainer.accumulate_grad_batches > 1, "trainer.accumulate_grad_batches=1, and more task.prompts"),
            (scaler is not None, "trainer.precision=bf16-mixed or 32-true"),
        ):
            if wrong:
                raise RecordError("ppo takes gradient steps of its own", key="algorithm", remedy=remedy)

    def training_step(self, tasks: list[Task], batch_idx: int) -> Float[Tensor, ""]:
        """Roll out, shape, and pass over it; the loss of the last minibatch is left to Lightning."""
        self.restore_random_state()
        self.policy.eval()  # dropout would make the ratio another number than 1 before the first step
        batch, reward, row = self._experience(tasks)
        size = len(batch.old_logp)
        parts = [rows for _ in range(self.epochs) for rows in torch.randperm(size).chunk(self.minibatches)]
        parts = [rows.to(batch.old_logp.device) for rows in parts]
        clipped = []
        for rows in parts[:-1]:
            loss, share, _ = self._pass(batch, rows)
            clipped.append(share)
            self._inner_step(loss)
        loss, share, moved = self._pass(batch, parts[-1])
        row |= {"clipped": float(torch.stack([*clipped, share]).mean()), "moved": float(moved)}
        self.shaper.controller.update(row["kl"], size)
        self._note(row, reward.view(len(tasks), self.completions), len(tasks))
        return loss

    @torch.no_grad()
    def _experience(self, tasks: Sequence[Task]) -> tuple[Experience, Float[Tensor, " B"], dict[str, float]]:
        rollout = self.policy.rollout(tasks, self.completions)
        old_logp, states = self.policy.logp(rollout), self.policy.states(rollout)
        shaped, row = self.score_rollout(rollout, tasks, old_logp)
        value, mask = self.value(states), rollout.mask
        advantage, target = gae(shaped.token_rewards, value, mask, lam=self.lam)
        error, spread = (target - value)[mask], target[mask].var(correction=0)
        row["value_loss"] = float(error.square().mean() / 2)
        row["value_explained"] = float(1 - error.var(correction=0) / spread.clamp(min=1e-8))
        return Experience(rollout, old_logp, states, advantage, target), shaped.seq_reward, row

    def _pass(self, batch: Experience, rows: Int[Tensor, " N"]) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of some completions, the share of clipped tokens, nats from the policy that sampled."""
        mask: Bool[Tensor, "N T"] = batch.rollout.mask[rows]
        logp, old_logp = self.policy.logp(batch.rollout, rows), batch.old_logp[rows]
        surrogate = clipped_surrogate(logp, old_logp, batch.advantage[rows], mask, clip=self.clip)
        error = (self.value(batch.states[rows]) - batch.target[rows])[mask]
        # samples are of the old policy, so its log-probabilities come first
        moved = sequence_kl(old_logp, logp.detach(), mask, k3).mean()
        return surrogate.loss + error.square().mean() / 2, surrogate.clipped.detach(), moved

    def _inner_step(self, loss: Tensor) -> None:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.configure_gradient_clipping(optimizer, self.trainer.gradient_clip_val)
        optimizer.step()
        torch.clear_autocast_cache()  # else the next pass sees the weights before this step
