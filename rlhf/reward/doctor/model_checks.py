"""Checks of a model on its own data, as the doctor reports them: each measures, none changes the model."""

import copy
import tempfile
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlhf.data.batch import Batch, Surface, Tokens
from rlhf.data.collate import collate
from rlhf.data.token_layout import pad, padded
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.models.reward_model import RewardModel
from rlhf.reward.doctor.data_checks import Check, verdict
from rlhf.reward.export import ExportError, export
from rlhf.reward.frozen import spread
from rlhf.reward.module import RewardModule
from rlhf.reward.precision import bf16_gain
from rlhf.reward.training import RewardRun

GROUPS = 8  # groups of the training split that the checks use
PADDING = 8  # tokens of padding that even the longest row gets, as far as `max_length` allows
TOLERANCE = 1e-4  # largest difference between two ways to score the same text, relative to 1 + |score|, in float32


def check_padding_token(run: RewardRun) -> Check:
    """The padding token must not be the end token, and tokenizer and model must agree on it.

    A folder that has none, or pads with its end token, was given one when it was loaded: a note says so.
    """
    tokenizer, config = run.data.renderer.tokenizer, run.module.model.backbone.classifier.config
    name, pad_id, had = "padding token", tokenizer.pad_token_id, tokenizer.init_kwargs.get("pad_token")
    if pad_id in (None, tokenizer.eos_token_id) or config.pad_token_id != pad_id:
        measured = f"pad={pad_id}, end={tokenizer.eos_token_id}, the model's configuration says {config.pad_token_id}"
        remedy = "give the tokenizer a padding token of its own: a finished answer is read before its end"
        return Check(name, "FAIL", measured, remedy)
    if str(had) != tokenizer.pad_token:
        found = "no padding token" if had is None else f"its end token {str(had)!r} as padding"
        measured = f"the model's folder has {found}; {tokenizer.pad_token!r} was added"
        return Check(name, "note", measured, "nothing to do: the exported folder has it too")
    return Check(name, "ok", f"pad={tokenizer.pad_token!r}, end={run.data.renderer.end!r}")


def check_padding_side(run: RewardRun) -> Check:
    """Right padding, left padding, other padding ids and no padding at all must give one score.

    Every row is scored alone, so that nothing but the padding differs.
    """
    model, rows = run.module.model.eval(), _sequences(run)
    width = min(max(map(len, rows)) + PADDING, run.data.renderer.max_length)

    def scores(**padding: Any) -> Tensor:
        return torch.cat([_score(model, [row], **padding) for row in rows])

    plain = scores()
    worst = max(
        _difference(plain, scores(width=width)),
        _difference(plain, scores(width=width, pad_id=1)),
        _difference(plain, scores(width=width, left=True)) if model.backbone.causal else 0.0,
    )
    remedy = "the model ignores attention_mask or position_ids; try model.attention=eager"
    return verdict("padding", worst > TOLERANCE, f"largest difference {worst:.1e} (side, id, none)", remedy)


def check_batch_invariance(run: RewardRun) -> Check:
    """A score must not depend on the batch's size or order; the padded width is the same throughout."""
    model, rows = run.module.model.eval(), _sequences(run)
    together, width = _score(model, rows), max(map(len, rows))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = torch.empty_like(together)
    shuffled[order] = torch.cat(
        [_score(model, [rows[i] for i in order[s : s + 3]], width=width) for s in range(0, len(rows), 3)]
    )
    worst = _difference(together, shuffled)
    remedy = "a layer mixes rows (batch statistics?); reward models must score each row alone"
    return verdict("batch size and order", worst > TOLERANCE, f"largest difference {worst:.1e}", remedy)


def check_layout(run: RewardRun) -> Check:
    """The layout that training uses must give the padded layout's scores on the user's own rows."""
    model, columns = run.module.model.eval(), _columns(run, GROUPS)
    groups = columns["prompt"], columns["responses"]
    device, pad_id = model.head.weight.device, run.data.renderer.tokenizer.pad_token_id
    with torch.inference_mode():
        tokens, plain = run.data.layout(*groups), padded(*groups, pad_id=pad_id)
        beside = model.backbone.with_surface(partial(padded, pad_id=pad_id))(*groups)
        worst = _difference(model(beside.to(device)), model(tokens.to(device)))
    read: Any = getattr(tokens, "tokens", tokens)
    share = read.input_ids.numel() / plain.input_ids.numel()
    measured = f"{type(read).__name__.lower()}, largest difference {worst:.1e}, {share:.0%} of the padded tokens"
    return verdict("token layout", worst > TOLERANCE, measured, "layout=padded, and report this model")


def check_eval_is_deterministic(run: RewardRun) -> Check:
    """Two passes in evaluation mode must agree: no dropout may be left on."""
    model, rows = run.module.model.eval(), _sequences(run)
    worst = _difference(_score(model, rows), _score(model, rows))
    return verdict("two passes agree", worst > 0, f"largest difference {worst:.1e}", "dropout is active in eval mode")


