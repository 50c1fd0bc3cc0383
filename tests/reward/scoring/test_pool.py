"""Scoring a pool: every completion once, in order, in the memory of a batch, over any number of processes."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from rlhf.data.pool import Pool
from rlhf.reward.pool import read_scores, score_pool

from rlhf.data.render import Renderer
from rlhf.data.token_layout import padded, shared
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.models.backbone import Backbone
from rlhf.models.heads import EnsembleHead, LinearHead
from rlhf.models.pretrained import Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.reward.losses import pairwise
from rlhf.reward.module import RewardModule
from rlhf.reward.scoring.scorer import Scorer
from rlhf.toy.world import ToyWorld

WORLD = ToyWorld(size=37)
CPU = {"accelerator": "cpu", "devices": 1}


def build(head=LinearHead):
    model_source = Tiny(width=32, depth=1)
    tokenizer = model_source.tokenizer()
    backbone = Backbone(model_source.classifier(tokenizer))
    module = RewardModule(RewardModel(backbone, head(32)), loss=pairwise, optimizer=None, schedule=None)
    return module, Renderer(tokenizer, max_length=512)


def by_hand(module, renderer):
    scorer = Scorer(module.model, renderer, Calibration.identity())
    return [s for r in WORLD.records() for s in scorer.score(r.prompt, [c.text for c in r.completions])]


def test_every_completion_is_scored_once_in_order_as_the_scorer_does(tmp_path):
    module, renderer = build()
    for name, layout in (("shared", shared), ("padded", partial(padded, pad_id=0))):
        table = score_pool(module, Pool(WORLD, renderer, layout, batch_tokens=2000), tmp_path / name, **CPU)
        found = table.to_pydict()
        assert found["prompt_id"] == [r.prompt_id for r in WORLD.records() for _ in r.completions]
        assert found["completion_id"] == [c.id for r in WORLD.records() for c in r.completions]
        np.testing.assert_allclose(found["reward"], by_hand(module, renderer), atol=1e-5)


def test_members_of_an_ensemble_are_kept(tmp_path):
    module, renderer = build(EnsembleHead)
    found = score_pool(module, Pool(WORLD, renderer, shared), tmp_path, **CPU).to_pydict()
    assert {len(m) for m in found["members"]} == {5}
    np.testing.assert_allclose(np.mean(found["members"], axis=1), found["reward"], atol=1e-5)


def test_what_is_too_long_to_be_read_has_a_row_without_a_score(tmp_path):
    module, renderer = build()
    short = Renderer(renderer.tokenizer, max_length=120)
    found = score_pool(module, Pool(WORLD, short, shared), tmp_path, **CPU).to_pydict()
    total = sum(len(r.completions) for r in WORLD.records())
    lost = sum(r is None for r in found["reward"])
    assert len(found["reward"]) == total
    assert 0 < lost < total


def test_a_batch_holds_about_its_budget_and_the_stream_is_not_read_ahead():
    _, renderer = build()
    read = []

    class Endless:
        def records(self):
            for i in range(10**9):
                read.append(i)
                yield WORLD.record(i % 37)

    batches = list(islice(iter(Pool(Endless(), renderer, shared, batch_tokens=3000)), 5))
    sizes = [b.tokens.input_ids.shape[1] for b in batches]
    assert all(1500 < n <= 3000 for n in sizes)
    assert len(read) < 80


def test_scores_are_never_overwritten(tmp_path):
    module, renderer = build()
    score_pool(module, Pool(WORLD, renderer, shared), tmp_path, **CPU)
    with pytest.raises(FileExistsError, match="choose another folder"):
        score_pool(module, Pool(WORLD, renderer, shared), tmp_path, **CPU)
    with pytest.raises(FileNotFoundError):
        read_scores(tmp_path / "elsewhere")


def _score_in_two(rank, folder):
    import os

    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(20000 + os.getppid() % 20000)}  # fmt: skip
    module, renderer = build()
    options = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    score_pool(module, Pool(WORLD, renderer, shared, batch_tokens=2000), folder, **options)


@pytest.mark.slow
def test_two_processes_share_a_pool(tmp_path):
    mp.spawn(_score_in_two, (tmp_path,), nprocs=2)
    assert len(list(tmp_path.glob("scores-*.parquet"))) == 2
    module, renderer = build()
    np.testing.assert_allclose(
        read_scores(tmp_path).to_pydict()["reward"], by_hand(module, renderer), atol=1e-5
    )
