"""The exported folder: a plain Hugging Face classifier that any library loads, and proof that it scores the same.

`model/` holds what `AutoModelForSequenceClassification` and `AutoTokenizer` read (num_labels = 1), and beside it
    rlhf.json             template, lengths, head: how a prompt and an answer become a reward
    calibration.json      temperature, reward mean and std
    ood.safetensors       statistics of training states, for `Scorer.ood_score` and reports
    members.safetensors   the rows of an ensemble or attribute head; the stock layer holds their mixture
A model that no stock classifier can express (pooling=mean, surface features, head=mlp) has its whole head there, and
NaN in the stock layer: in other libraries every score is NaN, never a wrong number, and the card says why.
    probes.json           texts with the scores they had in training; checked in a fresh process after every save
"""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.data.render import Renderer
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.metrics.ood import Reference
from rlhf.models.backbone import Backbone, replace
from rlhf.models.heads import AttributeHead, MlpHead
from rlhf.models.layouts import always_padded
from rlhf.models.reward_model import RewardModel
from rlhf.records import Prompt
from rlhf.reward.scoring.scorer import Scorer

TOLERANCE = 1e-5
"""Largest difference allowed between a score before the save and after it, relative to 1 + |score|, in float32."""

PROBES: tuple[tuple[Prompt, str], ...] = (
    ("Name a colour.", "Blue."),
    ("Why is the sky blue?", "Because air scatters short waves of light more than long ones. " * 8),
    ("Übersetze: good morning → ?", "Guten Morgen! ☀️"),
    (
        (
            {"role": "user", "content": "I lost my keys."},
            {"role": "assistant", "content": "Where did you see them last?"},
            {"role": "user", "content": "In the kitchen."},
        ),
        "Look under the table, then in yesterday's coat.",
    ),
    ("", "An answer to nothing."),
)


class ExportError(RuntimeError):
    """The exported folder does not give the scores it should."""


