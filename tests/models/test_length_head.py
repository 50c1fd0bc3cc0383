"""The length-controlled head: its penalty against scipy, what it leaves alone, and that it learns."""

from functools import partial

import numpy as np
import pytest
import torch
from reward_modules import build_data, build_module
from scipy.stats import pearsonr

from rlhf.models.heads import LinearHead
from rlhf.models.length_head import LengthControlledHead, within_slope
from rlhf.models.reward_model import RewardModel
from rlhf.reward.losses import pairwise

GROUP = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def centred(values):
    values = values.detach().numpy()
    means = np.array([values[g == GROUP].mean() for g in range(3)])
    return values - means[GROUP]


def test_the_slope_is_pearsons_correlation_times_the_spread_of_what_varies_within_a_prompt():
    a, b = random(9), random(9, seed=1)
    expected = pearsonr(centred(a), centred(b)).statistic * centred(a).std()
    assert within_slope(a, b, GROUP).item() == pytest.approx(expected)
    shift = random(3, seed=2)[GROUP] * 100
    torch.testing.assert_close(within_slope(a + shift, 7 * b - 3, GROUP), within_slope(a, b, GROUP))
    torch.testing.assert_close(
        within_slope(2 * a + b, b, GROUP) - within_slope(b, b, GROUP), 2 * within_slope(a, b, GROUP)
    )


def test_what_does_not_vary_correlates_with_nothing_and_has_no_gradient():
    a = random(9).requires_grad_()
    found = within_slope(a, torch.ones(9, dtype=torch.float64), GROUP)
    assert found == 0
    found.backward()
    assert torch.equal(a.grad, torch.zeros(9, dtype=torch.float64))


def test_the_gradient_of_the_slope_is_right():
    inputs = (random(9).requires_grad_(), random(9, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: within_slope(a, b, GROUP), inputs)


def test_the_penalty_is_its_formula():
    head = LengthControlledHead(4, decorrelation=0.7).double()
    output, length = head(random(9, 4)), torch.arange(1, 10)
    slope = within_slope(output, (1 + length.double()).log(), GROUP).item()
    assert head.penalty(output, length, GROUP).item() == pytest.approx(0.7 * slope**2)


def test_votes_are_explained_with_the_length_and_quality_alone_is_reported():
    head = LengthControlledHead(4)
    output = head(random(9, 4, dtype=torch.float32))
    torch.testing.assert_close(head.explained(output, torch.arange(9)), output)  # γ starts at 0
    head.paid.data.fill_(0.25)
    assert head.gamma.item() == 1
    torch.testing.assert_close(head.explained(output, torch.arange(9)), output + torch.arange(1.0, 10.0).log())
    torch.testing.assert_close(head.combine(output), output)


def test_the_same_seed_gives_the_same_quality_head_as_without_control():
    torch.testing.assert_close(LengthControlledHead(8, seed=3).weight, LinearHead(8, seed=3).weight)


def test_without_penalty_and_before_the_first_step_it_is_the_plain_head(tmp_path):
    batch = next(iter(build_data(tmp_path).train_dataloader()))
    assert batch.length.tolist() == [n for n in batch.length.tolist() if n > 0]
    plain, controlled = (
        build_module(pairwise, head) for head in (LinearHead, partial(LengthControlledHead, decorrelation=0.0))
    )
    controlled.model.backbone.load_state_dict(plain.model.backbone.state_dict())
    torch.testing.assert_close(controlled.step_loss(batch), plain.step_loss(batch))
    controlled.model.head.decorrelation = 1.0
    assert controlled.step_loss(batch) > plain.step_loss(batch)


def test_lengths_of_a_batch_are_characters_of_its_completions(tmp_path):
    data = build_data(tmp_path, size=40)
    batch = next(iter(data.loader("val", 64, None)))
    stored = data.rows["val"][batch.row.tolist()]["length"]
    assert batch.length.tolist() == [n for row in stored for n in row]


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"head\.decorrelation=-1"):
        LengthControlledHead(4, decorrelation=-1.0)


def trained(head, states, length, pairs, target, steps=400):
    """Quality [N] after training on given states alone: pairs (first, second) with vote shares `target`."""
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    group = torch.arange(len(states)) // 2
    for _ in range(steps):
        output = head(states)
        reward = head.explained(output, length)
        logit = reward[pairs[:, 0]] - reward[pairs[:, 1]]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, target)
        penalty = head.penalty(output, length, group)
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
    return head.combine(head(states)).detach().numpy()


@pytest.mark.slow
@pytest.mark.slow
def test_it_learns_quality_where_annotators_pay_for_length():
    """Votes σ(quality + 1.5 length) on independent cues: the plain reward follows both, the controlled one quality.

    Ten worlds; correlations with length fall by some 0.8, those with quality rise by 0.45, each with a spread of 0.05.
    """
    for seed in range(10):
        rng = np.random.default_rng(seed)
        cues = rng.normal(size=(800, 2))  # quality and length, mixed into six states
        states = torch.tensor(cues @ rng.normal(size=(2, 6)) + 0.05 * rng.normal(size=(800, 6))).float()
        length = torch.tensor(np.round(np.exp(5 + 0.5 * cues[:, 1]))).long()
        pairs = torch.arange(800).reshape(-1, 2)
        odds = (cues @ [1.0, 1.5])[pairs[:, 0]] - (cues @ [1.0, 1.5])[pairs[:, 1]]
        votes = torch.tensor(rng.random(400) < 1 / (1 + np.exp(-odds))).float()
        found = {
            head.__name__: trained(head(6, seed=seed), states, length, pairs, votes)
            for head in (LinearHead, LengthControlledHead)
        }
        plain, controlled = found["LinearHead"], found["LengthControlledHead"]
        with_length = [np.corrcoef(r, cues[:, 1])[0, 1] for r in (plain, controlled)]
        with_quality = [np.corrcoef(r, cues[:, 0])[0, 1] for r in (plain, controlled)]
        assert with_length[0] > 0.6
        assert abs(with_length[1]) < 0.15
        assert with_quality[1] > max(0.95, with_quality[0] + 0.15)


@pytest.mark.fresh_process
@pytest.mark.slow
def test_a_model_with_the_head_exports_as_a_plain_classifier(tmp_path):
    from rlhf.data.render import Renderer
    from rlhf.evaluation.metrics.calibration import Calibration
    from rlhf.models.pretrained import Tiny
    from rlhf.reward.export import export
    from rlhf.reward.scoring.scorer import load

    module = build_module(head=LengthControlledHead)
    assert isinstance(module.model, RewardModel)
    export(module.model, Renderer(Tiny().tokenizer(), max_length=256), tmp_path / "m", Calibration.identity())
    assert not (tmp_path / "m" / "members.safetensors").exists()
    scorer = load(tmp_path / "m")
    assert scorer.members("Q", ["a", "bb"]).shape == (2,)