def check_head(run: RewardRun) -> Check:
    """The head must be trained, in float32, free of adapters, and the embeddings as long as the tokenizer."""
    model = run.module.model
    rows = model.backbone.classifier.get_input_embeddings().weight.shape[0]
    vocabulary = len(run.data.renderer.tokenizer)
    weight = model.head.weight
    sound = weight.requires_grad and weight.dtype == torch.float32 and rows >= vocabulary
    measured = f"{weight.dtype}, trained: {weight.requires_grad}, embeddings {rows} >= vocabulary {vocabulary}"
    return verdict("score head", not sound, measured, "report this: the head must be trainable float32")


def check_export(run: RewardRun) -> Check:
    """Save (and merge an adapter that is not zero), load with plain transformers in a fresh process, compare."""
    model = copy.deepcopy(run.module.model)
    _stir_adapter(model)
    with tempfile.TemporaryDirectory() as folder:
        try:
            difference = export(model, run.data.renderer, Path(folder), Calibration.identity())
        except ExportError as error:
            return Check("save, merge, load", "FAIL", str(error).splitlines()[0], "do not use exports of this model")
    return Check("save, merge, load", "ok", f"largest difference {difference:.1e} in a fresh process")


def check_first_batch_overfit(run: RewardRun, steps: int = 60) -> Check:
    """A few groups must be learned by heart: the loss gets at least half of the way to its floor.

    The floor is what the loss would be if every completion's reward could be chosen freely. A head on a frozen trunk
    learns from scaled states, as in training.
    """
    module, rate = copy.deepcopy(run.module).train(), 1e-3
    if module.model.backbone.frozen:
        rate, module.model.backbone.scale = 1e-1, spread(module.model, run.data, rows=GROUPS)
        module.model.head.zero()
    batch = _batch(run).to(run.module.device)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    module.centring_weight = 0.0
    floor, losses = _floor(module, batch), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = module.step_loss(batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    gap = losses[0] - floor
    learned = (losses[0] - min(losses)) / gap if gap > 1e-6 else 1.0
    measured = f"loss {losses[0]:.3f} -> {min(losses):.3f} (floor {floor:.3f}) in {steps} steps on {len(batch)} prompts"
    remedy = "gradients do not reach the trunk, or labels contradict each other: try adapter=none, a higher rate"
    return verdict("first batch overfits", not learned > 0.5, measured, remedy)


def check_precision(run: RewardRun) -> Check:
    """Half precision is for machines that compute it faster."""
    asked, device = str(run.trainer.precision), run.module.model.head.weight.device.type
    gain = bf16_gain(device)
    times = f"{gain:.1f} times faster" if gain >= 1 else f"{1 / max(gain, 1e-3):.1f} times slower"
    measured = f"{asked}; bf16 is {times} than fp32 here"
    return verdict("precision", "bf16" in asked and gain < 1, measured, "trainer.precision=auto", warn=True)


MODEL_CHECKS = (
    check_precision,
    check_padding_token, check_padding_side, check_batch_invariance, check_layout, check_eval_is_deterministic,
    check_head, check_export, check_first_batch_overfit,
)  # fmt: skip


def _columns(run: RewardRun, groups: int) -> dict[str, Any]:
    """Some groups as training meets them, none larger than a step holds."""
    loader = run.data.train_dataloader()
    columns: dict[str, Any] = loader.dataset[list(islice(chain.from_iterable(loader.sampler), groups))]
    return columns


def _sequences(run: RewardRun) -> list[list[int]]:
    columns = _columns(run, GROUPS)
    pairs = zip(columns["prompt"], columns["responses"], strict=True)
    return [[*prompt, *response] for prompt, responses in pairs for response in responses]


def _batch(run: RewardRun) -> Batch:
    columns = _columns(run, GROUPS // 2)
    pad_id = run.data.renderer.tokenizer.pad_token_id
    layout = run.module.model.backbone.with_surface(partial(padded, pad_id=pad_id))
    return collate(columns, layout=layout, denominator=float(len(columns["row"])))


@torch.inference_mode()
def _score(model: RewardModel, rows: list[list[int]], *, pad_id: int = 0, left: bool = False, width: int = 0) -> Tensor:
    backbone, tokens = model.backbone, pad(rows, pad_id, left=left, width=width)
    beside = np.zeros((len(rows), backbone.hidden_size - backbone.state_size), np.float32)
    given = (tokens if backbone.surface is None else Surface.of(tokens, beside)).to(model.head.weight.device)
    return model.head.combine(model(given)).cpu()


def _difference(a: Tensor, b: Tensor) -> float:
    return float(((a - b).abs() / (1 + a.abs())).max())


def _stir_adapter(model: RewardModel) -> None:
    """LoRA starts as zero, which would make any merge look right."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


class _Free(nn.Module):
    """A model without a trunk: one free number per completion and member."""

    def __init__(self, model: RewardModel, start: Tensor) -> None:
        super().__init__()
        self.head, self.reward = model.head, nn.Parameter(start)

    def forward(self, tokens: Tokens) -> Tensor:
        return self.reward


def _floor(module: RewardModule, batch: Batch) -> float:
    """The least that the loss, with its own parameters as they are, can be on a batch: found over free rewards."""
    model = module.model
    with torch.no_grad():
        free = _Free(model, torch.zeros_like(model(batch.tokens)))
    module.model = free  # type: ignore[assignment]  # a head and rewards are all that step_loss asks of it
    optimizer = torch.optim.LBFGS([free.reward], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = module.step_loss(batch)
        torch.autograd.backward(loss)
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    floor = closure()
    module.model = model
    return floor
