"""Heads: one hidden state per completion to one reward, or to M rewards.

Heads compute in float32 or wider whatever the trunk is in: bf16 spacing near a score of 5 is 0.03, which makes
false ties. They start at std 1/sqrt(D + 1) (Stiennon et al. 2020), and have no bias: a Bradley-Terry
likelihood cannot see one.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rlhf.records import RecordError


class LinearHead(nn.Module):
    """reward = w · dropout(h).

    Args:
        hidden_size: D.
        dropout: dropout rate on h while training, 0..1.
        seed: of the initial weights.
        rows: number of outputs; 1 here, more in the heads below.
    """

    bootstrap = False
    plain = True
    """Is the one reward a linear function of h, so that a stock classifier can hold it?"""
    names: tuple[str, ...] = ()
    """What the rows stand for, where they have names of their own."""

    def __init__(self, hidden_size: int, *, dropout: float = 0.0, seed: int = 0, rows: int = 1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(rows, hidden_size, generator=generator) / math.sqrt(hidden_size + 1)
        self.weight = nn.Parameter(weight)

    @classmethod
    def of(cls, weight: Float[Tensor, "1 D"]) -> "LinearHead":
        """The head with these weights."""
        head = LinearHead(weight.shape[1])
        head.weight.data.copy_(weight)
        return head

    def forward(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "*M N"]:
        """Rewards `[N]`."""
        reward: Tensor = self.outputs(hidden).squeeze(0)
        return reward

    def outputs(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "M N"]:
        """All rows of the head, float32 even under autocast."""
        with torch.autocast(hidden.device.type, enabled=False):
            rewards: Tensor = _wide(self.weight) @ self.dropout(_wide(hidden)).T
        return rewards

    def explained(self, output: Float[Tensor, "*M N"], length: Int[Tensor, " N"]) -> Float[Tensor, "*M N"]:
        """What the loss compares with the votes: the output, unless a head says otherwise.

        Args:
            output: what `forward` gave for the batch.
            length: characters of every completion.
        """
        return output

    def penalty(
        self, output: Float[Tensor, "*M N"], length: Int[Tensor, " N"], group: Int[Tensor, " N"]
    ) -> Float[Tensor, ""] | None:
        """A term added to the mean loss of a batch; None where there is none.

        Args:
            output, length: as in `explained`.
            group: number of every completion's group in the batch.
        """
        return None

    def combine(self, reward: Float[Tensor, "*M N"]) -> Float[Tensor, " N"]:
        """The one reward that is reported, exported and optimised."""
        return reward

    @torch.no_grad()
    def rescale(self, scale: Float[Tensor, " D"]) -> None:
        """Read h where h / scale was read: the same rewards."""
        self.weight.div_(scale.to(self.weight))

    @torch.no_grad()
    def zero(self) -> None:
        """Start at rewards of 0: with few prompts, what training does not reach must not speak."""
        self.weight.zero_()

    def mixture(self) -> Float[Tensor, " M"]:
        """Weight of every row in `combine`; the exported layer is `mixture() @ weight`."""
        return self.weight.new_ones(1)

    def member_weight(self, row: Int[Tensor, " B"]) -> Float[Tensor, "M B"] | None:
        """How much each group counts for each member's loss; None where all count the same."""
        return None


class EnsembleHead(LinearHead):
    """M linear heads on one trunk, each with its own start and its own bootstrap of the prompts.

    Members that share data, order and trunk agree too much (Eisenstein et al. 2023), so each member sees
    every group Poisson(1) times (online bootstrap, Oza & Russell 2001), a draw fixed by (seed, row).

    Args:
        hidden_size, dropout, seed: as in `LinearHead`.
        members: M >= 2.
        bootstrap: False gives every member all groups once.
    """

    def __init__(
        self, hidden_size: int, *, members: int = 5, dropout: float = 0.0, bootstrap: bool = True, seed: int = 0
    ) -> None:
        if members < 2:
            raise ValueError(f"head.members={members}: an ensemble needs at least 2; use head=linear for one")
        super().__init__(hidden_size, dropout=dropout, seed=seed, rows=members)
        self.bootstrap, self.seed = bootstrap, seed

    def forward(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "*M N"]:
        """Rewards `[M, N]`; every member draws its own dropout mask."""
        with torch.autocast(hidden.device.type, enabled=False):
            members = _wide(hidden).unsqueeze(0).expand(self.weight.shape[0], -1, -1)
            return torch.einsum("md,mnd->mn", _wide(self.weight), self.dropout(members))

    def zero(self) -> None:
        """As in `LinearHead`. Raises RecordError where nothing would tell the members apart."""
        if not (self.bootstrap or self.dropout.p):
            raise RecordError(
                "false: members that start alike on a frozen trunk and see the same prompts stay alike",
                key="head.bootstrap", remedy="head.bootstrap=true, or head=linear",
            )  # fmt: skip
        super().zero()

    def combine(self, reward: Float[Tensor, "*M N"]) -> Float[Tensor, " N"]:
        """Mean over members."""
        return reward.mean(0)

    def mixture(self) -> Float[Tensor, " M"]:
        """Equal weights."""
        members = self.weight.shape[0]
        return self.weight.new_full((members,), 1 / members)

    def member_weight(self, row: Int[Tensor, " B"]) -> Float[Tensor, "M B"] | None:
        """Poisson(1) counts, the same for a row in every epoch and on every device."""
        if not self.bootstrap:
            return None
        draws = [_poisson(self.weight.shape[0], self.seed, r) for r in row.tolist()]
        return torch.stack(draws, dim=1).to(row.device)


