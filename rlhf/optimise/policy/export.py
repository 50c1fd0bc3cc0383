"""A trained policy as a plain Hugging Face folder: `AutoModelForCausalLM` and `AutoTokenizer`, template included."""

import copy
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.data.render import Renderer
from rlhf.models.policy import CausalPolicy
from rlhf.records import Prompt

TOLERANCE = 1e-4
"""Largest difference allowed between a log-probability before the save and after it, in float32."""
PROBES: tuple[Prompt, ...] = ("Name a colour.", "Why is the sky blue?", "")


class PolicyExportError(RuntimeError):
    """The exported folder is not the policy that was trained."""


def export_policy(policy: CausalPolicy, renderer: Renderer, folder: Path) -> float:
    """Write the folder, load it with nothing but transformers, and compare next-token log-probabilities.

    Args:
        policy: is not changed; an adapter is merged into a copy.
        renderer: its template goes into the tokenizer, so that `apply_chat_template` renders as training did.
        folder: is created.

    Returns:
        The largest difference found.

    Raises:
        PolicyExportError: the difference is above `TOLERANCE` (times 1000 in half precision).
    """
    plain = policy.plain()
    plain.config.use_cache = True
    plain.generation_config.eos_token_id = renderer.tokenizer.eos_token_id
    plain.generation_config.pad_token_id = renderer.tokenizer.pad_token_id
    plain.save_pretrained(folder)
    tokenizer = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = renderer.template
    tokenizer.save_pretrained(folder)
    about = {"template_hash": renderer.template_hash, "max_length": renderer.max_length, "kind": "policy"}
    (folder / "rlhf_policy.json").write_text(json.dumps(about, indent=2))
    difference = _difference(policy, renderer, folder)
    half = next(plain.parameters()).dtype != torch.float32
    if difference > TOLERANCE * (1000 if half else 1):
        raise PolicyExportError(
            f"{folder}: log-probabilities differ by {difference:.2e} after loading: not the trained policy"
        )
    return difference


@torch.inference_mode()
def _difference(policy: CausalPolicy, renderer: Renderer, folder: Path) -> float:
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    device = next(policy.model.parameters()).device
    policy.model.eval()
    found = 0.0
    for prompt in PROBES:
        ids = renderer.opening_ids(prompt)
        text = renderer.text(prompt, "")
        if (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            != renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        ):
            raise PolicyExportError(f"{folder}: the saved tokenizer gives other tokens than the one of training")
        own = policy.model(torch.tensor([ids], device=device)).logits.float().log_softmax(-1).cpu()
        again = loaded(torch.tensor([ids])).logits.float().log_softmax(-1)
        found = max(found, float((own - again).abs().max()))
    return found
