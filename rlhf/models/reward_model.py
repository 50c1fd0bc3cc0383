"""The reward model: trunk and head."""

from jaxtyping import Float
from torch import Tensor, nn

from rlhf.data.batch import Padded
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead


class RewardModel(nn.Module):
    """Tokens to rewards.

    Args:
        backbone: token layout to hidden states `[N, D]`.
        head: hidden states to rewards `[N]`, or `[M, N]` for an ensemble or attributes.
    """

    def __init__(self, backbone: Backbone, head: LinearHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, tokens: Padded) -> Float[Tensor, "*M N"]:
        """Rewards of every completion, float32, in the order of the batch."""
        hidden: Tensor = self.backbone(tokens)
        reward: Tensor = self.head(hidden)
        return reward
