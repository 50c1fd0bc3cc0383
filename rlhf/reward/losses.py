"""Losses of the reward model: `loss(reward[..., B, K], target) -> loss[..., B]`, one number per prompt.

Every loss is a pure function. It computes in fp32 at least, gives exactly 0 without gradient for a prompt that
nobody labelled, and never looks at padding. The caller weighs prompts (`target.weight`) and reduces once.
Throughout, D = r_i - r_j and p = P(i beats j) = `target.win_prob[i, j]`. A `label_smoothing` outside [0, 0.5) raises
ValueError.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rlhf.data.batch import Target
from rlhf.reward.listwise import pick_best, plackett_luce
from rlhf.reward.pairs import differences, mean_over_pairs, per_prompt, scores, sum_over_pairs
from rlhf.reward.ties import LearnedDavidson, LearnedRaoKupper, LearnedTies, davidson, rao_kupper

__all__ = [
    "LearnedDavidson", "LearnedRaoKupper", "LearnedTies", "Loss", "centring", "davidson", "dpo", "pairwise",
    "pick_best", "plackett_luce", "ranking", "rao_kupper", "regression", "scaled", "soft_label",
]  # fmt: skip

Loss = Callable[[Tensor, Target], Tensor]
"""What training calls: one of the functions below with its options bound, or a `LearnedTies` module."""


def pairwise(
    reward: Float[Tensor, "*M B K"], target: Target, *, margin_scale: float = 1.0, label_smoothing: float = 0.0
) -> Float[Tensor, "*M B"]:
    """Bradley-Terry on hard labels: -log σ(r_chosen - r_rejected - s·margin), summed over the labelled pairs.

    The side with p > 0.5 is chosen; p = 0.5 is a tie, counts half each way and has no margin.
    Bradley & Terry (1952); margin as in Llama 2 (Touvron et al. 2023, eq. 2).

    Args:
        margin_scale: s, what one unit of stated margin is worth in reward; 0 ignores margins.
        label_smoothing: ε, the assumed probability that a label is flipped; see `soft_label`.
    """
    direction = torch.sign(target.win_prob - 0.5)
    logit = differences(reward, target) - margin_scale * direction * target.margin
    return sum_over_pairs(_cross_entropy(logit, (1 + direction) / 2, label_smoothing), target)


def scaled(reward: Float[Tensor, "*M B K"], target: Target, *, label_smoothing: float = 0.0) -> Float[Tensor, "*M B"]:
    """Scaled Bradley-Terry: -m log σ(r_chosen - r_rejected), m the stated margin, summed over the labelled pairs.

    A pair that was called "much better" counts more; m = 1 where no margin was stated, and for ties.
    HelpSteer2-Preference (Wang et al. 2024).

    Args:
        label_smoothing: ε, as in `soft_label`.
    """
    direction = torch.sign(target.win_prob - 0.5)
    cost = _cross_entropy(differences(reward, target), (1 + direction) / 2, label_smoothing)
    weight = torch.where((target.margin > 0) & (direction != 0), target.margin, 1)
    return sum_over_pairs(weight * cost, target)


def soft_label(
    reward: Float[Tensor, "*M B K"], target: Target, *, label_smoothing: float = 0.0
) -> Float[Tensor, "*M B"]:
    """Bradley-Terry on vote shares: -p log σ(D) - (1 - p) log σ(-D), summed over the labelled pairs.

    Its minimum is at σ(D) = p; ties count half for each side.

    Args:
        label_smoothing: ε, replaces p by (1 - 2ε) p + ε: what is seen when labels flip with probability ε.
    """
    cost = _cross_entropy(differences(reward, target), target.win_prob, label_smoothing)
    return sum_over_pairs(cost, target)


@per_prompt
def ranking(
    reward: Float[Tensor, "*M B K"], target: Target, *, margin_scale: float = 0.0, label_smoothing: float = 0.0
) -> Float[Tensor, "*M B"]:
    """All pairs of a prompt: `soft_label` averaged over its labelled pairs (InstructGPT, Ouyang et al. 2022, eq. 1).

    The mean makes each prompt count once whatever its K: the K(K-1)/2 pairs of a ranking are not independent.

    Args:
        margin_scale: s, shifts D by s·margin against the side with p > 0.5, as in `pairwise`; 0 ignores margins.
        label_smoothing: ε, as in `soft_label`.
    """
    direction = torch.sign(target.win_prob - 0.5)
    logit = differences(reward, target) - margin_scale * direction * target.margin
    return mean_over_pairs(_cross_entropy(logit, target.win_prob, label_smoothing), target)


def dpo(
    log_ratio: Float[Tensor, "*M B K"], target: Target, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> Float[Tensor, "*M B"]:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7): `soft_label` on the implicit reward.

    -log σ(β (log_ratio_chosen - log_ratio_rejected)), summed over the labelled pairs, for hard labels.

    Args:
        log_ratio: log π(completion | prompt) - log π_ref(completion | prompt), summed over its tokens.
        beta: β > 0, strength of the implied KL penalty: how much reward one nat is worth.
        label_smoothing: ε, as in `soft_label`; > 0 is conservative DPO (Mitchell 2023).

    Raises:
        ValueError: `beta` not positive.
    """
    if not beta > 0:
        raise ValueError(f"loss.beta={beta:g}: must be positive, e.g. 0.1")
    return soft_label(beta * scores(log_ratio, target), target, label_smoothing=label_smoothing)


