"""The one scoring engine: on every path that scores, one budget, one layout, one device, no gradient, one reward."""

from functools import partial
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from model_zoo import small

import rlhf
from rlhf.collect import pick
from rlhf.data.batch import Packed
from rlhf.data.render import PLAIN_ENCODER, Encoded, Renderer
from rlhf.data.token_layout import packed, pad, padded, shared
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.models import layouts
from rlhf.models.backbone import Backbone
from rlhf.models.heads import EnsembleHead, LinearHead
from rlhf.models.pretrained import Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.optimise.policy.module import PolicyModule, RewardSources
from rlhf.optimise.shaping.reward_source import RunReward
from rlhf.reward.scoring import engine
from rlhf.reward.scoring.pool import score_pool
from rlhf.reward.scoring.score_source import RunSource
from rlhf.reward.scoring.scorer import Scorer
from rlhf.serve.interop import openrlhf_verl
from rlhf.serve.interop.trl import TrlReward
from rlhf.serve.web import Limits, Service, app
from rlhf.toy.world import ToyWorld

RECORDS = list(ToyWorld(size=9).records())
LAYOUTS = {"llama_gqa": "shared", "gpt2": "shared", "bert": "packed", "deberta": "padded", "bloom": "padded"}
BUDGET = 700


def build(name, head=LinearHead, **options):
    tokenizer = Tiny().tokenizer()
    backbone = Backbone(small(name, max_position_embeddings=600) if name != "bloom" else small(name))
    template = PLAIN_ENCODER.replace("cls_token", "bos_token").replace("sep_token", "eos_token")
    renderer = Renderer(tokenizer, max_length=500, template=None if backbone.causal else template)
    model = RewardModel(backbone, head(backbone.hidden_size))
    return Scorer(model, renderer, Calibration.identity(), **options)


def encoded(scorer, records=RECORDS):
    return [scorer.encode(r.prompt, [c.text for c in r.completions]) for r in records]


@torch.no_grad()
def one_by_one(scorer, records=RECORDS):
    """Members of every completion alone, by hand: no engine, no batch, no layout."""
    rows = [g.prompt + ids for g in encoded(scorer, records) for ids in g.responses]
    return torch.cat([scorer.model(pad([row], 0)) for row in rows], -1)


def watch(monkeypatch, budget=None):
    """Every pass of a trunk; those of the engine with their tokens, the others by who asked for them."""
    seen = SimpleNamespace(passes=[], outside=0, trials=0)
    inside = []
    trunk, forward, trial = Backbone.forward, engine.forward, layouts._trial

    def counted(self, tokens):
        seen.outside += not inside
        return trunk(self, tokens)

    def measured(model, tokens, precision=None):
        inside.append(1)
        scores = forward(model, tokens, precision)
        inside.pop()
        seen.passes.append((model, tokens, scores))
        return scores

    def tried(*args, **kwargs):
        inside.append(1)
        seen.trials += 1
        reason = trial(*args, **kwargs)
        inside.pop()
        return reason

    monkeypatch.setattr(Backbone, "forward", counted)
    monkeypatch.setattr(engine, "forward", measured)
    monkeypatch.setattr(layouts, "_trial", tried)
    if budget is not None:
        made = engine.ScoringEngine.__init__
        monkeypatch.setattr(
            engine.ScoringEngine, "__init__", lambda s, *a, **k: made(s, *a, **k | {"batch_tokens": budget})
        )
    return seen


# ------------------------------------------------------------------------------------------ every path

PROMPTS = [r.prompt for r in RECORDS for _ in r.completions]
TEXTS = [c.text for r in RECORDS for c in r.completions]


def by_load(folder, tmp_path, monkeypatch):
    scorer = rlhf.load(folder)
    return [s for r in RECORDS for s in scorer.score(r.prompt, [c.text for c in r.completions])]


def by_evaluation(folder, tmp_path, monkeypatch):
    return np.concatenate([s.reward for s in RunSource("run", rlhf.load(folder)).score(RECORDS)])


