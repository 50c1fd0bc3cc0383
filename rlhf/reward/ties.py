"""Tie models: the probabilities of win, tie and loss as functions of the difference in reward.

A soft label of 0.5 says "both are equally good" and shrinks the reward; a tie model says how likely a tie is
at that difference, so ties carry information without changing the scale of the reward.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rlhf.data.batch import Target
from rlhf.reward.pairs import differences, sum_over_pairs

ThreeWay = tuple[Tensor, Tensor, Tensor]
"""One tensor each, of the shape of the differences, for: i wins, tie, j wins."""


def rao_kupper(
    reward: Float[Tensor, "*M B K"], target: Target, *, width: float | Float[Tensor, ""]
) -> Float[Tensor, "*M B"]:
    """Cross-entropy of the vote shares under Rao & Kupper (1967): ties within a threshold of perception.

    P(i > j) = σ(D - η)    P(j > i) = σ(-D - η)    P(tie) = (e^{2η} - 1) σ(D - η) σ(-D - η)

    Sums over the labelled pairs of the prompt; D = r_i - r_j. Without ties and with η = 0 it is `soft_label`.

    Args:
        width: η >= 0, the smallest difference in reward that annotators notice, in units of reward.

    Raises:
        ValueError: a negative width.
    """
    return _cross_entropy(rao_kupper_log_probabilities(differences(reward, target), width), target)


def davidson(
    reward: Float[Tensor, "*M B K"], target: Target, *, log_nu: float | Float[Tensor, ""]
) -> Float[Tensor, "*M B"]:
    """Cross-entropy of the vote shares under Davidson (1970): a tie is a third outcome of medium strength.

    P(i > j) : P(tie) : P(j > i) = e^{D/2} : ν : e^{-D/2}

    Sums over the labelled pairs of the prompt; D = r_i - r_j. Without ties and with ν = 0 it is `soft_label`.

    Args:
        log_nu: log ν; at equal rewards ties have odds ν : 2. Minus infinity is allowed and forbids ties.
    """
    return _cross_entropy(davidson_log_probabilities(differences(reward, target), log_nu), target)


def rao_kupper_log_probabilities(difference: Float[Tensor, "*S"], width: float | Float[Tensor, ""]) -> ThreeWay:
    """Log probabilities of win, tie and loss at a difference in reward; see `rao_kupper`."""
    if not isinstance(width, Tensor) and width < 0:
        raise ValueError(f"width={width:g}: the threshold of a tie must be >= 0 (loss.width, loss.init)")
    width = torch.as_tensor(width, dtype=difference.dtype, device=difference.device)
    width = width.clamp(min=torch.finfo(width.dtype).tiny)  # log P(tie) stays finite at width 0
    win, loss = F.logsigmoid(difference - width), F.logsigmoid(-difference - width)
    log_expm1 = 2 * width + torch.log(-torch.expm1(-2 * width))  # log(e^{2η} - 1) without overflow
    return win, log_expm1 + win + loss, loss


def davidson_log_probabilities(difference: Float[Tensor, "*S"], log_nu: float | Float[Tensor, ""]) -> ThreeWay:
    """Log probabilities of win, tie and loss at a difference in reward; see `davidson`."""
    log_nu = torch.as_tensor(log_nu, dtype=difference.dtype, device=difference.device)
    half = difference / 2
    total = torch.logaddexp(torch.logaddexp(half, -half), log_nu)
    return half - total, log_nu - total, -half - total


def _cross_entropy(log_probability: ThreeWay, target: Target) -> Float[Tensor, "*M B"]:
    """-Σ share · log probability over win, tie and loss, summed over the labelled pairs; 0 · log 0 = 0."""
    tie = target.tie_prob
    win = (target.win_prob - tie / 2).clamp(min=0)
    loss = (1 - target.win_prob - tie / 2).clamp(min=0)
    terms = [s * torch.where(s > 0, p, 0) for s, p in zip((win, tie, loss), log_probability, strict=True)]
    return sum_over_pairs(-(terms[0] + terms[1] + terms[2]), target)


class LearnedTies(nn.Module):
    """A tie model as a loss whose one tie parameter is learned beside the reward.

    `raw` is the unconstrained parameter; its meaning is the subclass's. Give it no weight decay.
    """

    def __init__(self, raw: float) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(raw, dtype=torch.float32))

    def log_probabilities(self, difference: Float[Tensor, "*S"]) -> ThreeWay:
        """Log probabilities of win, tie and loss at a difference in reward."""
        raise NotImplementedError

    def probabilities(self, difference: Float[Tensor, "*S"]) -> ThreeWay:
        """Probabilities of win, tie and loss at a difference in reward; they sum to 1."""
        win, tie, loss = self.log_probabilities(difference)
        return win.exp(), tie.exp(), loss.exp()

    def forward(self, reward: Float[Tensor, "*M B K"], target: Target) -> Float[Tensor, "*M B"]:
        """The loss of each prompt: cross-entropy of its vote shares, summed over its labelled pairs."""
        return _cross_entropy(self.log_probabilities(differences(reward, target)), target)


class LearnedRaoKupper(LearnedTies):
    """`rao_kupper` with a learned threshold η = softplus(raw).

    Args:
        init: η at the start, in units of reward, > 0.

    Raises:
        ValueError: `init` is not positive.
    """

    def __init__(self, *, init: float = 0.5) -> None:
        if not init > 0:
            raise ValueError(f"loss.init={init:g}: the threshold of a tie must be positive, e.g. 0.5")
        super().__init__(init + math.log(-math.expm1(-init)))  # the inverse of softplus

    @property
    def width(self) -> Float[Tensor, ""]:
        """η, the smallest difference in reward that annotators notice."""
        return F.softplus(self.raw)

    def log_probabilities(self, difference: Float[Tensor, "*S"]) -> ThreeWay:
        """Log probabilities of win, tie and loss at a difference in reward."""
        return rao_kupper_log_probabilities(difference, self.width)


class LearnedDavidson(LearnedTies):
    """`davidson` with a learned tie strength ν = exp(raw).

    Args:
        init: ν at the start, > 0; 1 gives a tie one third of the votes at equal rewards.

    Raises:
        ValueError: `init` is not positive.
    """

    def __init__(self, *, init: float = 1.0) -> None:
        if not init > 0:
            raise ValueError(f"loss.init={init:g}: the strength of ties must be positive, e.g. 1.0")
        super().__init__(math.log(init))

    @property
    def nu(self) -> Float[Tensor, ""]:
        """ν, the strength of ties."""
        return self.raw.exp()

    def log_probabilities(self, difference: Float[Tensor, "*S"]) -> ThreeWay:
        """Log probabilities of win, tie and loss at a difference in reward."""
        return davidson_log_probabilities(difference, self.raw)
