"""A folder or hub name as a language model, and nothing else: a head that is not stored would be random."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from rlhf.records import RecordError

OTHER_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")
"""How transformers ends the names of architectures that do not continue a text."""


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
    model, info = AutoModelForCausalLM.from_pretrained(
        path, config=config, output_loading_info=True, **options
    )
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