class MlpHead(LinearHead):
    """reward = w · h + v · tanh(U h): a linear head with one hidden layer beside it, which starts at 0.

    Args:
        hidden_size, dropout, seed: as in `LinearHead`.
        units: width H of the hidden layer.
    """

    plain = False

    def __init__(self, hidden_size: int, *, units: int = 32, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__(hidden_size, dropout=dropout, seed=seed)
        generator = torch.Generator().manual_seed(seed + 1)
        self.inner = nn.Parameter(torch.randn(units, hidden_size, generator=generator) / math.sqrt(hidden_size))
        self.outer = nn.Parameter(torch.zeros(1, units))

    def outputs(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "M N"]:
        """The row, float32 even under autocast."""
        with torch.autocast(hidden.device.type, enabled=False):
            seen = self.dropout(_wide(hidden)).T
            rewards: Tensor = _wide(self.weight) @ seen + _wide(self.outer) @ torch.tanh(_wide(self.inner) @ seen)
        return rewards

    @torch.no_grad()
    def rescale(self, scale: Float[Tensor, " D"]) -> None:
        """As in `LinearHead`."""
        super().rescale(scale)
        self.inner.div_(scale.to(self.inner))


class MixedRows(LinearHead):
    """Rows with a bias each, and the weights `mix` [M] that make one reward of them; subclasses hold both."""

    bias: Tensor

    def forward(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "*M N"]:
        """Rewards of the members, or scores of the attributes on the scale of the ratings, `[M, N]`."""
        return self.outputs(hidden) + self.bias[:, None]

    def combine(self, reward: Float[Tensor, "*M N"]) -> Float[Tensor, " N"]:
        """Weighted sum of the rows without their biases, constants that rank nothing; on the rewards' device."""
        mix, bias = self.mixture().to(reward.device), self.bias.to(reward.device)
        return mix @ (reward - bias[:, None])

    def mixture(self) -> Float[Tensor, " M"]:
        """The mix."""
        return self.get_buffer("mix")


class AttributeHead(MixedRows):
    """One row per attribute (helpfulness, honesty, ...); the reward is their weighted sum.

    Args:
        hidden_size, dropout, seed: as in `LinearHead`.
        attributes: names, in the order of `Target.score`'s last dimension.
        mix: weight of every attribute in the one reward; equal weights when empty.

    Raises:
        ValueError: no attribute, or a mix of another length.
    """

    def __init__(
        self, hidden_size: int, *, attributes: tuple[str, ...], mix: tuple[float, ...] = (), dropout: float = 0.0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        if not attributes:
            raise ValueError("head=attributes needs batches.attributes=[name, ...]: the Likert criteria of the data")
        if mix and len(mix) != len(attributes):
            raise ValueError(f"head.mix has {len(mix)} weights for {len(attributes)} attributes")
        super().__init__(hidden_size, dropout=dropout, seed=seed, rows=len(attributes))
        self.names = tuple(attributes)
        self.bias = nn.Parameter(torch.zeros(len(attributes)))
        weights = torch.tensor(list(mix) or [1 / len(attributes)] * len(attributes), dtype=torch.float32)
        self.register_buffer("mix", weights)


class MixtureHead(MixedRows):
    """An exported ensemble or attribute head: its rows, and the mixture that makes the one reward.

    Args:
        weight: [M, D]. mixture: [M]. bias: [M], added to the rows and to nothing that is ranked.
        names: of the rows; empty for an ensemble.
    """

    def __init__(
        self, weight: Float[Tensor, "M D"], mixture: Float[Tensor, " M"], bias: Float[Tensor, " M"],
        names: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(weight.shape[1], rows=weight.shape[0])
        self.weight.data.copy_(weight)
        self.names = names
        self.register_buffer("mix", mixture)
        self.register_buffer("bias", bias)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _poisson(members: int, seed: int, row: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed << 32) ^ row)
    return torch.poisson(torch.ones(members), generator=generator)