def by_best_of_n(folder, tmp_path, monkeypatch):
    reward, calibration = pick.reward_of(str(folder)), rlhf.load(folder).calibration
    found = [c.meta["reward"] for r in RECORDS for c in pick.scored(r, reward).completions]
    return np.array(found) * calibration.reward_std + calibration.reward_mean


def by_service(folder, tmp_path, monkeypatch):
    groups = [{"prompt": r.prompt, "completions": [c.text for c in r.completions]} for r in RECORDS]
    with TestClient(app(Service(rlhf.load(folder), Limits()))) as client:
        found = client.post("/score_batch", json={"groups": groups}).json()["groups"]
    return [score for group in found for score in group["scores"]]


def by_openrlhf(folder, tmp_path, monkeypatch):
    with TestClient(app(Service(rlhf.load(folder), Limits()))) as client:
        monkeypatch.setattr(openrlhf_verl, "_ask", lambda route, body: client.post(route, json=body).json())
        queries = [f"<prompt>{text}" for text in TEXTS]
        found = openrlhf_verl.reward_func(queries, ["<prompt>"] * len(TEXTS), PROMPTS)
    return found["extra_logs"]["raw_reward"]


def by_rendered_texts(folder, tmp_path, monkeypatch):
    scorer = rlhf.load(folder)
    query = [scorer.renderer.text(p, t) for p, t in zip(PROMPTS, TEXTS, strict=True)]
    with TestClient(app(Service(scorer, Limits()))) as client:
        return client.post("/get_reward", json={"query": query}).json()["rewards"]


def by_trl(folder, tmp_path, monkeypatch):
    return TrlReward([folder])(PROMPTS, TEXTS)


def by_policy(folder, tmp_path, monkeypatch):
    return RunReward([folder]).score(PROMPTS, TEXTS)[0][0]


def by_pool(folder, tmp_path, monkeypatch):
    source = SimpleNamespace(records=lambda: iter(RECORDS))
    return score_pool(rlhf.load(folder), source, tmp_path).to_pydict()["reward"]


PATHS = (
    by_load, by_evaluation, by_best_of_n, by_service, by_openrlhf, by_rendered_texts, by_trl, by_policy, by_pool,
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__.removeprefix("by_"))
def test_every_path_goes_through_the_engine_within_its_budget_on_its_device(path, exported, tmp_path, monkeypatch):
    expected = one_by_one(rlhf.load(exported()))
    seen = watch(monkeypatch, BUDGET)
    found = path(exported(), tmp_path, monkeypatch)
    np.testing.assert_allclose(np.asarray(found, dtype=float), expected.numpy(), atol=1e-5)
    assert seen.outside == 0, "a forward pass beside the engine"
    assert seen.trials == 1, "the layout that training would choose, tried once"
    assert sum(len(tokens.last) for _, tokens, _ in seen.passes) == len(TEXTS), "every completion once"
    for model, tokens, scores in seen.passes:
        assert isinstance(tokens, Packed)
        assert tokens.input_ids.numel() <= BUDGET or len(tokens.last) == 1
        assert not model.training
        assert next(model.parameters()).device == torch.device("cpu")
        assert not any(column.requires_grad for column in scores)
    if path not in (by_load, by_best_of_n):  # these score a record at a time
        assert len(seen.passes) < len(RECORDS) or path is by_rendered_texts


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: rlhf.load(folder, device="cuda:7"),
        lambda folder: pick.reward_of(str(folder), device="cuda:7"),
        lambda folder: RunReward([folder], device="cuda:7"),
        lambda folder: TrlReward([folder], device="cuda:7"),
        lambda folder: RunReward([folder]).to("cuda:7"),
        lambda folder: RewardSources(RunReward([folder])).to(torch.device("cuda:7")),
    ],
    ids=["load", "best of n", "policy", "trl", "policy that moves", "watched policy that moves"],
)
def test_the_device_that_is_asked_for_is_the_models(make, exported, monkeypatch):
    asked = []
    monkeypatch.setattr(RewardModel, "to", lambda model, device: asked.append(str(device)) or model)
    make(exported())
    assert asked[-1] == "cuda:7"


