"""Low-rank adapters on the trunk, through peft.

The adapter wraps the trunk alone (task type FEATURE_EXTRACTION), so the score head is out of its reach: it is
always trained in full, always saved, and `all-linear` cannot put a LoRA on it (peft#1836, trl#1379).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

from rlhf.models.backbone import Backbone


@dataclass(frozen=True)
class Lora:
    """LoRA (Hu et al. 2021): W + (alpha / rank) B A on the chosen layers, everything else frozen.

    An encoder's pooler is trained in full: many checkpoints come without one, so it may be newly initialised.

    Args:
        rank: rank of the update.
        alpha: its scale.
        dropout: dropout before A, 0..1.
        targets: names of the layers, or `all-linear`.
        seed: of the initial A, so that members of an ensemble of runs differ only where they should.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | Sequence[str] = "all-linear"
    seed: int = 0

    def __call__(self, backbone: Backbone) -> Backbone:
        """Freeze the trunk and put the adapter on it. Raises ValueError where it has one already."""
        if hasattr(backbone.trunk, "peft_config"):
            raise ValueError("the trunk has an adapter already; merge it first (rlhf.reward.export)")
        trained = ["pooler"] if getattr(backbone.trunk, "pooler", None) is not None else None
        adapted = self._adapted(backbone.trunk, backbone.classifier, TaskType.FEATURE_EXTRACTION, trained)
        backbone.put_trunk(adapted)
        return backbone

    def causal(self, model: Any) -> Any:
        """The same adapter on a language model: a policy, with the model itself as reference when it is off."""
        return self._adapted(model, model, TaskType.CAUSAL_LM, None)

    def _adapted(self, model: Any, whole: Any, task: TaskType, trained: list[str] | None) -> Any:
        """`whole` is `model` or holds it, and knows how it was loaded."""
        if getattr(whole, "is_loaded_in_4bit", False):
            model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
            model.is_loaded_in_4bit = True  # peft looks for it on what it wraps
        config = LoraConfig(
            task_type=task,
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
            modules_to_save=trained,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            adapted = get_peft_model(model, config)
        if getattr(whole, "is_activation_checkpointing", False):
            adapted.enable_input_require_grads()
        return adapted


def frozen(backbone: Backbone) -> Backbone:
    """Train the head alone; the trunk stays as it is, without dropout."""
    backbone.requires_grad_(False)
    backbone.frozen = True
    return backbone.eval()


def no_adapter(backbone: Backbone) -> Backbone:
    """Train the whole trunk."""
    return backbone
