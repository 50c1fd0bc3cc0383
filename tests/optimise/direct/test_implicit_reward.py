"""Implicit rewards against transformers' own loss, adapters against merged models, and the DPO loss's identity."""

import shutil

import hydra
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
)

from rlhf.assemble import CONF
from rlhf.data.batch import Target
from rlhf.data.render import Renderer
from rlhf.models.pretrained import Tiny
from rlhf.optimise.direct.implicit_reward import ImplicitSource, Policies, load_implicit
from rlhf.records import RecordError
from rlhf.reward.losses import dpo
from rlhf.toy.world import ToyWorld

SMALL = {"vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CAUSAL = {
    "llama": LlamaConfig(**SMALL, intermediate_size=64, num_key_value_heads=2),
    "gpt2": GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4, n_positions=1024),
}
RECORDS = list(ToyWorld(size=6).records())


def save_causal(name, folder):
    """A random causal language model with the byte tokenizer."""
    torch.manual_seed(0)
    tokenizer, config = Tiny().tokenizer(), CAUSAL[name]
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=list(CAUSAL))
def folders(request, tmp_path_factory):
    """Two causal language models of one architecture: a policy, and the reference that it moved away from."""
    root = tmp_path_factory.mktemp(request.param)
    reference = save_causal(request.param, root / "reference")
    model = AutoModelForCausalLM.from_pretrained(reference)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    model.save_pretrained(root / "policy")
    AutoTokenizer.from_pretrained(reference).save_pretrained(root / "policy")
    return root / "policy", reference


def stock_log_prob(model, prompt, response):
    """Minus transformers' own loss, one row, no padding."""
    ids = torch.tensor([[*prompt, *response]])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    with torch.no_grad():
        return -model(ids, labels=labels).loss.item() * len(response)


def test_equals_the_losses_that_transformers_computes(folders):
    source = load_implicit(*folders, beta=0.3, max_length=512)
    policy, reference = (AutoModelForCausalLM.from_pretrained(f).eval() for f in folders)
    renderer = Renderer(AutoTokenizer.from_pretrained(folders[0]), max_length=512)
    for record, scores in zip(RECORDS[:3], source.score(RECORDS[:3]), strict=True):
        encoded = renderer.encode(record.prompt, [c.text for c in record.completions])
        expected = [
            0.3 * (stock_log_prob(policy, encoded.prompt, r) - stock_log_prob(reference, encoded.prompt, r))
            for r in encoded.responses
        ]
        np.testing.assert_allclose(scores.reward, expected, atol=2e-4)
        np.testing.assert_array_equal(scores.tokens, [len(encoded.prompt) + len(r) for r in encoded.responses])


@pytest.fixture
def dpo_run(folders, tmp_path):
    """A run's folder as `task=dpo` leaves it, trained with β = 0.03."""
    shutil.copytree(folders[0], tmp_path / "run" / "model")
    (tmp_path / "run" / "model" / "rlhf_policy.json").write_text("{}")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides=["task=dpo", "task.loss.beta=0.03"])
    (tmp_path / "run" / ".hydra").mkdir()
    OmegaConf.save(cfg, tmp_path / "run" / ".hydra" / "config.yaml")
    return tmp_path / "run"


def test_beta_is_that_of_the_run_unless_it_is_given(folders, dpo_run):
    assert load_implicit(dpo_run, folders[1]).beta == 0.03
    assert load_implicit(dpo_run / "model", folders[1]).beta == 0.03
    assert load_implicit(dpo_run, folders[1], beta=0.5).beta == 0.5
    assert load_implicit(*folders).beta == 0.1


def test_a_run_of_another_task_has_no_beta_and_one_that_cannot_be_read_is_told(folders, dpo_run):
    config = dpo_run / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("beta: 0.03", "beta: ${mine}"))
    with pytest.raises(RecordError, match=r"task\.loss\.beta.*no number.*beta=0\.1"):
        load_implicit(dpo_run, folders[1])
    config.write_text(config.read_text().replace("train_dpo", "train_sft"))
    assert load_implicit(dpo_run, folders[1]).beta == 0.1