def test_the_rewards_of_a_policy_follow_it_to_its_device(exported, monkeypatch):
    sources = RewardSources(RunReward([exported()]), RunReward([exported(1), exported(2)]))
    asked = []
    monkeypatch.setattr(RewardModel, "to", lambda model, device: asked.append(device))
    PolicyModule.on_fit_start(SimpleNamespace(reward_sources=sources, device=torch.device("cuda:3")))
    assert asked == [torch.device("cuda:3")] * 3


def test_tokens_go_to_the_models_device_and_scores_come_back(monkeypatch):
    scorer, moved = build("llama_gqa"), []
    whole = Packed.to
    monkeypatch.setattr(Packed, "to", lambda tokens, device: moved.append(device) or whole(tokens, device))
    (found,) = scorer.engine.score(encoded(scorer, RECORDS[:1]))
    assert set(moved) == {next(scorer.model.parameters()).device}
    assert {column.device.type for column in found} == {"cpu"}


# -------------------------------------------------------------------------------- budget, layout, numbers


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("budget", [1, BUDGET, 10**6])
def test_scores_do_not_depend_on_the_batch_and_no_batch_is_over_its_budget(name, budget, monkeypatch):
    scorer = build(name, batch_tokens=budget)
    groups, expected = encoded(scorer), one_by_one(scorer)
    seen = watch(monkeypatch)
    found = list(scorer.engine.score(groups))
    assert scorer.engine.layout_name == LAYOUTS[name]
    assert [len(f.reward) for f in found] == [len(g.kept) for g in groups]
    torch.testing.assert_close(torch.cat([f.reward for f in found]), expected, atol=2e-6, rtol=0)
    for _, tokens, _ in seen.passes:
        assert tokens.input_ids.numel() <= budget or len(tokens.last) == 1
    if budget == 10**6:
        assert len(seen.passes) == 1
        assert seen.passes[0][1].input_ids.numel() == occupied_by(groups, scorer.engine.layout)


def occupied_by(groups, layout):
    tokens = layout([g.prompt for g in groups], [g.responses for g in groups])
    return tokens.input_ids.numel()


def test_the_layout_is_the_one_that_training_chooses(monkeypatch):
    for name in LAYOUTS:
        scorer = build(name)
        chosen = layouts.auto(scorer.model.backbone, pad_id=0, max_length=500)
        assert getattr(scorer.engine.layout, "func", scorer.engine.layout) is getattr(chosen, "func", chosen)
    fixed = build("llama_gqa", layout=layouts.always_padded)
    assert fixed.engine.layout_name == "padded"


@pytest.mark.parametrize("layout", [shared, packed, partial(padded, pad_id=0)])
def test_tokens_of_a_group_are_what_it_takes_up(layout):
    scorer = build("llama_gqa", layout=lambda *args, **options: layout)
    for group in encoded(scorer):
        assert scorer.engine.tokens(group) == occupied_by([group], layout)


def test_rows_that_are_padded_are_sorted_by_length(monkeypatch):
    scorer = build("llama_gqa", layout=layouts.always_padded, batch_tokens=2000)
    texts = ["short" if i % 2 else "long answer " * 20 for i in range(40)]
    groups = [scorer.encode("Why?", [text]) for text in texts]
    seen = watch(monkeypatch)
    found = torch.cat([f.reward for f in scorer.engine.score(groups)])
    real = sum(len(g.prompt) + len(g.responses[0]) for g in groups)
    taken = sum(tokens.input_ids.numel() for _, tokens, _ in seen.passes)
    assert taken < 1.1 * real
    assert found.tolist() == pytest.approx(found[:2].tolist() * 20, abs=2e-6)


