"""The queue before the model: who goes in together, who is sent away, and whose failure is whose."""

import asyncio
import logging
import threading

import pytest
import torch
from fastapi.testclient import TestClient

import rlhf
from rlhf.assemble import CONF
from rlhf.data.render import Encoded
from rlhf.reward.scoring.engine import GroupScores
from rlhf.serve.batcher import Batcher, Busy
from rlhf.serve.web import Limits, Service, app


def group(number, tokens=10):
    return Encoded([], [[number] * tokens], [0], 0, 0)


class Fake:
    """Scores a group by its number; waits while `gate` is closed; fails for group 13."""

    batch_tokens = 100

    def __init__(self):
        self.batches, self.gate = [], threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def tokens(self, encoded):
        return len(encoded.responses[0])

    def score(self, groups):
        self.entered.set()
        self.gate.wait(30)
        numbers = [g.responses[0][0] for g in groups]
        self.batches.append(numbers)
        if 13 in numbers:
            raise RuntimeError("thirteen")
        return [GroupScores(*[torch.tensor([float(n)])] * 3) for n in numbers]


def run(work, queue_tokens=1000):
    model = Fake()

    async def main():
        batcher = Batcher(model, queue_tokens=queue_tokens)
        await batcher.start()
        try:
            return await work(batcher, model)
        finally:
            model.gate.set()
            await batcher.stop()

    return asyncio.run(asyncio.wait_for(main(), 60)), model


async def entered(model):
    while not model.entered.is_set():
        await asyncio.sleep(0.001)


def value(scores):
    return [float(s.members[0]) for s in scores]


def test_what_waits_while_the_model_works_goes_in_together_up_to_the_budget():
    async def work(batcher, model):
        model.gate.clear()
        first = asyncio.create_task(batcher.score([group(0)]))
        await entered(model)
        others = [asyncio.create_task(batcher.score([group(n), group(n + 100)])) for n in range(1, 9)]
        await asyncio.sleep(0)
        model.gate.set()
        return value(await first), [value(await o) for o in others]

    (first, others), model = run(work)
    assert first == [0]
    assert others == [[n, n + 100] for n in range(1, 9)]
    assert [len(b) for b in model.batches] == [1, 10, 6]  # 16 groups of 10 tokens, 100 tokens a batch


def test_a_full_queue_sends_away_and_takes_again_when_it_is_empty():
    async def work(batcher, model):
        model.gate.clear()
        first = asyncio.create_task(batcher.score([group(0)]))
        await entered(model)
        second = asyncio.create_task(batcher.score([group(1, 25)]))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="queue_tokens=30"):
            await batcher.score([group(2)])
        model.gate.set()
        return value(await first), value(await second), value(await batcher.score([group(3)]))

    found, _ = run(work, queue_tokens=30)
    assert found == ([0], [1], [3])


def test_one_that_is_larger_than_the_queue_is_served_when_nothing_waits():
    found, _ = run(lambda batcher, _: batcher.score([group(5, 80)]), queue_tokens=30)
    assert value(found) == [5]


def test_a_group_that_fails_does_not_fail_its_neighbours():
    async def work(batcher, model):
        model.gate.clear()
        first = asyncio.create_task(batcher.score([group(0)]))
        await entered(model)
        tasks = [asyncio.create_task(batcher.score([group(n)])) for n in (12, 13, 14)]
        await asyncio.sleep(0)
        model.gate.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    (a, b, c), _ = run(work)
    assert (value(a), value(c)) == ([12], [14])
    assert isinstance(b, RuntimeError)


def test_whoever_is_gone_is_not_scored():
    async def work(batcher, model):
        model.gate.clear()
        first = asyncio.create_task(batcher.score([group(0)]))
        await entered(model)
        gone = asyncio.create_task(batcher.score([group(7)]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        await first
        return value(await batcher.score([group(8)]))

    found, model = run(work)
    assert found == [8]
    assert 7 not in [n for b in model.batches for n in b]


def test_stopping_finishes_what_waits():
    async def work(batcher, model):
        model.gate.clear()
        tasks = [asyncio.create_task(batcher.score([group(n)])) for n in range(20, 50)]
        await entered(model)
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0)
        model.gate.set()
        await stopping
        return [value(await t)[0] for t in tasks]

    found, _ = run(work)
    assert found == list(range(20, 50))


@pytest.fixture(scope="module")
def ensemble(exported):
    return rlhf.load(exported(1, members=3), batch_tokens=300)


def test_members_of_an_ensemble_come_along_and_large_groups_are_cut(ensemble):
    texts = [f"answer {i} " * (i + 1) for i in range(12)]  # 12 answers of up to 120 tokens in batches of 300
    with TestClient(app(Service(ensemble, Limits()))) as client:
        found = client.post("/score", json={"prompt": "Why?", "completions": texts}).json()
    expected = ensemble.members("Why?", texts)
    torch.testing.assert_close(torch.tensor(found["members"]).T, expected, atol=1e-6, rtol=0)
    assert found["scores"] == pytest.approx(ensemble.score("Why?", texts), abs=1e-6)


def test_a_failure_is_told_without_its_message(ensemble, caplog, monkeypatch):
    secret = "xylophone-7731"

    def fail(groups):
        raise RuntimeError(f"cannot score {secret}")

    monkeypatch.setattr(ensemble.engine, "score", fail)
    with caplog.at_level(logging.DEBUG), TestClient(app(Service(ensemble, Limits()))) as client:
        answer = client.post("/score", json={"prompt": secret, "completions": [secret]})
    assert answer.status_code == 500
    assert "RuntimeError" in answer.json()["error"]
    assert any("RuntimeError at" in r.getMessage() for r in caplog.records)
    assert secret not in caplog.text + answer.text


def test_a_busy_service_says_when_to_come_back(ensemble, monkeypatch):
    service = Service(ensemble, Limits())

    async def full(groups):
        raise Busy("full")

    monkeypatch.setattr(service.batcher, "score", full)
    with TestClient(app(service)) as client:
        answer = client.post("/score", json={"prompt": "a", "completions": ["b"]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_the_configuration_fits_what_it_configures(root):
    import inspect

    import hydra

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("serve", overrides=["run=x"])
    assert set(cfg.limits) - {"_target_"} == set(inspect.signature(Limits).parameters)
    assert hydra.utils.instantiate(cfg.limits) == Limits()
