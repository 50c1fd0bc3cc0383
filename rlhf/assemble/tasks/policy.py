"""`task=policy`: configuration to objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import hydra
from omegaconf import DictConfig

from rlhf.assemble.checks.paths import check_folders, listed
from rlhf.assemble.checks.rollouts import check_completions, check_policy_adapter, check_rollouts
from rlhf.assemble.resume import checkpoint_to_go_on_from
from rlhf.assemble.tasks.reward import renderer_of, run_folder, trainer_of
from rlhf.assemble.tasks.tuning import optimizing, policy_of
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.optimise.policy.train import PolicyRun


def policy_run(cfg: DictConfig) -> PolicyRun:
    """What `task=policy` needs.

    Raises:
        RecordError: fewer completions than the algorithm needs, no reward model is named, a named one is not there, or
            `shaping` names a domain that no prompt has.
    """
    check_policy(cfg)
    from rlhf.optimise.policy.module import RewardSources
    from rlhf.optimise.policy.prompts import PromptData
    from rlhf.optimise.policy.train import PolicyRun
    from rlhf.optimise.shaping.kl_controllers import check_domains
    from rlhf.optimise.shaping.reward_source import RunReward

    check_completions(cfg.algorithm, cfg.task.completions, "task.completions")
    folder = run_folder()
    checkpoint = checkpoint_to_go_on_from(cfg, folder)
    source = hydra.utils.instantiate(cfg.data)
    splitter = hydra.utils.instantiate(cfg.split)
    data = PromptData(source.records(), splitter, batch_size=cfg.task.prompts, seed=cfg.seed)
    shaper = hydra.utils.instantiate(cfg.shaping, _convert_="all")
    check_domains(shaper.controller, {task.domain for tasks in data.tasks.values() for task in tasks.values()})
    policy = _rollout_policy(cfg)
    trainer = trainer_of(cfg, folder, checkpoint, steps=cfg.task.steps)
    on, watch = trainer.strategy.root_device, listed(cfg.task.watch)
    gold = hydra.utils.instantiate(cfg.task.gold)
    reward_sources = RewardSources(
        RunReward(listed(cfg.reward), device=on),
        RunReward(watch, device=on) if watch else None,
        gold(source) if gold is not None else None,
    )
    module = hydra.utils.instantiate(cfg.algorithm)(
        policy,
        reward_sources,
        shaper,
        completions=cfg.task.completions,
        early_stopping=hydra.utils.instantiate(cfg.early_stopping, _convert_="all"),
        **optimizing(cfg),
    )
    previous = _rollout_policy(cfg, str(cfg.task.previous)).eval() if cfg.task.previous else None
    return PolicyRun(
        folder, data, module, trainer, checkpoint, cfg.seed, cfg.task.reference_samples, cfg.task.eval_prompts,
        oversight=hydra.utils.instantiate(cfg.task.oversight), previous=previous, dry_run=cfg.task.dry_run,
    )  # fmt: skip


def check_policy(cfg: DictConfig) -> None:
    """Refuse what is not there before anything is loaded. Raises RecordError."""
    if not listed(cfg.reward):
        raise RecordError("task=policy needs a reward model", key="reward", remedy="reward=<run folder>")
    check_folders(listed(cfg.reward), "reward", "rlhf.json", "a run of task=reward")
    check_folders(listed(cfg.task.watch), "task.watch", "rlhf.json", "a run of task=reward")
    if cfg.task.previous:
        check_folders([cfg.task.previous], "task.previous", "config.json", "task=sft, dpo or policy")
    check_policy_adapter(cfg)
    check_rollouts(cfg)


def gold_of(source: Any) -> Any:
    """Gold rewards of texts where the source knows them; None elsewhere."""
    return source.gold_rewards() if hasattr(source, "gold_rewards") else None


@dataclass(frozen=True)
class LanguagePolicySource:
    """`policy=language`: the language model that the groups `model` and `adapter` name.

    Args:
        decoding: in training, of the whole distribution.
        max_new_tokens: of a completion.
    """

    decoding: Any
    max_new_tokens: int
    exact_gold: ClassVar[bool] = False

    def __call__(self, gold: Any, language_model: Callable[..., Any]) -> Any:
        """The policy; true rewards are not asked for."""
        return language_model(decoding=self.decoding, max_new_tokens=self.max_new_tokens)


def causal_rollout_policy(
    cfg: DictConfig, *, decoding: Any, max_new_tokens: int, path: str | None = None, key: str = "policy.decoding"
) -> Any:
    """The language model that the groups `model` and `adapter` name, or the one in `path`, as a policy.

    Raises RecordError, of `key`, where the decoding is not the whole distribution.
    """
    from rlhf.optimise.policy.rollout import CausalRolloutPolicy, check_whole_distribution

    check_whole_distribution(decoding, key)
    model_source = hydra.utils.instantiate(cfg.model, **({"path": path} if path else {}))
    tokenizer = model_source.tokenizer()
    policy = policy_of(cfg, model_source, tokenizer)
    renderer = renderer_of(cfg, tokenizer, model_source)
    return CausalRolloutPolicy(policy, renderer, decoding=decoding, max_new_tokens=max_new_tokens)


def _rollout_policy(cfg: DictConfig, path: str | None = None) -> Any:
    decoding = hydra.utils.instantiate(cfg.task.decoding)
    tokens = cfg.task.max_new_tokens
    return causal_rollout_policy(cfg, decoding=decoding, max_new_tokens=tokens, path=path, key="task.decoding")
