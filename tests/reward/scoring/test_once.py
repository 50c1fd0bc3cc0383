"""Every distinct text is read once, wherever texts are scored; the numbers are those of scoring each by itself."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from reward_modules import build_data, build_module

from rlhf.data.datamodule import PreferenceData
from rlhf.data.distinct import DistinctTexts
from rlhf.data.render import Renderer
from rlhf.labels.aggregation import soft
from rlhf.models.pretrained import Tiny
from rlhf.optimise.shaping.reward_source import _scores
from rlhf.records import Comparison, Completion, Vote
from rlhf.reward.scoring.once import ScoreMemo
from rlhf.reward.scoring.pool import score_pool
from rlhf.reward.scoring.score_source import RunSource
from rlhf.reward.scoring.scorer import Calibration, Scorer
from rlhf.reward.scoring.splits import gather, score_split, scored
from rlhf.select.embeddings import hidden_states

ANSWERS = [f"answer {n} " + "word " * n for n in range(11)]


def pairs(prompt, answers=ANSWERS, part="train"):
    return [
        Comparison(
            f"{prompt}-{i}-{j}", prompt, (Completion("a", answers[i]), Completion("b", answers[j])),
            (Vote("w", pair=("a", "b"), choice="a"),), None, {"part": part},
        )
        for i, j in combinations(range(len(answers)), 2)
    ]  # fmt: skip


class Held:
    skipped_count = 0

    def __init__(self, records):
        self.kept, self.skipped, self.fingerprint = records, [], repr(records)

    def records(self):
        return iter(self.kept)


class ByPart:
    needs_fit = False
    fingerprint = "by part"

    def fit(self, records):
        pass

    def split_of(self, record):
        return record.meta["part"]


@pytest.fixture
def data(tmp_path):
    records = [*pairs("Train?"), *pairs("Validate?", part="val"), *pairs("Test?", part="test"),
               *pairs("Also test?", ANSWERS[:3], part="test")]  # fmt: skip
    made = PreferenceData(
        source=Held(records), aggregation=partial(soft), splitter=ByPart(), batch_size=4, eval_batch_size=5, seed=0,
        renderer=Renderer(Tiny().tokenizer(), max_length=128), cache=tmp_path,
    )  # fmt: skip
    made.setup()
    return made


@pytest.fixture
def model():
    return build_module().eval().model


@pytest.fixture
def counted(model, monkeypatch):
    """How many completions went through the trunk."""
    seen = []
    read = type(model.backbone)._read
    monkeypatch.setattr(type(model.backbone), "_read", lambda self, tokens: _count(seen, read(self, tokens)))
    return seen


def _count(seen, states):
    seen.append(len(states))
    return states


def test_test_scores_are_those_of_whole_records_and_cost_one_reading_per_text(data, model, counted):
    rows = score_split(model, data.loader("test", 7, None))
    assert sum(counted) == 2 * (55 + 3)
    counted.clear()
    found = data.distinct("test").of_rows(gather(score_split(model, data.scoring_loader("test"))))
    assert sum(counted) == 11 + 3 == data.distinct("test").encodings
    assert found.keys() == rows.keys()
    for row, reward in rows.items():
        np.testing.assert_allclose(found[row], reward, atol=1e-6)
    tables = [scored(data.rows["test"], r) for r in (rows, found)]
    np.testing.assert_allclose(tables[0].difference, tables[1].difference, atol=2e-6)


def test_a_trimmed_prompt_is_another_text(tmp_path):
    long = "Why " * 30
    records = [
        *pairs(long, ["short", "also short"], part="train"), *pairs(long, ["short", "x" * 90], part="test"),
        *pairs(long, ["short", "also short"], part="test"), *pairs("v?", ["a", "b"], part="val"),
    ]  # fmt: skip
    made = PreferenceData(
        source=Held(records), aggregation=partial(soft), splitter=ByPart(), batch_size=4, eval_batch_size=5, seed=0,
        renderer=Renderer(Tiny().tokenizer(), max_length=180), cache=tmp_path,
    )  # fmt: skip
    made.setup()
    texts = DistinctTexts(made.rows["test"])
    assert (texts.completions, texts.encodings) == (4, 4), "'short' stands behind two prompts of different length"


def scorer_of(model, **engine):
    return Scorer(model, Renderer(Tiny().tokenizer(), max_length=128), Calibration.identity(), **engine)


def test_evaluation_looks_a_text_up_that_comes_again_in_a_later_block(model, counted):
    source, records = RunSource("run", scorer_of(model)), pairs("Test?")
    blocks = [source.score(records[start : start + 8]) for start in range(0, len(records), 8)]
    assert source.counts == {"completions": 110, "encodings": 11}
    trial = sum(counted) - 11  # the layout was tried on a few texts first
    assert 0 <= trial <= 12
    alone = [RunSource("run", scorer_of(model)).score([record])[0].reward for record in records[:12]]
    for found, wanted in zip([s for block in blocks for s in block], alone, strict=False):
        np.testing.assert_allclose(found.reward, wanted, atol=1e-6)


def test_what_was_not_asked_for_longest_is_forgotten(model):
    memo = ScoreMemo(scorer_of(model).engine, most=2)
    encode = scorer_of(model).renderer.encode
    a, b, c = (encode("p", [text]) for text in ("a", "b", "c"))
    first = memo.score([a])[0]
    for group in (b, a, c, a):
        last = memo.score([group])[0]
    assert memo.encodings == 3
    torch.testing.assert_close(first.reward, last.reward)
    memo.score([b])
    assert memo.encodings == 4


def test_a_pool_and_identical_rollouts_are_read_once(model, tmp_path, counted):
    scorer = scorer_of(model)
    _ = scorer.engine.layout
    counted.clear()
    table = score_pool(scorer, Held(pairs("Pool?")), tmp_path / "pool")
    assert len(table) == 110
    assert sum(counted) == 11
    counted.clear()
    found = _scores(scorer, ["p", "p", "q", "p"], ["same", "other", "same", "same"])
    assert sum(counted) == 3
    assert found.reward[0] == found.reward[3] != found.reward[2]


def test_embeddings_are_made_once_per_text(model, counted):
    renderer = Renderer(Tiny().tokenizer(), max_length=64)
    with torch.inference_mode():
        found = hidden_states(model, renderer, [("p", "b"), ("p", "a"), ("p", "b"), ("q", "b")])
    assert sum(counted) == 3
    assert np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[3])


def test_data_without_repeated_texts_has_one_piece_per_record(tmp_path):
    data = build_data(tmp_path, 60)
    texts = data.distinct("test")
    assert texts.encodings <= texts.completions
    rewards = {n: np.full(len(p), n, dtype=float) for n, p in enumerate(texts._pieces)}
    assert set(texts.of_rows(rewards)) == set(range(len(data.rows["test"])))
