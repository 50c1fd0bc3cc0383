"""A frozen trunk: its states in the cache, heads on them, and checkpoints of heads that read scaled states."""

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from model_zoo import save_bert
from pytorch_lightning.callbacks import ModelCheckpoint
from reward_modules import build_data

import rlhf
from rlhf.data.token_layout import packed, shared
from rlhf.models.backbone import Backbone
from rlhf.models.heads import AttributeHead, EnsembleHead, LinearHead, MlpHead
from rlhf.models.length_head import LengthControlledHead
from rlhf.models.lora import frozen
from rlhf.models.pretrained import Pretrained, Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.records import RecordError
from rlhf.reward import training
from rlhf.reward.checkpoint import load_weights
from rlhf.reward.frozen import CachedStates, cached_states, spread
from rlhf.reward.losses import soft_label
from rlhf.reward.module import RewardModule
from rlhf.reward.schedule import constant
from rlhf.reward.training import RewardRun, train_reward

WIDTH = 16


def trunk(seed=0, **options):
    source = Tiny(width=WIDTH, depth=1, heads=2, seed=seed)
    return frozen(Backbone(source.classifier(source.tokenizer()), **options))


def model_of(head=LinearHead, **options):
    backbone = trunk(**options)
    return RewardModel(backbone, head(backbone.hidden_size))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 toy records in the shared layout."""
    return build_data(tmp_path_factory.mktemp("rows"), 60)


@pytest.fixture(autouse=True)
def _tokens(request):
    if "data" in request.fixturenames:
        request.getfixturevalue("data").layout = shared


@pytest.fixture
def reads(monkeypatch):
    """Completions that any trunk read, batch by batch."""
    counts, read = [], Backbone._packed

    def counting(self, tokens):
        counts.append(len(tokens.last))
        return read(self, tokens)

    monkeypatch.setattr(Backbone, "_packed", counting)
    return counts


def texts(data):
    """Distinct texts, as lists of tokens, in order."""
    rows = (row for split in data.rows.values() for row in split.texts())
    found = {(tuple(p.tolist()), tuple(r.tolist())) for p, answers in rows for r in answers}
    return [(list(p), list(r)) for p, r in sorted(found)]


def run_of(folder, data, states, head=LinearHead, epochs=2, **options):
    data.layout = shared
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, enable_progress_bar=False, logger=False,
        enable_model_summary=False, callbacks=[ModelCheckpoint(folder / "checkpoints", "best", save_last=True)],
    )  # fmt: skip
    module = RewardModule(
        model_of(head, **options), loss=soft_label, optimizer=partial(torch.optim.AdamW, lr=3e-3), schedule=constant
    )
    return RewardRun(folder, data, module, trainer, "val/nll", None, bootstrap=5, seed=0, export=False, states=states)


# ------------------------------------------------------------------------------------------------- the cache


@pytest.mark.parametrize("part", [7, 4096])
def test_the_cache_gives_the_trunk_s_own_states_in_any_order(data, tmp_path, monkeypatch, part):
    monkeypatch.setattr("rlhf.reward.frozen.PART", part)
    model = model_of()
    states = cached_states(data, model, tmp_path)
    every = texts(data)
    assert len(states.keys) == len(every)
    for order in (every[::-1], every[3:5] * 2):
        prompts, answers = [p for p, _ in order], [[r] for _, r in order]
        with torch.no_grad():
            own = model.backbone(shared(prompts, answers))
        for found in (states, pickle.loads(pickle.dumps(states))):
            torch.testing.assert_close(found(prompts, answers).states, own, atol=1e-6, rtol=1e-5)


def test_a_text_is_read_once_and_no_more_for_another_head(data, tmp_path, reads):
    cached_states(data, model_of(), tmp_path)
    assert sum(reads) == len(texts(data))
    cached_states(data, model_of(MlpHead), tmp_path)
    assert sum(reads) == len(texts(data))


def test_of_processes_at_the_same_time_one_reads_and_the_others_wait(data, tmp_path, reads, monkeypatch):
    monkeypatch.setattr("rlhf.reward.frozen._fingerprint", lambda *_: "same")  # Python 3.11 parses in one thread only
    models = [model_of() for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:  # the lock is between open files, so threads stand for processes
        found = list(threads.map(lambda model: cached_states(data, model, tmp_path), models))
    assert sum(reads) == len(texts(data))
    assert all(len(states.keys) == len(texts(data)) for states in found)


def test_more_records_cost_the_new_texts_alone(data, tmp_path, reads):
    cached_states(data, model_of(), tmp_path / "states")
    more = build_data(tmp_path / "rows", 90)
    more.layout = shared
    known, wanted = ({(tuple(p), tuple(r)) for p, r in texts(d)} for d in (data, more))
    cached_states(more, model_of(), tmp_path / "states")
    assert sum(reads) == len(known | wanted) > len(known)


def test_a_killed_run_leaves_whole_files_and_the_next_one_reads_the_rest(data, tmp_path, monkeypatch, reads):
    monkeypatch.setattr("rlhf.reward.frozen.PART", 8)
    put, written = os.replace, []

    def dying(source, target):
        assert {*Path(target).parent.glob("*.arrow")} == {*written}, "kill -9 here would leave half a file to be read"
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(target)
        put(source, target)

    monkeypatch.setattr("rlhf.reward.frozen.os.replace", dying)
    with pytest.raises(KeyboardInterrupt):
        cached_states(data, model_of(), tmp_path)
    (folder,) = tmp_path.iterdir()
    assert {*folder.iterdir()} == {*written}
    kept = len(CachedStates(folder).keys)
    assert kept >= 16
    (folder / "tmpkilled").write_bytes(b"half of a file, as kill -9 leaves it")
    monkeypatch.setattr("rlhf.reward.frozen.os.replace", put)
    reads.clear()
    again = cached_states(data, model_of(), tmp_path)
    assert sum(reads) == len(texts(data)) - kept
    assert len(again.keys) == len(set(again.keys.tolist())) == len(texts(data))


def other_rope(model):
    model.backbone.classifier.config.rope_parameters["rope_theta"] = 5.0


def other_weight(model):
    next(model.backbone.classifier.parameters()).data[3, 1] += 1e-6


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda model: model.head.weight.data.mul_(2), True),
        (lambda model: setattr(model.backbone.classifier.config, "_name_or_path", "elsewhere"), True),
        (other_weight, False),
        (other_rope, False),
        (lambda model: setattr(model.backbone, "pooling", "mean"), False),
    ],
    ids=["head", "path", "weights", "configuration", "pooling"],
)
def test_states_are_asked_again_of_what_reads_tokens_otherwise(data, tmp_path, change, same):
    cached_states(data, model_of(), tmp_path)
    model = model_of()
    change(model)
    cached_states(data, model, tmp_path)
    assert len(list(tmp_path.iterdir())) == (1 if same else 2)


def test_states_of_another_layout_or_with_more_beside_them_are_others(data, tmp_path):
    cached_states(data, model_of(), tmp_path)
    data.layout = packed
    cached_states(data, model_of(), tmp_path)
    model = model_of(surface=Tiny().tokenizer())
    data.layout = model.backbone.with_surface(packed)
    cached_states(data, model, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_text_that_the_trunk_has_not_read_is_told(data, tmp_path):
    states = cached_states(data, model_of(), tmp_path)
    prompt, answer = texts(data)[0]
    with pytest.raises(RecordError, match=r"1 of 2 completions have no state.*cache_states=false"):
        states([prompt], [[answer, [*answer, 5]]])
    with pytest.raises(RecordError, match="1 of 1"):
        CachedStates(tmp_path / "nothing")([prompt], [[answer]])


# ------------------------------------------------------------------------------------------------- the scale


@pytest.mark.parametrize("surface", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_the_scale_is_the_deviation_within_prompts_by_the_square_root_of_the_width(data, tmp_path, surface, cached):
    model = model_of(surface=Tiny().tokenizer() if surface else None)
    data.layout = model.backbone.with_surface(shared)
    groups = [(p.tolist(), [r.tolist() for r in answers]) for p, answers in data.rows["train"].texts()]
    with torch.no_grad():
        states = [model.backbone(data.layout([p], [a])).double().numpy() for p, a in groups]
    within = np.concatenate([s - s.mean(0) for s in states])
    deviation = np.sqrt((within**2).sum(0) / (len(within) - len(states)))
    deviation = np.where(deviation > 1e-6 * deviation.max(), deviation, 1)
    widths = np.repeat([WIDTH, 16], [WIDTH, 16 * surface])
    if cached:
        data.layout = cached_states(data, model, tmp_path)
    np.testing.assert_allclose(spread(model, data).numpy(), deviation * np.sqrt(widths), rtol=1e-4)


HEADS = {
    "linear": LinearHead,
    "ensemble": EnsembleHead,
    "attributes": partial(AttributeHead, attributes=("a", "b")),
    "mlp": MlpHead,
    "length": LengthControlledHead,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_every_head_gives_the_same_rewards_when_the_scale_is_put_into_it(head):
    model = model_of(head)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter)
    tokens = shared([[1, 5, 6]], [[[7, 2], [8, 9, 2]]])
    model.backbone.scale = torch.rand(WIDTH) + 0.5
    with torch.no_grad():
        before = model(tokens)
        training._put_scale_into_head(model)
        assert model.backbone.scale is None
        torch.testing.assert_close(model(tokens), before)


# ------------------------------------------------------------------------------------------------- training


def test_a_head_is_trained_on_states_alone_and_the_trunk_stays(data, tmp_path, monkeypatch):
    cached_states(data, model_of(), tmp_path / "states")
    monkeypatch.setattr(Backbone, "_packed", None)  # nobody may ask the trunk
    run = run_of(tmp_path / "run", data, tmp_path / "states", head=EnsembleHead)
    metrics = train_reward(run)
    assert metrics["parameters/trained"] == 5 * WIDTH
    assert run.module.model.head.weight.abs().max() > 0
    for name, value in trunk().state_dict().items():
        assert torch.equal(run.module.model.backbone.state_dict()[name], value), name
    stored = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert {*stored["state_dict"]} == {"model.head.weight", "model.backbone.scale"}
    assert len(stored["optimizer_states"][0]["state"]) == 1


def test_weights_of_a_checkpoint_give_the_rewards_of_the_run(data, tmp_path):
    run = run_of(tmp_path / "run", data, tmp_path / "states")
    train_reward(run)
    fresh = run_of(tmp_path / "fresh", data, None).module
    load_weights(fresh, tmp_path / "run" / "checkpoints" / "best.ckpt")
    prompt, answer = texts(data)[0]
    tokens = shared([prompt], [[answer, answer[2:]]])
    with torch.no_grad():
        torch.testing.assert_close(fresh.model.eval()(tokens), run.module.model.eval()(tokens))


def test_a_warm_start_keeps_its_head_and_its_scale_and_leaves_the_cache_as_it_is(data, tmp_path):
    train_reward(run_of(tmp_path / "first", data, tmp_path / "states"))
    best = tmp_path / "first" / "checkpoints" / "best.ckpt"
    warm = run_of(tmp_path / "second", data, tmp_path / "states")
    load_weights(warm.module, best)
    scale, weight = warm.module.model.backbone.scale.clone(), warm.module.model.head.weight.clone()
    training._freeze(warm)
    assert torch.equal(warm.module.model.backbone.scale, scale)
    assert torch.equal(warm.module.model.head.weight, weight)
    assert len(list((tmp_path / "states").iterdir())) == 1
    elsewhere = run_of(tmp_path / "third", data, tmp_path / "other states")
    load_weights(elsewhere.module, best)
    training._freeze(elsewhere)
    for part in ("states", "other states"):
        (folder,) = (tmp_path / part).iterdir()
        found = CachedStates(folder)
        torch.testing.assert_close(found.of(found.keys), warm.data.layout.of(found.keys))


def test_what_a_folder_lacks_is_the_same_whenever_it_is_loaded(tmp_path):
    source = Pretrained(str(save_bert(tmp_path)))
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(source.classifier(source.tokenizer()).bert.pooler.dense.weight)
    assert torch.equal(*found)


def test_members_of_an_ensemble_differ_or_are_refused(data, tmp_path):
    run = run_of(tmp_path, data, tmp_path / "states", head=EnsembleHead)
    train_reward(run)
    weight = run.module.model.head.weight
    assert all((weight[i] - weight[j]).abs().max() > 1e-3 for i in range(5) for j in range(i))
    alike = run_of(tmp_path, data, tmp_path / "nothing", head=partial(EnsembleHead, bootstrap=False))
    with pytest.raises(RecordError, match=r"'head\.bootstrap': false: members that start alike"):
        training._freeze(alike)
    assert not (tmp_path / "nothing").exists()


# ------------------------------------------------------------------------------------------------- the command

FROZEN = ["adapter=frozen", "data.size=100", "epochs=3", "batch_size=4"]


def cell(folder):
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["causal", "encoder", "mean and surface"])
def test_a_head_with_the_cache_is_the_head_without_it_and_so_is_its_folder(train, tmp_path, monkeypatch, kind):
    if kind == "mean and surface":  # its own process costs seconds; tested where exporting is
        monkeypatch.setattr("rlhf.reward.export.check", lambda *parts, **options: 0.0)
    own = {
        "causal": ["layout=shared", "head=ensemble"],
        "encoder": ["layout=packed", "model=local", f"model.path={tmp_path / 'bert'}"],
        "mean and surface": [
            "layout=padded",
            "model.pooling=mean",
            "model.surface=true",
            "model.dropout=0.3",
            "head=mlp",
        ],
    }[kind]
    if kind == "encoder":
        save_bert(tmp_path / "bert")
    with_cache, without = (train(*FROZEN, *own, f"adapter.cache_states={cache}") for cache in ("true", "false"))
    one, two = cell(with_cache), cell(without)
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=1e-5)
    ours, theirs = (json.loads((f / "metrics.json").read_text()) for f in (with_cache, without))
    assert ours.keys() == theirs.keys()
    compared = [k for k in ours if "reward/mean" not in k and k != "export/difference"]  # the mean is free
    assert all(ours[k] == pytest.approx(theirs[k], abs=1e-5) for k in compared)
    asked = "Why is the sky blue?", ["Air scatters short waves.", "It is.", "Because of the air. " * 9]
    first, second = (np.diff(rlhf.load(folder).score(*asked)) for folder in (with_cache, without))
    assert np.abs(first).min() > 1e-4
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("harm", ["cut", "empty", "overwritten"])
def test_a_damaged_file_of_states_is_named_with_its_remedy(data, tmp_path, harm):
    cached_states(data, model_of(), tmp_path)
    (file,) = tmp_path.rglob("*.arrow")
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(
        {"cut": content[:3000], "empty": b"", "overwritten": content[:middle] + b"\7" * 64 + content[middle + 64 :]}[
            harm
        ]
    )
    with pytest.raises(RecordError, match=rf"{file.name}.* is damaged.*rm .*computed again"):
        cached_states(data, model_of(), tmp_path)


def test_states_may_be_read_by_whoever_shares_the_cache(data, tmp_path):
    cached_states(data, model_of(), tmp_path)
    (file,) = tmp_path.rglob("*.arrow")
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask
