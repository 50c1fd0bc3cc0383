"""Small random models of several architectures, saved as folders in Hugging Face format."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from rlhf.models.pretrained import Tiny, set_dropout

COMMON = {"vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CAUSAL = {
    "llama": LlamaConfig(**COMMON, intermediate_size=64, num_key_value_heads=2),
    "qwen3": Qwen3Config(**COMMON, intermediate_size=64, num_key_value_heads=2, head_dim=8),
    "gpt2": GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4, n_positions=1024),
    "pythia": GPTNeoXConfig(**COMMON, intermediate_size=64),
}


def save_causal(name: str, folder: Path, *, pad: str | None = "<pad>") -> Path:
    """A random causal LM with a byte tokenizer; most base models pad with their end token, `</s>`, or have None."""
    torch.manual_seed(0)
    tokenizer = Tiny().tokenizer()
    tokenizer.pad_token = pad
    config = CAUSAL[name]
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_bert(folder: Path) -> Path:
    """A random BERT with a character tokenizer."""
    torch.manual_seed(0)
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = {t: i for i, t in enumerate(special + letters + [f"##{c}" for c in letters])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=1000))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(folder)
    config = BertConfig(**COMMON | {"vocab_size": len(vocabulary)}, intermediate_size=64, pad_token_id=0)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2}
SMALL = {
    "llama": {"intermediate_size": 64},
    "llama_gqa": {"model_type": "llama", **GROUPED},
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gpt2": {},
    "pythia": {"model_type": "gpt_neox", "intermediate_size": 64},
    "gemma": {**GROUPED, "num_key_value_heads": 1, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8},
    "gemma3": {"model_type": "gemma3_text", **GROUPED, "head_dim": 8},
    "mistral": GROUPED,
    "phi3": GROUPED,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {},
    "bert": {"intermediate_size": 64},
    "roberta": {"intermediate_size": 64, "pad_token_id": 1},
    "electra": {"intermediate_size": 64, "embedding_size": 32},
    "distilbert": {"hidden_dim": 64},
    "deberta": {"model_type": "deberta-v2", "intermediate_size": 64},
}


def small(name, *, gradient_checkpointing=False, **options):
    """A random classifier with one label: 3 layers, 4 heads, hidden size 32, 259 tokens, no dropout."""
    given = {"model_type": name, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, **SMALL[name]}
    kind = given.pop("model_type")
    config = AutoConfig.for_model(kind, **COMMON | {"num_hidden_layers": 3}, **given)
    set_dropout(config, 0.0)
    config.num_labels = 1
    for key, value in options.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    if gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model
