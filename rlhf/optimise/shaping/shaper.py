"""`shaping=...`: everything between a reward model's members and the reward a policy is trained on."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlhf.optimise.shaping.ensemble import Aggregator, spread
from rlhf.optimise.shaping.kl_controllers import Context, Controller
from rlhf.optimise.shaping.rules import Completions, Term
from rlhf.optimise.shaping.shape import ESTIMATORS, PLACEMENTS, ShapedReward, k1, shape_rewards
from rlhf.records import RecordError

RULES = ("missing_eos", "length", "repetition", "format")


@dataclass
class Shaper:
    """Members' rewards, log-probabilities and texts to a shaped reward.

    Args:
        controller: gives β.
        aggregate: members to score and penalty.
        estimator, placement, clip: as in `shape_rewards`; another estimator than k1 is warned of.
        rules: name -> rule; None = switched off.

    Raises:
        RecordError: there is no rule, estimator or placement of that name.
    """

    controller: Controller
    aggregate: Aggregator
    estimator: str = "k1"
    placement: str = "token"
    clip: float | None = None
    rules: Mapping[str, Callable[[Completions], Term] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.rules:
            if name not in RULES:
                raise RecordError(f"one of {', '.join(RULES)}", key=f"shaping.rules.{name}")
        for key, value, known in (("estimator", self.estimator, ESTIMATORS), ("placement", self.placement, PLACEMENTS)):
            if value not in known:
                raise RecordError(f"{value}: one of {', '.join(known)}", key=f"shaping.{key}")
        if ESTIMATORS[self.estimator] is not k1:
            warnings.warn(
                f"shaping.estimator={self.estimator}: in the reward its gradient is not that of β · KL, and the policy "
                "is led away from the optimum; train on k1, the others are logged as kl_k2 and kl_k3 all the same",
                stacklevel=3,
            )

    def __call__(
        self, members: Float[Tensor, "M B"], logp: Float[Tensor, "B T"], ref_logp: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"], completions: Completions, group: Int[Tensor, " B"], domains: Sequence[str | None],
    ) -> ShapedReward:  # fmt: skip
        """The shaped reward of normalised `members`; logp, ref_logp, mask as in `shape_rewards`.

        `group` says which prompt 0..P-1 every completion answers, `domains` the domain of each of these.
        """
        score, penalty = self.aggregate(members)
        terms = {name: rule(completions) for name, rule in self.rules.items() if rule is not None}
        total = torch.zeros(len(domains), device=members.device).index_add(0, group, spread(members).float())
        doubt = total / torch.bincount(group, minlength=len(domains)).clamp(min=1)
        beta = self.controller.betas(Context(doubt, domains))[group]
        return shape_rewards(
            score, logp, ref_logp, mask, beta, estimator=self.estimator, placement=self.placement, clip=self.clip,
            uncertainty=penalty, group=group, **terms,
        )  # fmt: skip