@per_prompt
def regression(reward: Float[Tensor, "*M B K"], target: Target) -> Float[Tensor, "*N B"]:
    """Mean squared error to the mean Likert rating, over the rated completions and attributes of a prompt.

    Args:
        reward: [..., B, K] where one attribute was asked for; [..., A, B, K], one reward per attribute, where
            A > 1 were (head=attributes). What stands before that are members of an ensemble, as ever.
        target: `score[B, K, A]` holds the ratings, NaN where there is none.

    Raises:
        ValueError: no attribute was asked for, or there is not one reward per attribute.
    """
    attributes = target.score.shape[-1]
    if attributes == 0:
        raise ValueError(
            "loss=regression needs Likert votes and the criteria to predict, and the targets have none: "
            "name them, e.g. batches.attributes=[helpfulness]"
        )
    if attributes == 1:
        reward = reward.unsqueeze(-3)
    elif reward.ndim < 3 or reward.shape[-3] != attributes:
        raise ValueError(
            f"loss=regression on {attributes} attributes needs reward[{attributes}, B, K], got "
            f"{list(reward.shape)}: use head=attributes with one output per attributes"
        )
    rating = target.score.movedim(-1, 0)
    rated = target.candidate & ~rating.isnan()
    error = torch.where(rated, scores(reward, target) - rating, 0)
    return error.square().sum((-3, -1)) / rated.sum((0, -1)).clamp(min=1)


def centring(reward: Float[Tensor, "*M B K"], target: Target) -> Float[Tensor, "*M B"]:
    """(r_i + r_j)², averaged over the labelled pairs of a prompt: pulls the mean reward to 0.

    A term beside a loss, times a small coefficient such as 0.01 (Eisenstein et al. 2023, eq. 2). Losses on
    pairs leave the level of the reward free; this one fixes it.
    """
    score = scores(reward, target)
    return mean_over_pairs((score.unsqueeze(-1) + score.unsqueeze(-2)).square(), target)


def _cross_entropy(
    logit: Float[Tensor, "*M B K K"], p: Float[Tensor, "B K K"], label_smoothing: float
) -> Float[Tensor, "*M B K K"]:
    """-p̃ log σ(logit) - (1 - p̃) log σ(-logit), where p̃ = (1 - 2ε) p + ε."""
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"loss.label_smoothing={label_smoothing:g}: a flip probability, 0 <= ε < 0.5")
    p = (1 - 2 * label_smoothing) * p + label_smoothing
    return -p * F.logsigmoid(logit) - (1 - p) * F.logsigmoid(-logit)
