"""Learning-rate schedules and optimizer groups, in units of optimizer steps."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.0) -> LambdaLR:
    """Linear warm-up over the first `warmup` share of the steps, then constant."""
    return _warmed_up(optimizer, total_steps, warmup, lambda done: 1.0)


def linear(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1, end: float = 0.0) -> LambdaLR:
    """Linear warm-up, then linear decay to the share `end` of the peak at the last step."""
    return _warmed_up(optimizer, total_steps, warmup, lambda done: end + (1 - end) * (1 - done))


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.1, end: float = 0.0) -> LambdaLR:
    """Linear warm-up, then half a cosine down to the share `end` of the peak at the last step."""
    return _warmed_up(
        optimizer, total_steps, warmup, lambda done: end + (1 - end) * 0.5 * (1 + math.cos(math.pi * done))
    )


def _warmed_up(optimizer: Optimizer, total_steps: int, warmup: float, factor: Callable[[float], float]) -> LambdaLR:
    """`factor` of the share, 0 to 1, of the steps after the warm-up that is done."""
    first = round(warmup * total_steps)

    def rate(step: int) -> float:
        done = min(1.0, (step - first) / max(1, total_steps - first))
        return min(1.0, (step + 1) / first) if step < first else factor(done)

    return LambdaLR(optimizer, rate)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay; biases, norms and scalars do not."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
