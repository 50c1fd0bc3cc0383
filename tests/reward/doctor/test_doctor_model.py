"""One planted defect per check of the model: exactly that check tells."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from doctor_runs import SOUND, data_of, module_of, record, run_of, verdicts
from model_zoo import save_causal
from peft import PeftModel

from rlhf.data.prepare import Grouping
from rlhf.data.token_layout import padded
from rlhf.models.lora import Lora, frozen
from rlhf.models.pretrained import Pretrained, Tiny
from rlhf.records import Comparison, Completion, Vote
from rlhf.reward.doctor import model_checks
from rlhf.reward.export import export
from rlhf.reward.losses import LearnedRaoKupper, pairwise, plackett_luce, ranking, soft_label


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return data_of(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def no_export(monkeypatch):
    """Most defects have nothing to do with the export, which starts a process."""
    monkeypatch.setattr(model_checks, "export", lambda *parts: 0.0)


@pytest.fixture
def found(tmp_path, data):
    return lambda module=None, data=data: verdicts(run_of(tmp_path, data, module))


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """Four answers per prompt, and one vote of three that turns the others round."""
    answers = tuple(Completion(f"c{i}", t) for i, t in enumerate(("first", "second", "third", "last")))
    order = (("c0",), ("c1",), ("c2",), ("c3",))
    votes = tuple(Vote(f"w{i}", ranking=r) for i, r in enumerate((order, order[::-1], order)))
    records = [Comparison(f"p{n}", f"Rank {n}!", answers, votes) for n in range(10)]
    return data_of(tmp_path_factory.mktemp("cache"), records)


@pytest.mark.parametrize(
    "loss",
    [soft_label, pairwise, ranking, plackett_luce, LearnedRaoKupper()],
    ids=lambda loss: getattr(loss, "__name__", type(loss).__name__),
)
def test_a_sound_model_passes_every_check_whatever_its_loss(found, ranked, loss):
    assert found(module_of(loss=loss), ranked) == {"first side wins": "warn"}


def test_a_head_on_a_sound_frozen_trunk_passes_and_on_a_dead_one_does_not(found, ranked):
    module = module_of(adapter=frozen)
    assert found(module, ranked) == {"first side wins": "warn"}
    module.model.backbone.register_forward_hook(lambda module, given, states: states * 0 + 1)
    assert found(module, ranked)["first batch overfits"] == "FAIL"


def test_a_sound_model_on_sound_data_leaves_nothing_to_look_at(found):
    assert found() == {}


def ignore_mask(module, args, kwargs):
    return args, kwargs | {"attention_mask": torch.ones_like(kwargs["attention_mask"])}


def dead(module, args, output):
    return output.detach() + 0 * output


def hooked(hook):
    """A module whose hidden states went through `hook(output, tokens)`."""
    module = module_of()
    module.model.backbone.register_forward_hook(lambda _, args, output: hook(output, args[0]))
    return module


def position(output, period):
    return (torch.arange(len(output)) % period)[:, None]


HOOKS = [
    ("padding", lambda h, t: h + 0.1 * t.input_ids.shape[-1]),
    ("padding", lambda h, t: h + 0.1 * (t.input_ids == 1).sum(1, keepdim=True)),
    ("padding", lambda h, t: h + 0.1 * (t.input_ids[:, -1:] == 0)),
    ("batch size and order", lambda h, t: h - h.mean(0)),
    ("batch size and order", lambda h, t: h + 0.1 * position(h, 3)),
    ("two passes agree", lambda h, t: h * (1 + 1e-6 * torch.randn(h.shape))),
]


@pytest.mark.parametrize(
    ("name", "hook"), HOOKS, ids=["width", "pad id 1", "pad id 0 on the right", "batch mean", "order", "noise"]
)
def test_a_planted_defect_is_told_by_its_check_alone(found, name, hook):
    assert found(hooked(hook)) == {name: "FAIL"}


def test_a_model_that_ignores_the_attention_mask_fails_on_padding(found):
    module = module_of()
    module.model.backbone.trunk.register_forward_pre_hook(ignore_mask, with_kwargs=True)
    assert found(module) == {"padding": "FAIL"}


def test_dropout_left_on_is_told(found):
    told = found(hooked(lambda h, t: F.dropout(h, 0.5, training=True)))
    assert told["two passes agree"] == "FAIL"


def test_a_layout_that_reads_another_token_is_told(found, data):
    def shifted(prompts, responses):
        tokens = padded(prompts, responses, pad_id=0)
        return replace(tokens, last=tokens.last - 1)

    other = copy.copy(data)
    other.layout = shifted
    assert found(data=other) == {"token layout": "FAIL"}


@pytest.mark.parametrize("defect", ["frozen", "half precision"])
def test_a_head_that_is_not_trained_in_float32_is_told(found, defect):
    module = module_of()
    weight = module.model.head.weight
    if defect == "frozen":
        weight.requires_grad_(False)
    else:
        weight.data = weight.data.bfloat16()
    assert found(module) == {"score head": "FAIL"}


def test_embeddings_shorter_than_the_tokenizer_are_told(found, tmp_path):
    tokenizer = Tiny().tokenizer()
    tokenizer.add_tokens(["<extra>"])
    assert found(data=data_of(tmp_path / "cache", tokenizer=tokenizer)) == {"score head": "FAIL"}


@pytest.mark.parametrize("loss", [soft_label, ranking])
def test_gradients_that_do_not_arrive_are_told_whatever_the_loss_and_its_floor(found, ranked, loss):
    module = module_of(loss=loss)
    module.model.register_forward_hook(dead)
    assert found(module, ranked)["first batch overfits"] == "FAIL"


def test_labels_that_contradict_each_other_are_told(found, tmp_path):
    """One training prompt with both winners; as one record the votes would be a soft label, and no contradiction."""
    turned = [record(n, prompt="A?" if n % 5 > 1 else None, winner=f"c{n % 2}") for n in range(30)]
    records = [replace(r, completions=SOUND[0].completions) for r in turned]
    alone = data_of(tmp_path / "cache", records, grouping=Grouping(merge=False, limits=None))
    assert found(data=alone)["first batch overfits"] == "FAIL"


def test_the_floor_of_the_loss_is_the_entropy_of_the_votes_and_leaves_the_module_as_it_was(tmp_path, data):
    run = run_of(tmp_path, data)
    model = run.module.model
    floor = model_checks._floor(run.module, model_checks._batch(run))
    assert floor == pytest.approx(-math.log(1 / 3) / 3 - 2 * math.log(2 / 3) / 3, abs=1e-5)
    assert run.module.model is model


# ------------------------------------------------------------------------------------------ the padding token


def test_padding_with_the_end_token_is_told(found, tmp_path):
    tokenizer = Tiny().tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    module = module_of()
    module.model.backbone.classifier.config.pad_token_id = tokenizer.eos_token_id
    told = found(module, data_of(tmp_path / "cache", tokenizer=tokenizer))
    assert told == {"padding token": "FAIL"}


def test_a_model_and_a_tokenizer_that_disagree_on_padding_are_told(found):
    module = module_of()
    module.model.backbone.classifier.config.pad_token_id = 7
    assert found(module) == {"padding token": "FAIL"}


@pytest.mark.parametrize(
    ("pad", "had"), [("</s>", "its end token '</s>' as padding"), (None, "no padding token")], ids=str
)
def test_what_the_folder_had_for_padding_and_what_was_done_is_noted(found, tmp_path, capsys, pad, had):
    model_source = Pretrained(str(save_causal("llama", tmp_path / "model", pad=pad)))
    tokenizer = model_source.tokenizer()
    data = data_of(tmp_path / "cache", tokenizer=tokenizer)
    assert found(module_of(model_source.classifier(tokenizer)), data) == {"padding token": "note"}
    table = capsys.readouterr().out
    assert f"the model's folder has {had}; '<|pad|>' was added" in table
    assert "0 failed, 0 to look at" in table


# ------------------------------------------------------------------------------------------ the export


@pytest.mark.slow
@pytest.mark.fresh_process
def test_an_adapter_that_the_export_does_not_merge_is_told(found, monkeypatch):
    """The adapter starts as zero: only because the check stirs it can a merge that does nothing be seen."""
    monkeypatch.setattr(model_checks, "export", export)
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self: self.unload(), raising=False)
    assert found(module_of(adapter=Lora(rank=2))) == {"save, merge, load": "FAIL"}
