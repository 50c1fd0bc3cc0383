"""Fits of the published forms, best-of-n, the playground's orderings over seeds, the trade-off's targets."""

from math import comb

import numpy as np
import pytest
import torch

from rlhf.evaluation.metrics.best_of_n import selection_weights
from rlhf.optimise.policy.rollout import isolated_seed
from rlhf.reward.losses import dpo, soft_label
from rlhf.stats.ensemble import mean
from rlhf.studies.ablation import ablation, interval
from rlhf.studies.gaussian_world import GaussianWorld, best_of_n_curve, fit_rl, rl_curve, single
from rlhf.studies.tradeoff_methods import _targets
from rlhf.toy.gold import ToyGold
from rlhf.toy.tabular_policy import TabularPolicy
from rlhf.toy.world import ToyWorld


def test_the_fit_of_rl_recovers_its_coefficients_and_its_peak():
    d = np.linspace(0, 4, 30)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(d > 0, d * (1.5 - 0.7 * np.log(d)), 0.0)
    rl = fit_rl(d, gain)
    assert (rl.alpha, rl.beta) == pytest.approx((1.5, 0.7))
    fine = np.linspace(0.1, 20, 20000)
    assert rl.peak == pytest.approx(fine[(fine * (1.5 - 0.7 * np.log(fine))).argmax()], rel=1e-3)
    with pytest.raises(ValueError, match="at least 3"):
        fit_rl([0, 1, 2], [0, 1, 1])


@pytest.mark.parametrize(("most", "n"), [(1, 1), (8, 1), (8, 3), (8, 8), (1024, 37)])
def test_best_of_n_chances_are_the_combinatorial_ones(most, n):
    found = selection_weights(n, most)
    assert found.sum() == pytest.approx(1)
    wanted = [comb(i - 1, n - 1) / comb(most, n) for i in range(1, most + 1)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-300)


def test_gold_rises_then_falls_and_a_kl_penalty_stops_it():
    """Over five worlds: without a penalty gold ends below its start though the proxy rises; β = 0.5 keeps a gain."""
    free = [rl_curve(GaussianWorld(seed=s), mean, steps=150) for s in range(5)]
    held = [rl_curve(GaussianWorld(seed=s), mean, beta=0.5, steps=150) for s in range(5)]
    for kl, gold, proxy in free:
        assert gold.max() > gold[0]
        assert gold[-1] < gold[0]
        assert proxy[-1] > proxy[0] + 3
        assert kl[-1] > 20
    assert np.mean([g[-1] - g[0] for _, g, _ in held]) > 0.2
    assert max(k[-1] for k, _, _ in held) < 5


def test_the_policys_kl_under_a_penalty_is_the_closed_form():
    """For a linear proxy w · x of |w| = 1 the optimum is μ = w / β: KL = 1 / (2β²)."""
    kl, _, _ = rl_curve(GaussianWorld(seed=0), single, beta=1.0, steps=300)
    assert kl[-100:].mean() == pytest.approx(0.5, rel=0.1)


def test_an_ensemble_helps_best_of_n_where_labels_are_noisy():
    ns = np.array([1, 16, 256])
    gain = [
        best_of_n_curve(w, mean, ns, prompts=40)[-1] - best_of_n_curve(w, single, ns, prompts=40)[-1]
        for w in (GaussianWorld(seed=s) for s in range(6))
    ]
    assert np.mean(gain) > 0


def test_dpo_on_pairs_is_dpo_on_records():
    records = [r for r in ToyWorld(size=40).records()]
    first, second, target = _targets(records)
    reward = torch.randn(sum(len(r.completions) for r in records), generator=torch.Generator().manual_seed(0))
    difference = reward[first] - reward[second]
    p = target.win_prob[:, 0, 1]
    wanted = -(
        p * torch.nn.functional.logsigmoid(0.3 * difference)
        + (1 - p) * torch.nn.functional.logsigmoid(-0.3 * difference)
    )
    pairs = torch.stack([reward[first], reward[second]], 1)
    torch.testing.assert_close(dpo(pairs, target, beta=0.3), wanted)
    torch.testing.assert_close(soft_label(0.3 * pairs, target), wanted)


def test_recalled_answers_have_the_log_probabilities_they_were_drawn_with():
    world = ToyWorld(size=60)
    gold = ToyGold(world)
    policy = TabularPolicy(gold)
    from rlhf.collect.prompts import Task

    tasks = [Task("", r.prompt_id, r.prompt, r.domain, None) for r in world.records()]
    with isolated_seed(3), torch.no_grad():
        said = policy.rollout(tasks, 2)
        again = policy.recall([tasks[i].prompt for i in said.group.tolist()], said.completions.texts)
        same = (said.state[1] == again.state[1]).all(1)
    # an off-topic answer does not say whether it would have been right; longer padding than FILLERS repeats a sentence
    plain = (said.state[1][:, 5] == 0) & (said.state[1][:, 3] <= 4)
    assert bool(same[plain].all())


def test_the_ablation_pairs_seeds_and_states_intervals(tmp_path):
    def run(shift):
        return lambda seed, folder: {"gold": seed + shift, "peak_gold": seed + 2.0}

    metrics = ablation({"nothing": run(0.0), "better": run(0.5)}, [0, 1, 2], tmp_path)
    assert metrics["better/gain"] == pytest.approx(0.5)
    assert metrics["better/gain/low"] == pytest.approx(0.5)
    assert metrics["nothing/gold/high"] - metrics["nothing/gold"] == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
    assert interval([1.0, 3.0])[0] == 2
    assert "| better |" in (tmp_path / "ablation.md").read_text()
    with pytest.raises(ValueError, match="at least 2"):
        ablation({"nothing": run(0.0)}, [0], tmp_path)
