"""Pooling by position: no padding, side, token id, batch or order can change a score."""

import pytest
import torch
from model_zoo import CAUSAL, save_bert, save_causal
from transformers import AutoModelForSequenceClassification

from rlhf.data.render import Renderer
from rlhf.data.token_layout import pad
from rlhf.models.backbone import Backbone
from rlhf.models.heads import AttributeHead, EnsembleHead, LinearHead
from rlhf.models.pretrained import Pretrained, Tiny
from rlhf.models.reward_model import RewardModel

TEXTS = ["Yes.", "A rather longer answer than the others, with words.", "No </s> maybe", "x"]


def build(folder, **options):
    model_source = Pretrained(str(folder), **options)
    tokenizer = model_source.tokenizer()
    backbone = Backbone(model_source.classifier(tokenizer))
    return RewardModel(backbone, LinearHead(backbone.hidden_size)).eval(), Renderer(tokenizer)


@pytest.fixture(scope="module", params=[(n, p) for n in CAUSAL for p in ("<pad>", "</s>")], ids=str)
def causal(request, tmp_path_factory):
    name, pad_token = request.param
    return build(save_causal(name, tmp_path_factory.mktemp(name), pad=pad_token))


@torch.inference_mode()
def scores(model, rows, **kwargs):
    return model(pad(rows, **{"pad_id": 0, **kwargs}))


def rows_of(renderer, prompt="Is it?"):
    encoded = renderer.encode(prompt, TEXTS)
    return [encoded.prompt + r for r in encoded.responses]


def test_padded_batch_scores_equal_single_rows_on_either_side_with_any_pad_id(causal):
    model, renderer = causal
    rows = rows_of(renderer)
    alone = torch.cat([scores(model, [row]) for row in rows])
    for pad_id in (0, renderer.tokenizer.eos_token_id, renderer.tokenizer.pad_token_id):
        for left in (False, True):
            torch.testing.assert_close(scores(model, rows, pad_id=pad_id, left=left), alone, atol=1e-5, rtol=1e-5)


def test_order_and_batch_size_do_not_matter(causal):
    model, renderer = causal
    rows = rows_of(renderer)
    together = scores(model, rows)
    backwards = torch.cat([scores(model, rows[2:][::-1]), scores(model, rows[:2][::-1])])
    torch.testing.assert_close(backwards.flip(0)[[0, 1, 2, 3]], together[[0, 1, 2, 3]], atol=1e-5, rtol=1e-5)


def test_the_position_read_is_the_last_real_token_in_a_chat_with_many_turn_ends(causal):
    model, renderer = causal
    turns = [{"role": r, "content": c} for r, c in [("user", "a"), ("assistant", "b")] * 3]
    rows = rows_of(renderer, tuple(turns))
    tokens = pad(rows, 0)
    assert tokens.last.tolist() == [len(r) - 1 for r in rows]
    assert model(tokens).shape == (len(TEXTS),)


def test_padding_is_never_the_end_token(causal):
    model, renderer = causal
    tokenizer = renderer.tokenizer
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert model.backbone.classifier.get_input_embeddings().weight.shape[0] >= len(
        tokenizer
    )  # a row for every token of the vocabulary


@pytest.mark.parametrize("name", CAUSAL)
def test_a_folder_without_a_padding_token_gets_one_and_scores_batches_like_single_rows(name, tmp_path):
    folder = save_causal(name, tmp_path, pad=None)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with pytest.raises(ValueError, match="batch sizes > 1"):  # what one gets without us
        AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)(input_ids=ids)
    model, renderer = build(folder)
    tokenizer, classifier = renderer.tokenizer, model.backbone.classifier
    assert (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.padding_side) == ("<|pad|>", 259, "right")
    assert classifier.config.pad_token_id == 259
    assert classifier.get_input_embeddings().weight.shape[0] == 260  # a row for every token of the vocabulary
    rows = rows_of(renderer)
    alone = torch.cat([scores(model, [row]) for row in rows])
    torch.testing.assert_close(scores(model, rows, pad_id=259), alone, atol=1e-5, rtol=1e-5)
    assert classifier(input_ids=ids).logits.shape[0] == 2