def test_members_keep_their_order_when_a_group_is_cut(monkeypatch):
    scorer = build("llama_gqa", EnsembleHead, batch_tokens=300)
    group = scorer.encode("Why?", [f"answer {i} " * (i % 5 + 1) for i in range(30)])
    rows = [group.prompt + ids for ids in group.responses]
    with torch.no_grad():
        expected = torch.cat([scorer.model(pad([row], 0)) for row in rows], -1)
    seen = watch(monkeypatch)
    (found,) = scorer.engine.score([group])
    torch.testing.assert_close(found.members, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(found.reward, expected.mean(0), atol=2e-6, rtol=0)
    assert len(found.states) == 30
    sizes = [(tokens.input_ids.shape[1], len(tokens.last)) for _, tokens, _ in seen.passes]
    assert sum(n for _, n in sizes) == 30
    assert all(tokens <= 300 or n == 1 for tokens, n in sizes)
    assert len(sizes) > 3


@pytest.mark.parametrize("head", [LinearHead, EnsembleHead])
def test_groups_without_completions_get_scores_of_none_in_their_place(head):
    scorer = build("llama_gqa", head)
    group, nothing = encoded(scorer)[0], Encoded([1, 5], [], [], 0, 0)
    found = list(scorer.engine.score([nothing, group, nothing]))
    assert [f.reward.shape[-1] for f in found] == [0, len(group.kept), 0]
    assert [len(f.rows) for f in found] == [5 if head is EnsembleHead else 1] * 3
    (alone,) = scorer.engine.score([nothing])
    assert alone.states.shape == (0, scorer.model.backbone.hidden_size)


def test_groups_are_read_as_a_stream():
    scorer, read = build("llama_gqa", batch_tokens=3000), []

    def endless():
        for i in range(10**9):
            read.append(i)
            yield scorer.encode(RECORDS[i % 9].prompt, [c.text for c in RECORDS[i % 9].completions])

    assert len(list(islice(scorer.engine.score(endless()), 20))) == 20
    assert len(read) < 80


def test_a_surrounding_autocast_does_not_reach_the_rewards_and_a_precision_does():
    scorer = build("llama_gqa")
    (plain,) = scorer.engine.score(encoded(scorer)[:1])
    with torch.autocast("cpu", torch.bfloat16):
        (around,) = scorer.engine.score(encoded(scorer)[:1])
    assert torch.equal(plain.reward, around.reward)
    rough = Scorer(scorer.model, scorer.renderer, scorer.calibration, precision=torch.bfloat16)
    (half,) = rough.engine.score(encoded(scorer)[:1])
    assert half.reward.dtype == torch.float32
    assert not torch.equal(half.reward, plain.reward)
    torch.testing.assert_close(half.reward, plain.reward, atol=0.05, rtol=0)


def test_a_policys_reward_reads_a_prompt_once_and_keeps_the_order_of_the_texts(exported, monkeypatch):
    source = RunReward([exported(0, members=3), exported(1)])
    order = np.random.default_rng(0).permutation(len(TEXTS)).tolist()
    prompts, texts = [PROMPTS[i] for i in order], [TEXTS[i] for i in order]
    expected = torch.cat([one_by_one(s).reshape(-1, len(TEXTS)) for s in source.scorers])[:, order]
    seen = watch(monkeypatch)
    members, features = source.score(prompts, texts)
    torch.testing.assert_close(members, expected, atol=1e-5, rtol=0)
    assert features.shape == (len(TEXTS), 32)
    assert features.dtype == np.float64
    alone = sum(tokens.input_ids.numel() for _, tokens, _ in seen.passes)
    apart = 2 * sum(len(g.prompt) * len(g.kept) + sum(map(len, g.responses)) for g in encoded(source.scorers[0]))
    assert alone < apart
    with pytest.raises(ValueError, match=r"task\.max_new_tokens"):
        source.score(["p"], ["y" * 2000])
