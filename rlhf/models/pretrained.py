"""Where a model comes from: a Hugging Face folder or hub id, or a small configuration that needs no download.

Both give a tokenizer and a *classifier*: the stock `AutoModelForSequenceClassification` with one label. The classifier
is what we export, so the reward model never lives in a format of its own; its last layer is taken over by
`rlhf.models.heads` while training.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from rlhf.models.backbone import Backbone, Pooling
from rlhf.models.names import missing_folder, not_found
from rlhf.records import RecordError

PAD_TOKEN = "<|pad|>"

OTHER_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")
"""How transformers ends the names of architectures that do not continue a text."""


@dataclass(frozen=True)
class Pretrained:
    """A model of the hub or of a local folder.

    Args:
        path: hub id or folder.
        revision: branch, tag or commit of the hub repository.
        dtype: dtype of the stored weights while training; the head is always float32.
        layers: the first so many layers only, with the last norm after them; None = all.
        attention: transformers' attention implementation (`sdpa`, `eager`, `flash_attention_2`, ...).
        dropout: dropout inside the trunk. 0 is the field's default for reward models; the head has its own.
        gradient_checkpointing: recompute activations in the backward pass: less memory, about 25% slower.
        trust_remote_code: run code that the hub repository ships.
        load_in_4bit: QLoRA: 4-bit NF4 weights through bitsandbytes; the head stays float32.
        learning_rate: the peak rate that suits training all of it; the optimizer's default (conf/optimizer).
        pooling, surface: what the head reads; see `rlhf.models.backbone.Backbone`.

    Raises:
        FileNotFoundError: `path` is written as a folder, and there is none.
    """

    path: str
    revision: str | None = None
    dtype: str = "float32"
    attention: str = "sdpa"
    dropout: float = 0.0
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False
    load_in_4bit: bool = False
    learning_rate: float = 2e-5
    layers: int | None = None
    pooling: Pooling = "stock"
    surface: bool = False

    def __post_init__(self) -> None:
        if wrong := missing_folder(self.path, "model.path"):
            raise FileNotFoundError(wrong)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with a padding token that differs from the end token (see `separate_pad`)."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.path, **self._source)
        except OSError as error:
            if Path(self.path).is_dir():
                raise
            raise FileNotFoundError(not_found(self.path, "model.path")) from error
        return separate_pad(tokenizer)

    def classifier(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The stock classifier with `num_labels=1`, its embeddings as long as the tokenizer.

        Raises:
            ValueError: the architecture has no sequence-classification class, or is an encoder-decoder.
        """
        config = AutoConfig.from_pretrained(self.path, **self._source)
        if config.is_encoder_decoder:
            raise ValueError(f"model.path={self.path} is an encoder-decoder; use a causal model or an encoder")
        config.num_labels = 1
        load = partial(AutoModelForSequenceClassification.from_pretrained, ignore_mismatched_sizes=True)
        return self._loaded(load, config, tokenizer)

    def causal(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The language model itself, for policies.

        Raises:
            RecordError: the architecture cannot continue a text, or the stored model has no language-model head.
        """
        config = AutoConfig.from_pretrained(self.path, **self._source)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not self.trust_remote_code:
            raise RecordError(
                f"{self.path} is a {config.model_type}: a policy must be a causal language model", key="model.path"
            )
        return self._loaded(load_causal, config, tokenizer)

    @property
    def _source(self) -> dict[str, Any]:
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    def _loaded(
        self, load: Callable[..., PreTrainedModel], config: Any, tokenizer: PreTrainedTokenizerBase
    ) -> PreTrainedModel:
        set_dropout(config, self.dropout)
        _keep_layers(config, self.layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what the folder lacks, such as a pooler, is the same whenever it is loaded
            model = load(
                self.path, config=config, dtype=getattr(torch, self.dtype), attn_implementation=self.attention,
                quantization_config=_four_bit() if self.load_in_4bit else None, **self._source,
            )  # fmt: skip
        return fit_classifier(model, tokenizer, self.gradient_checkpointing)


@dataclass(frozen=True)
class Tiny:
    """A small random Llama over bytes: works offline, trains on a CPU.

    Args:
        width: hidden size. depth: number of layers. heads: attention heads.
        max_length: positions the model knows.
        dropout: dropout on attention weights inside the trunk.
        gradient_checkpointing: recompute activations in the backward pass.
        seed: of the random weights.
        learning_rate: the peak rate that suits it; the optimizer's default (conf/optimizer).
        pooling, surface: as in `Pretrained`.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    max_length: int = 2048
    dropout: float = 0.0
    gradient_checkpointing: bool = False
    seed: int = 0
    learning_rate: float = 1e-3
    pooling: Pooling = "stock"
    surface: bool = False
    special: tuple[str, ...] = field(default=("<pad>", "<s>", "</s>"), repr=False)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """One token per UTF-8 byte plus padding, begin and end; `AutoTokenizer` loads it from a saved folder."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate((*self.special, *alphabet))}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        pad, begin, end = self.special
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token=pad,
            bos_token=begin,
            eos_token=end,
            model_max_length=self.max_length,
            clean_up_tokenization_spaces=False,
        )

    def classifier(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """A `LlamaForSequenceClassification` with random weights drawn from `seed`."""
        return self._build(AutoModelForSequenceClassification, tokenizer, num_labels=1)

    def causal(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """A `LlamaForCausalLM` with random weights drawn from `seed`."""
        return self._build(AutoModelForCausalLM, tokenizer)

    def _build(self, kind: Any, tokenizer: PreTrainedTokenizerBase, **options: Any) -> PreTrainedModel:
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=3 * self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.max_length,
            attention_dropout=self.dropout,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = kind.from_config(config)
        return fit_classifier(model, tokenizer, self.gradient_checkpointing)


def separate_pad(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give the tokenizer a padding token that is not its end token, and right padding.

    Stock classifiers read the last token that is not padding; where padding is the end token, a finished
    answer would be read before its end and a cut one would look finished (transformers#35352).
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    tokenizer.padding_side = "right"
    return tokenizer


def positions(model_source: Pretrained | Tiny, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many positions the model knows, or None where the configuration does not say."""
    if isinstance(model_source, Tiny):
        return model_source.max_length
    config = AutoConfig.from_pretrained(
        model_source.path, revision=model_source.revision, trust_remote_code=model_source.trust_remote_code
    )
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    known = [n for n in (stated, tokenizer.model_max_length) if n is not None and 0 < n < 10**9]
    return min(known) if known else None


def fit_classifier(
    classifier: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, gradient_checkpointing: bool
) -> PreTrainedModel:
    """Make embeddings, padding id and memory options of the classifier agree with tokenizer and config."""
    rows = classifier.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        classifier.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    classifier.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    classifier.config.pad_token_id = tokenizer.pad_token_id
    classifier.config.use_cache = False
    if gradient_checkpointing:
        classifier.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return classifier


def backbone_of(model_source: Pretrained | Tiny, tokenizer: PreTrainedTokenizerBase) -> Backbone:
    """The trunk of a model source, read as it says."""
    surface = tokenizer if model_source.surface else None
    return Backbone(model_source.classifier(tokenizer), pooling=model_source.pooling, surface=surface)


def _keep_layers(config: Any, layers: int | None) -> None:
    """Leave the first layers only. Raises RecordError where there are not so many."""
    if layers is None:
        return
    text = config.get_text_config()
    depth = getattr(text, "num_hidden_layers", None)
    if depth is None:
        raise RecordError(
            f"is {layers}, but a {text.model_type} has no list of layers", key="model.layers", remedy="null"
        )
    if not 1 <= layers <= depth:
        raise RecordError(f"is {layers}", key="model.layers", remedy=f"1 to {depth}, or null for all")
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]


