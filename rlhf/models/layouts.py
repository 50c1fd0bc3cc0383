"""Which token layout a model gets: the fastest that gives the same rewards, tried before it is used."""

import logging
from functools import partial

import torch

from rlhf.data.token_layout import Layout, packed, padded, shared
from rlhf.models.backbone import Backbone

log = logging.getLogger(__name__)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference of the trial's hidden states, relative to 1 + their size; 0.05 in half precision."""


def auto(backbone: Backbone, *, pad_id: int, max_length: int) -> Layout:
    """`shared` for a causal model, `packed` for an encoder; `padded`, and a line in the log, where neither holds."""
    layout: Layout = shared if backbone.causal else packed
    reason = why_not(backbone, layout, max_length=max_length)
    if reason is None:
        return layout
    log.warning("layout=padded, because %s", reason)
    return partial(padded, pad_id=pad_id)


def always_padded(backbone: Backbone, *, pad_id: int, max_length: int) -> Layout:
    """`padded`, whatever the model."""
    return partial(padded, pad_id=pad_id)


def always_packed(backbone: Backbone, *, pad_id: int, max_length: int) -> Layout:
    """`packed`. Raises ValueError where the model cannot."""
    return _insist(backbone, packed, max_length)


def always_shared(backbone: Backbone, *, pad_id: int, max_length: int) -> Layout:
    """`shared`. Raises ValueError where the model cannot."""
    return _insist(backbone, shared, max_length)


def why_not(backbone: Backbone, layout: Layout, *, max_length: int) -> str | None:
    """Why a model cannot use a packed layout, or None where it can: its configuration, then a trial.

    A trunk in evaluation mode, because it is frozen or scores, has no dropout.
    """
    config = backbone.classifier.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    used = getattr(config, "use_sliding_window", True)
    if window is not None and used and window < max_length:
        return f"its sliding window of {window} tokens is shorter than max_length={max_length}"
    dropouts = ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop")
    if backbone.training and any(getattr(config, name, 0.0) for name in dropouts):
        return "block attention cannot do attention dropout; model.dropout=0 switches it off"
    if not backbone.can_pack:
        return f"{type(backbone.trunk).__name__} does not go through transformers' attention interface"
    return _trial(backbone, layout)


@torch.no_grad()
def _trial(backbone: Backbone, layout: Layout) -> str | None:
    """Score a few ragged sequences both ways."""
    device = next(backbone.parameters()).device
    words = iter(range(5, 100_000))
    rows = backbone.classifier.get_input_embeddings().weight.shape[0]
    prompts = [[next(words) % rows for _ in range(n)] for n in (5, 3)]
    answers = [[[next(words) % rows for _ in range(n)] for n in sizes] for sizes in ((4, 2, 6), (1, 3))]
    training = backbone.training
    try:
        backbone.eval()
        one_by_one = padded(prompts, answers, pad_id=rows - 1).to(device)
        expected = backbone(one_by_one)
        found = backbone(layout(prompts, answers).to(device))
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        return f"a trial failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    finally:
        backbone.train(training)
    difference = float(((found - expected).abs() / (1 + expected.abs())).max())
    if difference > TOLERANCE.get(expected.dtype, 0.05):
        return f"a trial's states differ by {difference:.1e} from the padded ones"
    return None


def _insist(backbone: Backbone, layout: Layout, max_length: int) -> Layout:
    reason = why_not(backbone, layout, max_length=max_length)
    if layout is shared and not backbone.causal:
        reason = "an encoder's prompt sees its completion"
    if reason is not None:
        raise ValueError(f"layout={layout.__name__} is not possible: {reason}; use layout=auto or layout=padded")
    return layout
