"""`task=sft` and `task=dpo`: configuration to objects."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from rlhf.assemble.checks.rollouts import check_policy_adapter
from rlhf.assemble.resume import checkpoint_to_go_on_from
from rlhf.assemble.tasks.reward import asked_weighing, data_of, renderer_of, run_folder, trainer_of

if TYPE_CHECKING:
    from rlhf.models.policy import CausalPolicy
    from rlhf.optimise.direct.train import TuningRun


def sft_run(cfg: DictConfig, *, folder: Path | None = None, source: Any = None) -> TuningRun:
    """What `task=sft` needs; `folder` and `source` as in `reward_run`."""
    from rlhf.optimise.direct.train import SftModule

    labels = hydra.utils.instantiate(cfg.task.imitate, _convert_="all")
    return _run(cfg, lambda policy: SftModule(policy, **optimizing(cfg)), labels, folder, source)


def dpo_run(cfg: DictConfig, *, folder: Path | None = None, source: Any = None) -> TuningRun:
    """What `task=dpo` needs."""
    from rlhf.optimise.direct.train import DpoModule

    loss = hydra.utils.instantiate(cfg.task.loss)
    beta = float(cfg.task.loss.beta)
    return _run(
        cfg,
        lambda p: DpoModule(p, loss=loss, beta=beta, weighing=asked_weighing(cfg), **optimizing(cfg)),
        None,
        folder,
        source,
    )


def optimizing(cfg: DictConfig) -> dict[str, Any]:
    """The options of `rlhf.reward.resumable.ResumableModule`."""
    return {
        "optimizer": hydra.utils.instantiate(cfg.optimizer.build, _convert_="all"),
        "schedule": hydra.utils.instantiate(cfg.scheduler),
        "weight_decay": cfg.optimizer.weight_decay,
    }


def policy_of(cfg: DictConfig, model_source: Any, tokenizer: Any, temperature: float = 1.0) -> CausalPolicy:
    """The policy that the model and adapter groups name. Raises RecordError for adapter=frozen."""
    from rlhf.models.lora import Lora
    from rlhf.models.policy import CausalPolicy

    check_policy_adapter(cfg)
    model = model_source.causal(tokenizer)
    adapter = hydra.utils.instantiate(cfg.adapter.build)
    model = adapter.causal(model) if isinstance(adapter, Lora) else model
    return CausalPolicy(model, temperature=temperature)


def _run(cfg: DictConfig, make: Any, labels: Any, folder: Path | None, source: Any) -> TuningRun:
    from rlhf.models.policy import spans
    from rlhf.optimise.direct.train import TuningRun

    own = folder or run_folder()
    checkpoint = None if folder else checkpoint_to_go_on_from(cfg, own)
    model_source = hydra.utils.instantiate(cfg.model)
    tokenizer = model_source.tokenizer()
    data = data_of(cfg, renderer_of(cfg, tokenizer, model_source), source=source, labels=labels)
    data.score_once = labels is None  # demonstrations are labels
    data.layout = partial(spans, pad_id=tokenizer.pad_token_id)  # type: ignore[assignment]
    return TuningRun(
        folder=own,
        data=data,
        module=make(policy_of(cfg, model_source, tokenizer)),
        trainer=trainer_of(cfg, own, checkpoint),
        checkpoint=checkpoint,
        bootstrap=cfg.bootstrap,
        seed=cfg.seed,
    )