def test_neither_batches_nor_neighbours_matter(folders):
    together = load_implicit(*folders, max_length=512).score(RECORDS)
    alone = load_implicit(*folders, max_length=512, batch_tokens=1)
    for record, scores in zip(RECORDS, together, strict=True):
        np.testing.assert_allclose(alone.score([record])[0].reward, scores.reward, atol=2e-5)


def test_a_policy_that_has_not_moved_implies_no_reward(folders):
    source = load_implicit(folders[1], folders[1], max_length=512)
    for scores in source.score(RECORDS):
        np.testing.assert_array_equal(scores.reward, 0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_causal("llama", tmp_path_factory.mktemp("llama") / "base")


def test_an_adapter_switched_off_is_its_own_reference(llama, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(llama)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path / "adapter")
    one = load_implicit(tmp_path / "adapter", max_length=512)
    merged = adapted.merge_and_unload().eval()
    reference = AutoModelForCausalLM.from_pretrained(llama).eval()
    assert one.name == "adapter (implicit)"
    two = ImplicitSource("two", Policies(merged, reference), one.renderer)
    for a, b in zip(one.score(RECORDS), two.score(RECORDS), strict=True):
        assert np.abs(a.reward).max() > 0.01
        np.testing.assert_allclose(a.reward, b.reward, atol=1e-4)


def test_the_dpo_loss_is_the_log_probability_of_the_implicit_reward(llama, tmp_path):
    """-log σ(r_chosen - r_rejected) with the scorer's rewards is what `loss=dpo` minimises."""
    model = AutoModelForCausalLM.from_pretrained(llama)
    torch.manual_seed(2)
    with torch.no_grad():
        model.lm_head.weight.add_(0.1 * torch.randn_like(model.lm_head.weight))
    renderer = Renderer(AutoTokenizer.from_pretrained(llama), max_length=512)
    source = ImplicitSource(
        "x", Policies(model.eval(), AutoModelForCausalLM.from_pretrained(llama).eval()), renderer, beta=0.2
    )
    (scores,) = source.score(RECORDS[:1])
    reward = torch.tensor(scores.reward[:2])
    observed = ~torch.eye(2, dtype=torch.bool)[None]
    zero = torch.zeros(1, 2, 2, dtype=torch.float64)
    first_wins = Target(
        win_prob=torch.tensor([[[0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64), tie_prob=zero, observed=observed,
        margin=zero, rank=torch.tensor([[0, 1]]), score=torch.zeros(1, 2, 0), weight=torch.ones(1),
        candidate=torch.ones(1, 2, dtype=torch.bool),
    )  # fmt: skip
    loss = dpo((reward / 0.2)[None], first_wins, beta=0.2)
    torch.testing.assert_close(loss[0], -F.logsigmoid(reward[0] - reward[1]))


def test_what_is_too_long_is_unread_and_trimmed_prompts_are_told(llama):
    short = load_implicit(llama, llama, max_length=90).score(RECORDS)
    full = load_implicit(llama, llama, max_length=512).score(RECORDS)
    unread = [np.isnan(s.reward) for s in short]
    assert 0 < sum(map(np.sum, unread)) < sum(map(len, unread))
    assert any(s.trimmed for s in short)
    assert not any(np.isnan(s.reward).any() or s.trimmed for s in full)


def test_bad_settings_say_what_to_do(llama, tmp_path):
    with pytest.raises(ValueError, match="needs reference="):
        load_implicit(llama)
    with pytest.raises(ValueError, match="must be positive"):
        load_implicit(llama, llama, beta=0)
    other = AutoModelForCausalLM.from_pretrained(llama)
    other.resize_token_embeddings(300)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"knows 259 tokens and its reference .* knows 300"):
        load_implicit(llama, tmp_path / "other")


@pytest.mark.parametrize("which", ["policy", "reference"])
def test_a_reward_model_is_no_policy(llama, tmp_path, which):
    reward = AutoModelForSequenceClassification.from_config(CAUSAL["llama"])
    reward.save_pretrained(tmp_path / "reward")
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path / "reward")
    two = {"policy": llama, "reference": llama} | {which: tmp_path / "reward"}
    with pytest.raises(RecordError, match=f"{which}.*LlamaForSequenceClassification.*no language-model head"):
        load_implicit(**two)
