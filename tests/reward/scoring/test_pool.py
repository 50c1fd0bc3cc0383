"""Scoring a pool: every text once, in order, in the memory of a block of records, over any number of processes."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rlhf.data.render import Renderer
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.models import layouts
from rlhf.models.backbone import Backbone
from rlhf.models.heads import EnsembleHead, LinearHead
from rlhf.models.pretrained import Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.reward.scoring import engine, pool
from rlhf.reward.scoring.pool import read_scores, score_pool
from rlhf.reward.scoring.scorer import Scorer
from rlhf.toy.world import ToyWorld

WORLD = ToyWorld(size=37)


def build(head=LinearHead, max_length=512, **options):
    model_source = Tiny(width=32, depth=1)
    tokenizer = model_source.tokenizer()
    model = RewardModel(Backbone(model_source.classifier(tokenizer)), head(32))
    return Scorer(model, Renderer(tokenizer, max_length=max_length), Calibration.identity(), **options)


def by_hand(scorer):
    return [s for r in WORLD.records() for s in scorer.score(r.prompt, [c.text for c in r.completions])]


def test_every_completion_is_scored_once_in_order_as_the_scorer_does(tmp_path):
    for layout in (layouts.always_shared, layouts.always_padded):
        scorer = build(layout=layout, batch_tokens=2000)
        table = score_pool(scorer, WORLD, tmp_path / layout.__name__)
        found = table.to_pydict()
        assert found["prompt_id"] == [r.prompt_id for r in WORLD.records() for _ in r.completions]
        assert found["completion_id"] == [c.id for r in WORLD.records() for c in r.completions]
        np.testing.assert_allclose(found["reward"], by_hand(build()), atol=1e-5)


def test_members_of_an_ensemble_are_kept(tmp_path):
    found = score_pool(build(EnsembleHead), WORLD, tmp_path).to_pydict()
    assert {len(m) for m in found["members"]} == {5}
    np.testing.assert_allclose(np.mean(found["members"], axis=1), found["reward"], atol=1e-5)


def test_what_is_too_long_to_be_read_has_a_row_without_a_score(tmp_path):
    found = score_pool(build(max_length=120), WORLD, tmp_path).to_pydict()
    total = sum(len(r.completions) for r in WORLD.records())
    lost = sum(r is None for r in found["reward"])
    assert len(found["reward"]) == total
    assert 0 < lost < total


def test_batches_keep_to_their_budget_and_the_stream_is_read_a_block_ahead(tmp_path, monkeypatch):
    scorer, read, sizes, ahead = build(batch_tokens=3000), [], [], []
    forward = engine.forward

    def measured(model, tokens, precision=None):
        sizes.append(tokens.input_ids.shape[1])
        ahead.append(len(read))
        return forward(model, tokens, precision)

    class Long:
        def records(self):
            for record in ToyWorld(size=120).records():
                read.append(record)
                yield record

    monkeypatch.setattr(engine, "forward", measured)
    monkeypatch.setattr(pool, "SCORED_TOGETHER", 16)
    score_pool(scorer, Long(), tmp_path)
    assert max(sizes) <= 3000
    assert np.median(sizes) > 1500
    assert sorted(set(ahead)) == [16, 32, 48, 64, 80, 96, 112, 120]


def test_scores_are_never_overwritten(tmp_path):
    scorer = build()
    score_pool(scorer, WORLD, tmp_path)
    with pytest.raises(FileExistsError, match="choose another folder"):
        score_pool(scorer, WORLD, tmp_path)
    with pytest.raises(FileNotFoundError):
        read_scores(tmp_path / "elsewhere")


def _score_in_two(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    score_pool(build(batch_tokens=2000), WORLD, folder)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_a_pool(tmp_path):
    mp.spawn(_score_in_two, (tmp_path,), nprocs=2)
    assert len(list(tmp_path.glob("scores-*.parquet"))) == 2
    np.testing.assert_allclose(read_scores(tmp_path).to_pydict()["reward"], by_hand(build()), atol=1e-5)