def set_dropout(config: Any, rate: float) -> None:
    """Set every dropout rate that the configuration names (`attention_dropout`, `resid_pdrop`, ...)."""
    for key, value in vars(config).items():
        if isinstance(value, float) and ("dropout" in key or key.endswith("_pdrop")):
            setattr(config, key, rate)


def _four_bit() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["score", "classifier"],
    )


def load_causal(path: str, *, config: Any = None, key: str = "model.path", **options: Any) -> PreTrainedModel:
    """`AutoModelForCausalLM.from_pretrained`, its head included.

    Args:
        path: folder or hub name.
        config: of the model; read from `path` by default.
        key: of the configuration, for the message.
        options: of `from_pretrained`.

    Raises:
        RecordError: the stored model is of another architecture, a reward model for one, or has no language-model
            head.
    """
    source = {k: options[k] for k in ("revision", "trust_remote_code") if k in options}
    config = config or AutoConfig.from_pretrained(path, **source)
    named = ", ".join(config.architectures or [])
    if named and all(name.endswith(OTHER_HEADS) for name in config.architectures):
        raise _refused(path, named, key)
    model, info = AutoModelForCausalLM.from_pretrained(path, config=config, output_loading_info=True, **options)
    head = model.get_output_embeddings()
    own = {name for name, module in model.named_modules() if module is head}
    if any(name.rpartition(".")[0] in own for name in info["missing_keys"]):
        raise _refused(path, named or config.model_type, key)
    return model


def _refused(path: str, named: str, key: str) -> RecordError:
    return RecordError(
        f"{path} is a {named} and holds no language-model head: as a policy it would answer at random", key=key,
        remedy="a causal language model: <run of task=sft, dpo or policy>/model, or the model it was trained from",
    )  # fmt: skip