def export(
    model: RewardModel, renderer: Renderer, folder: Path, calibration: Calibration, reference: Reference | None = None
) -> float:
    """Write the folder, load it in a fresh process, compare the scores of the probes.

    Args:
        model: is not changed; an adapter is merged into a copy, and 4-bit weights are exported in float32 (the
            probes then hold the scores of that copy, whose arithmetic is not that of 4-bit kernels).
        renderer: its template goes into the tokenizer.
        folder: is created.
        calibration: temperature, mean and std of the reward.
        reference: what the states of training completions look like.

    Returns:
        The largest difference found, relative to 1 + |score|.

    Raises:
        ExportError: the difference is above `TOLERANCE` (times 1000 in half precision).
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = _plain(model)
    quantised = getattr(model.backbone.classifier, "is_loaded_in_4bit", False)
    _write_probes(plain if quantised else model, renderer, folder)
    needs = needs_rlhf(model)
    classifier = _classifier(plain, None if needs else plain.head.mixture() @ plain.head.weight)
    classifier.config.reward_temperature = calibration.temperature
    classifier.config.reward_mean, classifier.config.reward_std = (calibration.reward_mean, calibration.reward_std)
    classifier.save_pretrained(folder)
    tokenizer = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = renderer.template
    tokenizer.save_pretrained(folder)
    head = model.head
    if head.weight.shape[0] > 1 or needs:
        rows = {"weight": head.weight, "mixture": head.mixture()}
        rows |= {"bias": head.bias} if isinstance(head, AttributeHead) else {}
        rows |= {"inner": head.inner, "outer": head.outer} if isinstance(head, MlpHead) else {}
        tensors = {name: value.detach().float().cpu().contiguous() for name, value in rows.items()}
        save_file(tensors, folder / "members.safetensors")
    about: dict[str, Any] = {
        "template_hash": renderer.template_hash,
        "max_length": renderer.max_length,
        "min_prompt": renderer.min_prompt,
        "head": type(head).__name__,
        "rows": head.names,
        "pooling": model.backbone.pooling,
        "surface": model.backbone.surface is not None,
        "needs_rlhf": needs,
    }
    (folder / "rlhf.json").write_text(json.dumps(about, indent=2))
    calibration.to_json(folder / "calibration.json")
    if reference is not None:
        reference.save(folder / "ood.safetensors")
    card = OWN_CARD.format(needs=needs) if needs else CARD.format(max_length=renderer.max_length)
    (folder / "README.md").write_text(card)
    return check(folder, plain=not needs)


def needs_rlhf(model: RewardModel) -> str:
    """Why no stock classifier can hold the model; empty where one can."""
    backbone, reasons = model.backbone, []
    if backbone.pooling != "stock":
        reasons.append(f"its states are the {backbone.pooling} over all tokens")
    if backbone.surface is not None:
        reasons.append("it reads surface features of the answer")
    if not model.head.plain:
        reasons.append("its head is not linear")
    return ", and ".join(reasons)


def check(folder: Path, *, plain: bool = True) -> float:
    """Load the folder in a fresh process and compare; with nothing but transformers where it is `plain`."""
    script = "plain_check.py" if plain else "own_check.py"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ExportError(f"{folder} does not load in a fresh process:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    allowed = TOLERANCE * (1 if found["dtype"] == "torch.float32" else 1000)
    if found["difference"] > allowed:
        raise ExportError(
            f"{folder} scores differ by {found['difference']:.2e} (allowed {allowed:.0e}) after loading in a fresh "
            "process: the folder is not the trained model, do not use it"
        )
    return float(found["difference"])


def _plain(model: RewardModel) -> RewardModel:
    """A copy on the CPU without adapter and without 4-bit weights."""
    backbone: Backbone = copy.deepcopy(model.backbone).cpu()
    trunk = backbone.trunk
    if isinstance(trunk, PeftModel):
        _dequantise(trunk)
        backbone.put_trunk(trunk.merge_and_unload())
    if getattr(backbone.classifier, "is_loaded_in_4bit", False):
        backbone.classifier.is_loaded_in_4bit = False
        backbone.classifier.hf_quantizer = None
        del backbone.classifier.config.quantization_config
    return RewardModel(backbone, copy.deepcopy(model.head).cpu())


def _dequantise(trunk: PeftModel) -> None:
    """4-bit layers as float32 ones with their adapter added, so that the merge loses nothing to rounding."""
    for name, layer in list(trunk.named_modules()):
        base = getattr(layer, "base_layer", layer)
        state = getattr(getattr(base, "weight", None), "quant_state", None)
        if state is None or name.endswith(".base_layer"):
            continue
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(base.weight.data, state).float()
        if base is not layer:
            weight += sum(layer.get_delta_weight(adapter).float() for adapter in layer.active_adapters)
        merged = nn.Linear(weight.shape[1], weight.shape[0], bias=base.bias is not None)
        merged.weight.data.copy_(weight)
        if base.bias is not None:
            merged.bias.data.copy_(base.bias)
        replace(trunk, name, merged)


def _classifier(plain: RewardModel, weight: Float[Tensor, " D"] | None) -> PreTrainedModel:
    """The classifier with this weight as its last layer, or with NaN where it can have none."""
    backbone = plain.backbone
    classifier = backbone.classifier
    dtype = next(classifier.parameters()).dtype
    last = nn.Linear(backbone.state_size, 1, bias=backbone.head_has_bias, dtype=dtype)
    with torch.no_grad():
        last.weight.fill_(torch.nan) if weight is None else last.weight.copy_(weight[None, :])
        if backbone.head_has_bias:
            last.bias.zero_()
    replace(classifier, backbone.head_name, last)
    return classifier


def _write_probes(model: RewardModel, renderer: Renderer, folder: Path) -> None:
    scorer = Scorer(model, renderer, Calibration.identity(), layout=always_padded)  # as the proof scores
    probes = []
    for prompt, response in PROBES:
        if renderer.encode(prompt, [response]).trimmed or not renderer.encode(prompt, [response]).kept:
            continue
        text = renderer.text(prompt, response)
        score = scorer.score(prompt, [response])[0]
        probes.append({"text": text, "prompt": prompt, "response": response, "score": score})
    (folder / "probes.json").write_text(json.dumps(probes, indent=2, ensure_ascii=False))


CARD = """# Reward model

A Bradley-Terry reward model with one label: a higher score means a better answer. Differences of scores are
log-odds once divided by `reward_temperature` (config.json), fitted on the validation split.

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("this-folder").eval()
tokenizer = AutoTokenizer.from_pretrained("this-folder")
chat = [{{"role": "user", "content": "..."}}, {{"role": "assistant", "content": "..."}}]
text = tokenizer.apply_chat_template(chat, tokenize=False).rstrip()  # read at the end token, not at a break behind it
score = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0]
```

`rlhf.load("this-folder")` does the same and also trims long prompts to {max_length} tokens, gives calibrated
probabilities, and knows the members of an ensemble.
"""

OWN_CARD = """# Reward model

A Bradley-Terry reward model: a higher score means a better answer. No stock classifier can hold it, because {needs}.
Plain transformers load the trunk with a head of NaN, so that every score is NaN and none is wrong. Load it with

```python
import rlhf

rlhf.load("this-folder").score("prompt", ["one answer", "another"])
```

or serve it: `python -m rlhf.serve run=this-folder`.
"""
