"""Rule terms and ensemble aggregators against counting by hand and numpy."""

from functools import partial

import numpy as np
import pytest
import torch

from rlhf.optimise.shaping import ensemble as torch_ensemble
from rlhf.optimise.shaping.rules import Completions, Penalty, malformed, overlong, repeated, unfinished
from rlhf.stats import ensemble


def completions(rows, ended=None, texts=None) -> Completions:
    width = max(map(len, rows))
    tokens = torch.tensor([list(r) + [0] * (width - len(r)) for r in rows])
    mask = torch.tensor([[i < len(r) for i in range(width)] for r in rows])
    finished = torch.tensor(ended or [True] * len(rows))
    return Completions(tokens, mask, finished, texts or [""] * len(rows))


def test_the_length_ramp_is_daposs():
    """Yu et al. 2025: 0 up to L_max - L_cache, then (L_max - L_cache - |y|) / L_cache, then -1."""
    found = overlong(completions([range(n) for n in (1, 6, 7, 8, 10, 14)]), limit=10, buffer=4)
    torch.testing.assert_close(found, torch.tensor([0, 0, 0.25, 0.5, 1, 1]))


def test_repeated_n_grams_are_counted_inside_the_mask_only():
    rows = completions([[1, 2, 3, 1, 2, 3], [1, 2, 3, 4], [5, 5, 5, 5, 5], [7, 8]])
    torch.testing.assert_close(repeated(rows, n=3), torch.tensor([0.25, 0, 2 / 3, 0]))


def test_format_and_end():
    rows = completions([[1]] * 3, ended=[True, False, True], texts=["Yes.\nNo.", "yes", "Yes. and"])
    assert malformed(rows, pattern=r"[A-Z].*\.").tolist() == [0, 1, 1]
    assert unfinished(rows).tolist() == [0, 1, 0]


def test_a_penalty_subtracts_or_replaces():
    rows = completions([range(n) for n in (6, 8)])
    rule = partial(overlong, limit=10, buffer=4)
    subtract, replace = Penalty(rule, 2.0)(rows), Penalty(rule, 2.0, replace=True)(rows)
    assert subtract.value.tolist() == [0, -1]
    assert not subtract.replaces.any()
    assert replace.value.tolist() == [0, -2]
    assert replace.replaces.tolist() == [False, True]
    with pytest.raises(ValueError, match="must be positive"):
        Penalty(rule, 0.0)
    with pytest.raises(ValueError, match="buffer"):
        overlong(rows, limit=4, buffer=5)


MEMBERS = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
AGGREGATORS = {
    "mean": (torch_ensemble.mean, lambda x: x.mean(0)),
    "median": (torch_ensemble.median, lambda x: np.median(x, 0)),
    "worst_case": (torch_ensemble.worst_case, lambda x: x.min(0)),
    "uwo": (partial(torch_ensemble.mean_minus_variance, weight=0.5), lambda x: x.mean(0) - 0.5 * x.var(0, ddof=0)),
    "lcb": (partial(torch_ensemble.mean_minus_std, weight=2.0), lambda x: x.mean(0) - 2 * x.std(0, ddof=0)),
}


@pytest.mark.parametrize("name", AGGREGATORS)
def test_aggregators_are_numpys_with_the_population_variance(name):
    ours, oracle = AGGREGATORS[name]
    for members in (MEMBERS, MEMBERS[:4], MEMBERS[:1]):
        score, penalty = ours(members)
        np.testing.assert_allclose((score - penalty).numpy(), oracle(members.numpy()), rtol=1e-5, atol=1e-5)
        assert bool((penalty >= 0).all())


def test_ddof_is_pinned():
    sample = MEMBERS.var(0, correction=1)
    _, penalty = torch_ensemble.mean_minus_variance(MEMBERS, weight=1.0)
    torch.testing.assert_close(sample / penalty, torch.full((40,), 1.25))
    torch.testing.assert_close(torch_ensemble.spread(MEMBERS) ** 2, penalty)


def test_identical_members_have_no_variance_and_all_aggregators_agree():
    same = MEMBERS[:1].expand(5, -1)
    for ours, _ in AGGREGATORS.values():
        score, penalty = ours(same)
        torch.testing.assert_close(score, same[0])
        torch.testing.assert_close(penalty, torch.zeros(40), atol=1e-6, rtol=0)


def test_members_are_normalised_one_by_one():
    scaled = MEMBERS * torch.tensor([1, 10, 0.1, 3, 2])[:, None] + torch.arange(5)[:, None]
    z = torch_ensemble.normalise(scaled, scaled.mean(1), scaled.std(1))
    torch.testing.assert_close(
        z, torch_ensemble.normalise(MEMBERS, MEMBERS.mean(1), MEMBERS.std(1)), atol=1e-4, rtol=1e-4
    )
    with pytest.raises(ValueError, match=r"members \[1\]"):
        torch_ensemble.normalise(scaled, scaled.mean(1), torch.tensor([1.0, 0, 1, 1, 1]))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (torch_ensemble.mean, ensemble.mean),
        (torch_ensemble.median, ensemble.median),
        (torch_ensemble.worst_case, ensemble.worst_case),
        (partial(torch_ensemble.mean_minus_variance, weight=0.7), partial(ensemble.mean_minus_variance, weight=0.7)),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 5])
def test_training_and_evaluation_aggregate_alike(ours, theirs, size):
    members = torch.randn(size, 50, generator=torch.Generator().manual_seed(size))
    score, penalty = ours(members)
    np.testing.assert_allclose((score - penalty).numpy(), theirs(members.double().numpy()), atol=1e-5)
