"""A reward that does not pay for length: what annotators pay for it is a term of its own, and is left behind.

While training, votes are explained by quality plus γ · log(length): the length covariate of style-controlled
Bradley-Terry models (Li et al. 2024; Dubois et al. 2024). The trunk sees length too and could pay for it all the same,
so a penalty keeps quality from following length, as in ODIN (Chen et al. 2024). What is reported, exported and
optimised is quality alone. docs/methods/length_bias.md says why the penalty is not ODIN's and the covariate no head.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlhf.models.heads import LinearHead


class LengthControlledHead(LinearHead):
    """r = w · h, trained as r + γ log(length) with any loss, plus λ s² on the mean loss of a batch.

    s is how much r rises per standard deviation of log length, over the batch's completions, each centred within its
    prompt, because losses on pairs see nothing else. λ s² is convex in w: with given states there is one optimum, where
    γ takes what length explains. s is estimated per process: accumulated or distributed batches average s² of small
    batches, which is larger than s² of the whole; give each at least some 16 prompts.

    Args:
        hidden_size, dropout, seed: as in `LinearHead`.
        decorrelation: λ >= 0 in 1 / reward²; 0 leaves the covariate alone.

    Raises:
        ValueError: a negative weight.
    """

    def __init__(self, hidden_size: int, *, decorrelation: float = 1.0, dropout: float = 0.0, seed: int = 0) -> None:
        if not decorrelation >= 0:
            raise ValueError(f"head.decorrelation={decorrelation:g}: a weight >= 0, e.g. 1")
        super().__init__(hidden_size, dropout=dropout, seed=seed)
        self.decorrelation = decorrelation
        self.paid = nn.Parameter(torch.zeros(1))

    @property
    def gamma(self) -> Float[Tensor, " 1"]:
        """What annotators pay for length, in log-odds per factor e.

        The parameter times the hidden size: an optimizer then moves it as fast as it moves w · h.
        """
        return self.paid * self.weight.shape[1]

    def explained(self, output: Float[Tensor, "*M N"], length: Int[Tensor, " N"]) -> Float[Tensor, "*M N"]:
        """Quality plus γ log(length)."""
        return output + self.gamma * log_length(length, output)

    def penalty(
        self, output: Float[Tensor, "*M N"], length: Int[Tensor, " N"], group: Int[Tensor, " N"]
    ) -> Float[Tensor, ""] | None:
        """λ s²."""
        slope = within_slope(output, log_length(length, output), group)
        return self.decorrelation * slope.square()


def log_length(length: Int[Tensor, " N"], like: Tensor) -> Float[Tensor, " N"]:
    """log(1 + length) in the type of `like`: differences are ratios, whatever the unit; an empty answer counts 0."""
    return length.to(like.dtype).log1p()


def within_slope(reward: Float[Tensor, " N"], cue: Float[Tensor, " N"], group: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Rise of the reward per standard deviation of a cue, both centred within groups: cov / sd; 0 without spread."""
    x, y = _centred(reward, group), _centred(cue, group)
    varies = y.square().sum() > (4 * torch.finfo(y.dtype).eps) ** 2 * cue.square().sum()  # more than rounding does
    spread = torch.where(varies, y.square().mean(), 1).sqrt()
    return torch.where(varies, (x * y).mean() / spread, 0)


def _centred(values: Float[Tensor, " N"], group: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    groups = int(group.max()) + 1
    total = values.new_zeros(groups).index_add(0, group, values)
    count = values.new_zeros(groups).index_add(0, group, torch.ones_like(values))
    centred: Tensor = values - (total / count.clamp(min=1))[group]
    return centred
