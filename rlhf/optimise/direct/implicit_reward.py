"""The reward that a DPO-trained policy implies, as something that scores records for a report."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float
from peft import AutoPeftModelForCausalLM
from torch import Tensor
from transformers import AutoTokenizer

from rlhf.data.render import Encoded, Renderer
from rlhf.data.token_layout import filled
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.score_source import Scores
from rlhf.models.policy import Spans, spans, token_logp
from rlhf.models.pretrained import load_causal
from rlhf.records import Comparison, RecordError
from rlhf.reward.scoring.engine import GroupScores
from rlhf.reward.scoring.once import ScoreMemo

DPO = ("rlhf.optimise.direct.train.train_dpo", "rlhf.optimise.tuning.train_dpo")
"""What a run of `task=dpo` has done, as its configuration names it: today, and before the move."""


@dataclass(frozen=True)
class Policies:
    """A policy and what it is compared with.

    model      causal language model, in evaluation mode
    reference  another one over the same tokens; None = `model` with its adapter switched off
    batch_tokens  tokens per forward pass
    """

    model: Any
    reference: Any | None = None
    batch_tokens: int = 4096

    @torch.inference_mode()
    def score(self, groups: Iterable[Encoded]) -> Iterator[GroupScores]:
        """Log-ratios of every group's completions, in double precision; no states."""
        read = list(groups)
        rows = [(i, k, g.prompt, ids) for i, g in enumerate(read) for k, ids in enumerate(g.responses)]
        found = [torch.zeros(len(g.responses), dtype=torch.float64) for g in read]
        device = next(self.model.parameters()).device
        for part in filled(rows, lambda row: [len(row[2]) + len(row[3])], self.batch_tokens, pads=True):
            block = spans([prompt for _, _, prompt, _ in part], [[ids] for *_, ids in part], pad_id=0)  # masked
            for (i, k, *_), value in zip(part, self.log_ratio(block.to(device)).tolist(), strict=True):
                found[i][k] = value
        return (GroupScores(ratio, ratio, torch.zeros(len(ratio), 0)) for ratio in found)

    def log_ratio(self, rows: Spans) -> Float[Tensor, " N"]:
        """Log π(completion | prompt) - log π_ref(completion | prompt), summed over the completion's tokens."""
        policy = token_logp(self.model, rows).sum(1)
        if self.reference is not None:
            return policy - token_logp(self.reference, rows).sum(1)
        with self.model.disable_adapter():
            return policy - token_logp(self.model, rows).sum(1)


class ImplicitSource:
    """Reward β (log π(y | x) - log π_ref(y | x)), summed over the tokens of y with its end token.

    Rafailov et al. (2023), eq. 5, without β log Z(x): that term is the same for all answers to a prompt, so rewards of
    different prompts must not be compared. β changes neither accuracy nor ranks; as a scale it is what the
    uncalibrated probabilities hang on.

    Args:
        name: heads its rows and columns.
        policies: policy and reference.
        renderer: prompt and answer to tokens, as in training.
        beta: β > 0 of the training.
        batch_tokens: tokens per forward pass.

    Raises:
        ValueError: β is not positive.
    """

    calibration: Calibration | None = None

    def __init__(
        self, name: str, policies: Policies, renderer: Renderer, *, beta: float = 0.1, batch_tokens: int = 4096
    ) -> None:
        if not beta > 0:
            raise ValueError(f"beta={beta:g}: must be positive, the one of the training, e.g. 0.1")
        self.name, self.renderer, self.beta = name, renderer, beta
        self._memo = ScoreMemo(replace(policies, batch_tokens=batch_tokens))

    @property
    def counts(self) -> dict[str, int]:
        """Completions that were asked for, and those that the policy read: each distinct text once."""
        return self._memo.counts

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Rewards of every record's completions; NaN where one is too long."""
        groups = [self.renderer.encode(r.prompt, [c.text for c in r.completions]) for r in records]
        return list(map(self._scores, records, groups, self._memo.score(groups)))

    def _scores(self, record: Comparison, group: Encoded, found: GroupScores) -> Scores:
        reward, tokens = np.full((2, len(record.completions)), np.nan)
        reward[group.kept] = self.beta * found.reward.numpy()
        tokens[group.kept] = [len(group.prompt) + len(ids) for ids in group.responses]
        return Scores(reward, reward[None, :], tokens, trimmed=group.trimmed > 0)


def load_implicit(
    policy: str | Path, reference: str | Path | None = None, *, name: str | None = None, beta: float | None = None,
    max_length: int = 2048, dtype: str = "float32", device: str = "cpu", batch_tokens: int = 4096,
) -> ImplicitSource:  # fmt: skip
    """Implicit rewards from folders (or hub ids) of causal language models.

    Args:
        policy: the trained policy: a run of `task=dpo`, a whole model, or a folder with a LoRA adapter on one.
        reference: what it was trained away from; not needed for an adapter, which is switched off instead.
        name: in the report; the policy's folder and `(implicit)` by default, apart from other kinds of model in the
            same folder.
        beta: β of the training; None = as the run's own configuration has it where the policy is a run of `task=dpo`,
            else 0.1.
        max_length: the most tokens of prompt and completion; the model's own limit where that is less.
        dtype, device: of the weights.
        batch_tokens: tokens per forward pass.

    Raises:
        ValueError: a whole model without a reference, or a reference with another vocabulary.
        RecordError: a model without a language-model head, such as a reward model, or a run whose β cannot be read.
    """
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    folder = Path(policy).parent if Path(policy).name == "model" else Path(policy)
    name = name or f"{folder.name} (implicit)"
    beta = trained_beta(folder) if beta is None else beta
    policy, reference = _exported(policy), None if reference is None else _exported(reference)
    adapter = (Path(policy) / "adapter_config.json").is_file()
    if reference is None and not adapter:
        raise ValueError(f"{policy} is a whole model: its implicit reward needs reference=<folder it was trained from>")
    load = AutoPeftModelForCausalLM.from_pretrained if adapter else partial(load_causal, key="policy")
    model = load(str(policy), **options).eval().to(device)
    base = None
    if reference is not None:
        base = load_causal(str(reference), key="reference", **options).eval().to(device)
        sizes = [m.get_input_embeddings().weight.shape[0] for m in (model, base)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{policy} knows {sizes[0]} tokens and its reference {reference} knows {sizes[1]}")
    tokenizer = AutoTokenizer.from_pretrained(str(policy))
    known = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_length
    limit = min(max_length, known)
    renderer = Renderer(tokenizer, max_length=limit, min_prompt=min(16, limit - 1))
    return ImplicitSource(name, Policies(model, base), renderer, beta=beta, batch_tokens=batch_tokens)


def trained_beta(run: Path) -> float:
    """β of a run of `task=dpo`, from the configuration in its folder; 0.1 for any other folder.

    Raises:
        RecordError: the configuration has no number there.
    """
    stored = run / ".hydra" / "config.yaml"
    task = (yaml.safe_load(stored.read_text()).get("task") or {}) if stored.is_file() else {}
    if (task.get("run") or task.get("act") or {}).get("_target_") not in DPO:
        return 0.1
    beta = (task.get("loss") or {}).get("beta")
    if not isinstance(beta, int | float):
        raise RecordError(
            f"{stored} has no number there: {beta!r}",
            key="task.loss.beta",
            remedy="give the one of the training, beta=0.1",
        )
    return float(beta)


def _exported(folder: str | Path) -> str | Path:
    """The model of a run's folder; anything else as it is."""
    return Path(folder) / "model" if (Path(folder) / "model" / "rlhf_policy.json").is_file() else folder
