"""Every distinct text is read once, wherever texts are scored; the numbers are those of scoring each by itself."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from reward_modules import build_data, build_module

from rlhf.data.datamodule import PreferenceData
from rlhf.data.distinct import MOST, DistinctTexts
from rlhf.data.render import Renderer
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.report.sections.accuracy import accuracy
from rlhf.evaluation.run import EvaluationRun
from rlhf.evaluation.score_pass import Pass
from rlhf.evaluation.score_source import Ensemble
from rlhf.labels.aggregation import soft
from rlhf.models.policy import CausalPolicy, spans
from rlhf.models.pretrained import Tiny
from rlhf.optimise.direct.implicit_reward import ImplicitSource, Policies
from rlhf.optimise.direct.train import DpoModule
from rlhf.optimise.shaping.reward_source import _scores
from rlhf.records import Comparison, Completion, Vote
from rlhf.reward.losses import dpo
from rlhf.reward.schedule import constant
from rlhf.reward.scoring import once
from rlhf.reward.scoring.once import ScoreMemo
from rlhf.reward.scoring.pool import score_pool
from rlhf.reward.scoring.score_source import RunSource, load_classifier
from rlhf.reward.scoring.scorer import Calibration, Scorer
from rlhf.reward.scoring.splits import gather, score_split, scored, take
from rlhf.select.embeddings import SentenceEncoder, hidden_states

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


def prepared(cache, records, max_length=128):
    made = PreferenceData(
        source=Held(records), aggregation=partial(soft), splitter=ByPart(), batch_size=4, eval_batch_size=5, seed=0,
        renderer=Renderer(Tiny().tokenizer(), max_length=max_length), cache=cache,
    )  # fmt: skip
    made.setup()
    return made


def parts():
    return [*pairs("Train?"), *pairs("Validate?", part="val"), *pairs("Also?", ANSWERS[:4], part="val"),
            *pairs("Test?", part="test"), *pairs("Also test?", ANSWERS[:3], part="test")]  # fmt: skip


@pytest.fixture
def data(tmp_path):
    return prepared(tmp_path, parts())


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
    assert max(k for batch in data.scoring_loader("test") for k in batch.size) == MOST, "pieces are bounded"
    tables = [scored(data.rows["test"], r) for r in (rows, found)]
    np.testing.assert_allclose(tables[0].difference, tables[1].difference, atol=2e-6)


def test_a_trimmed_prompt_is_another_text(tmp_path):
    long = "Why " * 30
    records = [
        *pairs(long, ["short", "also short"], part="train"), *pairs(long, ["short", "x" * 90], part="test"),
        *pairs(long, ["short", "also short"], part="test"), *pairs("v?", ["a", "b"], part="val"),
    ]  # fmt: skip
    made = prepared(tmp_path, records, 180)
    texts = DistinctTexts(made.rows["test"])
    assert (texts.completions, texts.encodings) == (4, 4), "'short' stands behind two prompts of different length"
    model = build_module().eval().model
    rows = score_split(model, made.loader("test", 1, None))
    found = texts.of_rows(score_split(model, made.scoring_loader("test")))
    assert abs(rows[0][0] - rows[1][0]) > 1e-5, "the tail of the prompt matters"
    for row, reward in rows.items():
        np.testing.assert_allclose(found[row], reward, atol=1e-6)


def validated(module, data):
    """Metrics of a validation epoch."""
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    return trainer.validate(module, data, verbose=False)[0]


@torch.inference_mode()
def by_rows(module, data):
    """The same by whole records, every completion read as often as it is there."""
    rewards = {}
    for batch in data.loader("val", 7, None):
        take(rewards, batch, module.preference(batch))
    assert max(np.ptp(reward) for reward in rewards.values()) > 1e-3
    metrics = evaluate(scored(data.rows["val"], rewards), bootstrap=0)
    return {f"val/{name}": metrics[name] for name in ("pair_accuracy", "nll", "ece")}


def test_a_validation_epoch_finds_the_same_metrics_in_fewer_readings(data, counted):
    module = build_module().eval()
    rows = by_rows(module, data)
    assert sum(counted) == 2 * (55 + 6)
    counted.clear()
    assert validated(module, data) == pytest.approx(rows, abs=1e-6)
    assert sum(counted) == 11 + 4


def language_model(seed):
    torch.manual_seed(seed)
    model = Tiny(width=16, depth=1, heads=2).causal(Tiny().tokenizer()).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def test_a_policy_of_dpo_is_validated_in_fewer_readings(data, monkeypatch):
    data.layout = partial(spans, pad_id=0)
    policy, read, logp = CausalPolicy(language_model(0)), [], CausalPolicy.logp
    policy.frozen = language_model(1)
    monkeypatch.setattr(CausalPolicy, "logp", lambda self, rows: _count(read, logp(self, rows)))
    loss = partial(dpo, beta=0.1)
    module = DpoModule(policy, loss=loss, beta=0.1, optimizer=torch.optim.AdamW, schedule=constant).eval()
    rows = by_rows(module, data)
    assert sum(read) == 2 * (55 + 6)
    read.clear()
    assert validated(module, data) == pytest.approx(rows, abs=1e-6)
    assert sum(read) == 11 + 4


def _score_in_two(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    data = prepared(folder, parts())
    share = score_split(build_module().eval().model, data.scoring_loader("val"))
    torch.save((len(share), gather(share)), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_validate_exactly_what_one_does(tmp_path):
    data = prepared(tmp_path, parts())  # before the processes open it
    texts = data.distinct("val")
    assert len(texts) % 2 == 1, "one piece is padded in twice"
    rows = score_split(build_module().eval().model, data.loader("val", 7, None))
    mp.spawn(_score_in_two, (tmp_path,), nprocs=2)
    for rank in range(2):
        share, together = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert share < len(texts) == len(together)
        found = texts.of_rows(together)
        assert found.keys() == rows.keys()
        for row, reward in rows.items():
            np.testing.assert_allclose(found[row], reward, atol=1e-6)


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


@pytest.mark.parametrize("kind", ["run", "classifier", "log-ratios"])
def test_all_pairs_of_33_answers_cost_32_times_fewer_readings(kind, model, tmp_path):
    records, scorer = pairs("Which?", [f"{n} is the answer" for n in range(33)]), scorer_of(model)
    if kind == "run":
        make = partial(RunSource, "run", scorer)
    elif kind == "classifier":
        Tiny(width=16, depth=1, heads=2).classifier(Tiny().tokenizer()).save_pretrained(tmp_path)
        Tiny().tokenizer().save_pretrained(tmp_path)
        foreign, bias = load_classifier(tmp_path, max_length=128)
        make = partial(RunSource, "classifier", foreign, calibrated=False, bias=bias)
    else:
        make = partial(ImplicitSource, "log-ratios", Policies(language_model(0), language_model(1)), scorer.renderer)
    source = make()
    found = [s for start in range(0, len(records), 32) for s in source.score(records[start : start + 32])]
    assert source.counts == {"completions": 2 * 528, "encodings": 33}
    for place in (0, 31, 32, 527):
        (alone,) = make().score([records[place]])
        assert np.ptp(alone.reward) > 1e-4
        np.testing.assert_allclose(found[place].reward, alone.reward, atol=1e-6)
        np.testing.assert_array_equal(found[place].tokens, alone.tokens)


def test_a_report_counts_what_all_processes_and_members_read(model, tmp_path):
    def run(rank, name, world):
        source = Ensemble([RunSource(n, scorer_of(model)) for n in ("a", "b")])
        scoring = Pass(source, soft, rank=rank, world_size=world)
        return EvaluationRun(tmp_path / name, scoring, Held(records), ("a", "b"), {"accuracy": accuracy}, samples=0)

    records = [*pairs("Test?"), *pairs("Also test?")]
    alone = run(0, "alone", 1)().evaluation
    assert run(1, "two", 2)() is None
    together = run(0, "two", 2)().evaluation
    counts = [e.results.counts for e in (alone, together)]
    assert [c["completions"] for c in counts] == [2 * 220] * 2
    assert counts[0]["encodings"] == 2 * 22
    assert 2 * 22 < counts[1]["encodings"] <= 4 * 22, "each process reads what its blocks hold"
    np.testing.assert_allclose(alone.results.scored.reward, together.results.scored.reward, atol=1e-6)


def test_what_is_too_long_stays_unread_when_it_comes_again(model):
    records = pairs("p", ["short", "word " * 50, "also short"])
    first, again = RunSource("run", scorer_of(model)), RunSource("run", scorer_of(model))
    found = [s.reward for s in first.score(records) + first.score(records[::-1])[::-1]]
    assert first.counts == {"completions": 8, "encodings": 2}
    assert [np.isnan(r).tolist() for r in found] == 2 * [[False, True], [False, False], [True, False]]
    np.testing.assert_array_equal(found[1], again.score(records)[1].reward)


def test_the_memory_of_a_memo_is_bounded_in_texts_and_in_numbers(model, monkeypatch):
    monkeypatch.setattr(once, "NUMBERS", 5 * 16)
    memo, encode = ScoreMemo(scorer_of(model).engine), scorer_of(model).renderer.encode
    found = memo.score([encode("p", [text]) for text in ANSWERS])
    assert len(found) == memo.encodings == 11
    assert len(memo.known) == 5
    held = [column.untyped_storage().nbytes() for scores in memo.known.values() for column in scores]
    assert held == 5 * [4, 4, 4 * 16], "no view of a whole batch"


def test_equal_answers_of_one_call_are_read_once(model, counted):
    scorer = scorer_of(model)
    _ = scorer.engine.layout
    counted.clear()
    rewards = scorer.score("p", ["a", "b", "a", "a"])
    assert sum(counted) == 2
    assert rewards[0] == rewards[2] == rewards[3] != rewards[1]


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
    texts = [("p", "b"), ("p", "a longer answer"), ("p", "b"), ("q", "b")]
    hidden_states(model, renderer, texts[:1])
    trial = sum(counted) - 1  # of the layout
    counted.clear()
    found = hidden_states(model, renderer, texts)
    assert sum(counted) == 3 + trial
    alone = np.concatenate([hidden_states(model, renderer, [text]) for text in texts])
    np.testing.assert_allclose(found, alone, atol=1e-6)
    assert np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[3])


def test_hidden_states_are_those_of_blocks_of_any_size(model, monkeypatch):
    renderer = Renderer(Tiny().tokenizer(), max_length=128)
    texts = [(prompt, answer) for answer in ANSWERS for prompt in ("p", "another prompt")]
    found = hidden_states(model, renderer, texts)
    monkeypatch.setattr("rlhf.select.embeddings.SCORED_TOGETHER", 3)
    np.testing.assert_allclose(hidden_states(model, renderer, texts, batch_size=1), found, atol=1e-6)


def test_a_sentence_encoder_reads_equal_answers_once(tmp_path):
    tokenizer = Tiny().tokenizer()
    Tiny(width=16, depth=1, heads=2).classifier(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = SentenceEncoder(str(tmp_path), batch_size=1)
    found = encoder([("p", "b"), ("p", "a longer answer"), ("q", "b")])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[1:2], encoder([("p", "a longer answer")]), atol=1e-6)
    assert not np.allclose(found[0], found[1])


def test_data_without_repeated_texts_has_one_piece_per_record(tmp_path):
    data = build_data(tmp_path, 60)
    texts = data.distinct("test")
    assert texts.encodings <= texts.completions
    rewards = {n: np.full(len(p), n, dtype=float) for n, p in enumerate(texts._pieces)}
    assert set(texts.of_rows(rewards)) == set(range(len(data.rows["test"])))
