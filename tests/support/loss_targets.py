"""Targets for the tests of losses: from ranks, from a generator, and rearranged."""

from dataclasses import replace

import torch

from rlhf.data.batch import Target


def exact(values):
    """Numbers in fp64, not rounded to fp32 on the way as `torch.tensor(values).double()` does."""
    return torch.tensor(values, dtype=torch.float64)


def from_ranks(rank, *, score=None, margin=0.0):
    """Every pair of ranked completions compared, the better one winning outright, equal ranks tied (fp64)."""
    rank = torch.tensor(rank)
    ranked = rank >= 0
    observed = ranked[:, :, None] & ranked[:, None, :] & ~torch.eye(rank.shape[1], dtype=torch.bool)
    better = (rank[:, :, None] < rank[:, None, :]).double()
    tied = (rank[:, :, None] == rank[:, None, :]).double()
    return Target(
        win_prob=torch.where(observed, better + tied / 2, 0),
        tie_prob=torch.where(observed, tied, 0),
        observed=observed,
        margin=observed * torch.as_tensor(margin, dtype=torch.float64),
        rank=rank,
        score=torch.full((*rank.shape, 0), torch.nan).double() if score is None else exact(score),
        candidate=torch.ones_like(ranked),
        weight=torch.ones(len(rank)),
    )


def random_target(*, sizes=(4, 2, 3, 4), seed=0):
    """Ragged groups with vote shares, ties, uncompared pairs, margins and one attribute; group 1 has no votes."""
    g = torch.Generator().manual_seed(seed)
    b, k = len(sizes), max(sizes)
    candidate = torch.arange(k) < torch.tensor(sizes)[:, None]
    compared = (torch.rand(b, k, k, generator=g) < 0.8).triu(1) & candidate[:, :, None] & candidate[:, None, :]
    compared[1] = False
    compared[0, 0, 1] = True
    up = torch.rand(b, k, k, 3, generator=g, dtype=torch.float64).softmax(-1)
    win, tie = up[..., 0] + up[..., 1] / 2, up[..., 1]
    win, tie = torch.where(compared, win, 0), torch.where(compared, tie, 0)
    observed = compared | compared.mT
    margin = torch.where(compared, torch.rand(b, k, k, generator=g).double(), 0)
    rank = torch.where(candidate, torch.randint(0, 3, (b, k), generator=g), -1)
    rank[0] = torch.tensor([0, 1, 0, -1])[:k]  # two tied for the best, one not ranked
    rank[1] = -1
    score = torch.where(candidate, torch.randint(1, 6, (b, k), generator=g).double(), torch.nan)
    score[1] = torch.nan
    score[2, 0] = torch.nan
    return Target(
        win_prob=win + torch.where(compared, 1 - win, 0).mT,
        tie_prob=tie + tie.mT,
        observed=observed,
        margin=margin + margin.mT,
        rank=rank,
        score=score.unsqueeze(-1),
        candidate=candidate,
        weight=torch.ones(b),
    )


OVER_PAIRS = ("win_prob", "tie_prob", "observed", "margin")
OVER_PLACES = ("rank", "score", "candidate")


def padded(target, extra):
    """The same groups with `extra` more places of padding."""
    new = {name: torch.nn.functional.pad(getattr(target, name), (0, extra, 0, extra)) for name in OVER_PAIRS}
    new["rank"] = torch.nn.functional.pad(target.rank, (0, extra), value=-1)
    new["score"] = torch.nn.functional.pad(target.score, (0, 0, 0, extra), value=torch.nan)
    new["candidate"] = torch.nn.functional.pad(target.candidate, (0, extra))
    return replace(target, **new)


def permuted(target, order):
    """The same groups with their places in another order."""
    new = {name: getattr(target, name)[:, order][:, :, order] for name in OVER_PAIRS}
    return replace(target, **new, **{name: getattr(target, name)[:, order] for name in OVER_PLACES})


def single_precision(target):
    """The same target in fp32, as training has it."""
    values = {k: v.float() if v is not None and v.is_floating_point() else v for k, v in vars(target).items()}
    return Target(**values)


def alone(target, b):
    """Group b by itself, cut to its real completions."""
    real = target.candidate[b].nonzero().squeeze(-1)
    one = Target(**{k: None if v is None else v[b : b + 1] for k, v in vars(target).items()})
    return permuted(one, real)
