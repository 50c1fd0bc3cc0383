"""The reward a policy is trained on:  r_total = score - uncertainty + rules - β · KL(π || π_ref).

Order: the score (calibrated and normalised before it comes here), minus the uncertainty penalty, rule terms, a clip of
what that gives, and only then -β · KL, which is never clipped. Baselines come after (`rlhf.optimise.policy.module`).

KL estimators per token, x ~ π, d = log π(x) - log π_ref(x) (Schulman 2020):
    k1 = d                       unbiased; the one to put into a reward
    k2 = d² / 2                  biased, small variance; for logs
    k3 = exp(-d) - 1 + d         unbiased, small variance, never negative; for logs
In a reward, differentiated through log π alone, only k1 gives the gradient of the true KL.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlhf.optimise.shaping.rules import Term

Estimator = Callable[[Tensor], Tensor]
Placement = Callable[[Tensor, Tensor], Tensor]


def k1(d: Tensor) -> Tensor:
    """d: mean KL(π || π_ref) under π."""
    return d


def k2(d: Tensor) -> Tensor:
    """d² / 2."""
    return d * d / 2


def k3(d: Tensor) -> Tensor:
    """exp(-d) - 1 + d, by expm1: the plain form cancels where d is small."""
    return torch.expm1(-d) + d


def per_token(kl: Float[Tensor, "B T"], last: Int[Tensor, " B"]) -> Float[Tensor, "B T"]:
    """Every token bears its own KL."""
    return kl


def per_sequence(kl: Float[Tensor, "B T"], last: Int[Tensor, " B"]) -> Float[Tensor, "B T"]:
    """The last token bears the KL of the whole completion."""
    return torch.zeros_like(kl).scatter_(1, last[:, None], kl.sum(1, keepdim=True))


ESTIMATORS: Mapping[str, Estimator] = {"k1": k1, "k2": k2, "k3": k3}
PLACEMENTS: Mapping[str, Placement] = {"token": per_token, "sequence": per_sequence}
PARTS = ("score", "kl", "length", "repetition", "format", "eos", "uncertainty")


@dataclass(frozen=True)
class ShapedReward:
    """What `shape_rewards` gives; float32, without gradient.

    token_rewards [B, T]  0 on masked tokens; adds up to seq_reward
    seq_reward    [B]     the sum of the parts, exactly: `sum(parts.values())` gives the same float32 to the last bit
    kl_seq        [B]     nats, summed over the tokens of a completion, by the chosen estimator
    kl_tok_mean           nats per token, k1, over all tokens of the batch
    parts                 score (its clip included), kl (-β · kl_seq), length, repetition, format, eos, uncertainty,
                          each [B] and as added; with β per completion also `beta`, the correction -β
    beta          [B]     the coefficient of every completion
    raw           [B]     the score as it came, before a rule replaces it and before the clip
    clipped       [B]     what the clip added to the part `score`; 0 where nothing lay beyond it

    Token rewards add up to `seq_reward` within float32 rounding, 1e-6 of the largest of them, and a clipped reward
    keeps its bound to the same.
    """

    token_rewards: Float[Tensor, "B T"]
    seq_reward: Float[Tensor, " B"]
    kl_seq: Float[Tensor, " B"]
    kl_tok_mean: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, " B"]]
    beta: Float[Tensor, " B"]
    raw: Float[Tensor, " B"]
    clipped: Float[Tensor, " B"]


@torch.no_grad()
def shape_rewards(  # noqa: PLR0913  # the terms of one sum
    scores: Float[Tensor, " B"],
    logp: Float[Tensor, "B T"],
    ref_logp: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    beta: float | Float[Tensor, " B"],
    *,
    estimator: str = "k1",
    placement: str = "token",
    missing_eos: Term | Tensor | None = None,
    length: Term | Tensor | None = None,
    repetition: Term | Tensor | None = None,
    format: Term | Tensor | None = None,
    clip: float | None = None,
    uncertainty: Float[Tensor, " B"] | None = None,
    group: Int[Tensor, " B"] | None = None,
) -> ShapedReward:
    """The shaped reward of B completions of T tokens.

    Args:
        scores: rewards, calibrated and normalised.
        logp, ref_logp: log-probabilities of the tokens under the policy and the reference, in nats; anything, even
            -inf, where the mask is False.
        mask: True on the completion's tokens, its end token included.
        beta: coefficient of the KL, per nat: one for all, or one per completion. One per prompt is exact.
        estimator: k1, k2 or k3; see the module.
        placement: where the KL lands: on its own `token`, or all of it with the score on the last (`sequence`).
        missing_eos, length, repetition, format: rule terms, added (a tensor) or replacing the score (a `Term`). Where
            several replace it, all their values stand in its place, added up.
        clip: bound on the absolute value of score - uncertainty + rules.
        uncertainty: penalty >= 0 that is subtracted, in units of reward.
        group: prompt of every completion. With it, a beta that differs within a prompt gets the correction -β in the
            reward, without which the gradient of E[r - β(y) log π/π_ref] would lack E[β(y) ∇log π] (β per prompt
            needs none: it is constant under the expectation).

    Raises:
        ValueError: shapes differ, the mask is not bool, a completion has no token, a number is not finite, beta or
            uncertainty is negative, beta differs and there is no group, or there is no such estimator or placement.
    """
    scores, kl, last, betas = _checked(scores, logp, ref_logp, mask, beta, estimator)
    rules = {"length": length, "repetition": repetition, "format": format, "eos": missing_eos}
    terms = {name: _term(name, term, scores) for name, term in rules.items()}
    replaced = torch.stack([t.replaces for t in terms.values()]).any(0)
    doubt = torch.zeros_like(scores) if uncertainty is None else _fits("uncertainty", uncertainty, scores)
    if not bool((doubt >= 0).all()):
        raise ValueError("uncertainty must be >= 0: it is subtracted from the score")
    if group is not None and group.shape != scores.shape:
        raise ValueError(f"group has the shape {tuple(group.shape)}; [B] = {tuple(scores.shape)} expected")
    parts = {"score": torch.where(replaced, 0.0, scores), "kl": -betas * kl.sum(1)}
    parts |= {name: term.value for name, term in terms.items()}
    parts["uncertainty"] = torch.where(replaced, 0.0, -doubt)
    parts = {name: parts[name] for name in PARTS}
    clipped = torch.zeros_like(scores)
    if clip is not None:
        if not clip > 0:
            raise ValueError(f"clip={clip} must be positive; null = no clip")
        before = sum_of([part for name, part in parts.items() if name != "kl"])
        clipped = before.clamp(-clip, clip) - before
        parts["score"] = parts["score"] + clipped
    if group is None and bool((betas != betas[:1]).any()):
        raise ValueError("beta differs between completions: group= says which belong to one prompt")
    if group is not None:
        lowest = betas.new_full((int(group.max()) + 1,), torch.inf).scatter_reduce(0, group, betas, "amin")
        if bool((betas != lowest[group]).any()):  # differs within a prompt
            parts["beta"] = -betas
    rest = sum_of([part for name, part in parts.items() if name != "kl"])
    rewards = _choose(PLACEMENTS, placement, "placement")(-betas[:, None] * kl, last)
    rewards = rewards.scatter_add(1, last[:, None], rest[:, None])
    tokens = (logp - ref_logp).float().where(mask, torch.zeros(()).to(logp))
    return ShapedReward(
        token_rewards=rewards, seq_reward=sum_of(list(parts.values())), kl_seq=kl.sum(1),
        kl_tok_mean=tokens.sum() / mask.sum(), parts=parts, beta=betas, raw=scores, clipped=clipped,
    )  # fmt: skip


def sum_of(parts: Sequence[Float[Tensor, " B"]]) -> Float[Tensor, " B"]:
    """The sum from first to last: floating-point sums depend on their order."""
    return reduce(torch.add, parts)


def explain(shaped: ShapedReward, row: int, tokens: Sequence[str], mask: Bool[Tensor, "B T"]) -> str:
    """One completion term by term: the parts, what they add up to, and the reward of every token."""
    raw, score = float(shaped.raw[row]), float(shaped.parts["score"][row])
    clipped = float(shaped.clipped[row])
    lines = [f"  {'raw score':<12} {raw:+.4f}" + ("" if raw == score else ", of which a rule or the clip leaves")]
    lines += [f"  {'(clip)':<12} {clipped:+.4f} is in the next line"] if clipped else []
    lines += [f"  {name:<12} {float(part[row]):+.4f}" for name, part in shaped.parts.items()]
    lines += [f"  {'= reward':<12} {float(shaped.seq_reward[row]):+.4f}"]
    lines += [f"  beta {float(shaped.beta[row]):.4g}, KL {float(shaped.kl_seq[row]):.4f} nats", "  token rewards:"]
    places = mask[row].nonzero().flatten().tolist()
    own = [(tokens[t] if t < len(tokens) else "", float(shaped.token_rewards[row, t])) for t in places]
    lines += [f"    {text!r:<20} {value:+.4f}" for text, value in own]
    total = sum(value for _, value in own)
    return "\n".join([*lines, f"    {'sum':<20} {total:+.4f}"])


def sequence_kl(
    logp: Float[Tensor, "B T"], ref_logp: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], estimator: Estimator = k1
) -> Float[Tensor, " B"]:
    """KL of every completion in nats: the estimator summed over its tokens."""
    return _kl(logp, ref_logp, mask, estimator).sum(1)


def _kl(logp: Tensor, ref_logp: Tensor, mask: Tensor, estimator: Estimator) -> Tensor:
    zero = torch.zeros((), device=logp.device)
    inside = torch.where(mask, logp.float(), zero) - torch.where(mask, ref_logp.float(), zero)
    return estimator(inside)  # all three are 0 at 0


def _checked(
    scores: Tensor, logp: Tensor, ref_logp: Tensor, mask: Tensor, beta: float | Tensor, estimator: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scores = scores.float()
    if logp.shape != ref_logp.shape or logp.shape != mask.shape or scores.shape != logp.shape[:1]:
        raise ValueError(
            f"shapes do not fit: scores {tuple(scores.shape)}, logp {tuple(logp.shape)}, ref_logp "
            f"{tuple(ref_logp.shape)}, mask {tuple(mask.shape)}; [B], [B, T], [B, T], [B, T] expected"
        )
    if mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype}; bool expected: mask.bool()")
    if not bool(mask.any(1).all()):
        raise ValueError(f"completions {(~mask.any(1)).nonzero().flatten().tolist()} have no token: nothing to reward")
    kl = _kl(logp, ref_logp, mask, _choose(ESTIMATORS, estimator, "estimator"))
    if not bool(torch.isfinite(scores).all()) or not bool(torch.isfinite(kl).all()):
        raise ValueError("a score or a log-probability of an unmasked token is not finite")
    betas = torch.as_tensor(beta, dtype=torch.float32, device=scores.device)
    betas = _fits("beta", betas.expand_as(scores) if betas.ndim == 0 else betas, scores)
    if not bool((betas >= 0).all()):
        raise ValueError("beta must be >= 0")
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return scores, kl, (mask * places).argmax(1), betas


def _term(name: str, term: Term | Tensor | None, scores: Tensor) -> Term:
    if term is None:
        return Term(torch.zeros_like(scores), torch.zeros_like(scores, dtype=torch.bool))
    name = {"eos": "missing_eos"}.get(name, name)
    if isinstance(term, Tensor):
        return Term(_fits(name, term, scores), torch.zeros_like(scores, dtype=torch.bool))
    if term.replaces.shape != scores.shape or term.replaces.dtype != torch.bool:
        raise ValueError(f"{name}.replaces must be bool [B] = {tuple(scores.shape)}")
    return Term(_fits(name, term.value, scores), term.replaces)


def _fits(name: str, values: Tensor, scores: Tensor) -> Tensor:
    """Float32 where the scores are. Raises ValueError where it is not one finite number per completion."""
    if values.shape != scores.shape:
        raise ValueError(f"{name} has the shape {tuple(values.shape)}; [B] = {tuple(scores.shape)} expected")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} is not finite")
    return values.float().to(scores.device)


def _choose(known: Mapping[str, Callable[..., Tensor]], name: str, what: str) -> Callable[..., Tensor]:
    if name not in known:
        raise ValueError(f"{what}={name!r}: one of {', '.join(known)}")
    return known[name]