def test_the_reward_equals_the_stock_classifier_with_the_same_last_layer(causal, tmp_path):
    model, renderer = causal
    name = model.backbone.head_name
    stock = AutoModelForSequenceClassification.from_config(model.backbone.classifier.config).eval()
    missing = stock.load_state_dict(model.backbone.classifier.state_dict(), strict=False).missing_keys
    assert missing == [f"{name}.weight"]
    stock.get_submodule(name).weight.data.copy_(model.head.weight)
    rows = rows_of(renderer)
    alone = torch.stack([stock(input_ids=torch.tensor([row])).logits[0, 0] for row in rows])
    torch.testing.assert_close(scores(model, rows), alone, atol=1e-5, rtol=1e-5)


def test_an_encoder_is_read_as_its_stock_classifier_reads_it(tmp_path):
    model, renderer = build(save_bert(tmp_path))
    rows = rows_of(renderer)
    alone = torch.cat([scores(model, [row]) for row in rows])
    torch.testing.assert_close(scores(model, rows), alone, atol=1e-5, rtol=1e-5)
    assert not model.backbone.causal
    assert renderer.text("a", "b").startswith("[CLS]a")


def test_one_completion_gives_one_reward(causal):
    model, renderer = causal
    assert scores(model, rows_of(renderer)[:1]).shape == (1,)


def test_rewards_are_float32_under_bf16_autocast():
    model_source = Tiny()
    tokenizer = model_source.tokenizer()
    backbone = Backbone(model_source.classifier(tokenizer))
    rows = rows_of(Renderer(tokenizer))
    for head in (LinearHead(64), EnsembleHead(64, members=3), AttributeHead(64, attributes=("a", "b"))):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert RewardModel(backbone, head)(pad(rows, 0)).dtype == torch.float32


def test_dropout_is_off_in_evaluation_and_on_in_training():
    head = LinearHead(64, dropout=0.5)
    hidden = torch.randn(7, 64)
    assert not torch.equal(head(hidden), head(hidden))
    head.eval()
    assert torch.equal(head(hidden), head(hidden))


def test_the_head_starts_at_one_over_root_d_plus_one():
    weight = LinearHead(4095).weight
    assert abs(weight.std() * 64 - 1) < 0.05


def test_members_of_an_ensemble_differ_in_start_bootstrap_and_dropout():
    head = EnsembleHead(64, members=4, dropout=0.1)
    rewards = head(torch.randn(5, 64))
    assert rewards.shape == (4, 5)
    assert rewards.var(0).min() > 0
    counts = head.member_weight(torch.arange(1000))
    assert torch.equal(counts, head.member_weight(torch.arange(1000)))
    assert abs(counts.mean() - 1) < 0.1
    assert abs(counts.var() - 1) < 0.2
    assert torch.corrcoef(counts).fill_diagonal_(0).abs().max() < 0.15


def test_an_ensemble_of_one_and_an_attribute_head_without_attributes_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        EnsembleHead(8, members=1)
    with pytest.raises(ValueError, match="attributes="):
        AttributeHead(8, attributes=())


def test_the_mixture_of_a_head_is_its_combination():
    hidden = torch.randn(6, 16)
    for head in (LinearHead(16), EnsembleHead(16), AttributeHead(16, attributes=("a", "b"), mix=(0.3, 0.7))):
        head.eval()
        torch.testing.assert_close(head.combine(head(hidden)), head.mixture() @ head.weight @ hidden.T)


def test_encoder_decoders_are_refused(tmp_path):
    from transformers import T5Config

    T5Config(vocab_size=16, d_model=8, num_layers=1, num_heads=2, d_ff=8).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="encoder-decoder"):
        Pretrained(str(tmp_path)).classifier(Tiny().tokenizer())
