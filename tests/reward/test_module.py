"""One step for every loss: accumulation, ragged groups, masked groups, exact evaluation."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from reward_modules import build_data, build_module

from rlhf.models.heads import EnsembleHead, LinearHead
from rlhf.reward.losses import dpo, plackett_luce, ranking, soft_label
from rlhf.reward.schedule import linear, parameter_groups
from rlhf.reward.scoring.splits import gather, score_split, scored


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build_data(tmp_path_factory.mktemp("cache"))


def gradients(module, batches):
    module.zero_grad()
    for batch in batches:
        torch.autograd.backward(module.step_loss(batch) / len(batches))
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("loss", [soft_label, ranking, plackett_luce])
@pytest.mark.parametrize("head", [LinearHead, EnsembleHead])
def test_accumulated_small_batches_give_the_gradient_of_the_big_one(tmp_path, data, loss, head):
    module = build_module(loss, head, centring_weight=0.01)
    rows = list(range(16))
    small = [data.loader("train", 8, None).collate_fn(data.rows["train"][rows[i : i + 8]]) for i in (0, 8)]
    big = data.loader("train", 16, None).collate_fn(data.rows["train"][rows])
    assert len({int(b.target.candidate.sum()) for b in small}) == 2  # ragged
    torch.testing.assert_close(gradients(module, small), gradients(module, [big]), atol=1e-6, rtol=1e-5)


def test_a_batch_whose_groups_are_all_masked_costs_nothing(data):
    batch = next(iter(data.loader("val", 64, None)))
    empty = type(batch.target)(**{**vars(batch.target), "observed": torch.zeros_like(batch.target.observed)})
    module = build_module()
    loss = module.step_loss(type(batch)(**{**vars(batch), "target": empty}))
    assert loss == 0
    torch.autograd.backward(loss)
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_rewards_come_back_to_their_groups_and_places(data):
    batch = next(iter(data.loader("val", 64, None)))
    numbered = torch.arange(float(len(batch.group)))
    grouped = batch.unflatten(numbered)
    assert torch.equal(grouped[batch.target.candidate], numbered)
    with pytest.raises(ValueError, match="rewards for"):
        batch.unflatten(numbered[1:])


def test_a_group_scores_the_same_whatever_shares_its_batch(data):
    module = build_module().eval()
    rewards = [score_split(module.model, data.loader("val", n, None)) for n in (1, 5, 64)]
    for row, alone in rewards[0].items():
        np.testing.assert_allclose(rewards[1][row], alone, atol=1e-5)
        np.testing.assert_allclose(rewards[2][row], alone, atol=1e-5)


def test_biases_norms_and_scalars_do_not_decay():
    decayed, free = parameter_groups(build_module(), 0.1)
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in free["params"])


def test_the_linear_schedule_warms_up_and_ends_where_it_should():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = linear(optimizer, 10, warmup=0.2, end=0.1)
    rates = []
    for _ in range(11):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:2] == [0.5, 1.0]
    assert rates[10] == pytest.approx(0.1)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_policy_loss_is_refused():
    with pytest.raises(ValueError, match="loss=pairwise"):
        build_module(partial(dpo, beta=0.1))


def _score_in_two(rank, cache, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{cache}/rendezvous", rank=rank, world_size=2)
    data, module = build_data(cache, 703), build_module().eval()
    loader = data.loader("test", 64, None)
    share = score_split(module.model, loader)
    together = gather(share)
    if rank == 0:
        torch.save({"rewards": {k: v.tolist() for k, v in together.items()}, "share": len(share)}, out)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_evaluate_exactly_what_one_does(tmp_path):
    data, module = build_data(tmp_path, 703), build_module().eval()
    rows = len(data.rows["test"])
    assert rows % 2 == 1, "an odd number of rows makes the processes' shares uneven"
    alone = score_split(module.model, data.loader("test", 64, None))
    mp.spawn(_score_in_two, (tmp_path, tmp_path / "out.pt"), nprocs=2)
    found = torch.load(tmp_path / "out.pt")
    assert found["share"] < rows
    assert found["rewards"].keys() == alone.keys()
    for row, reward in alone.items():
        np.testing.assert_allclose(found["rewards"][row], reward, atol=1e-6)
    table = scored(data.rows["test"], alone)
    assert len(table.prompt) == rows
