"""A trained run, or any Hugging Face reward model, as something that scores records for a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf.data.render import Encoded, Renderer
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.metrics.ood import MOST, Reference, fit_reference, with_typical
from rlhf.evaluation.score_source import Scores
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead
from rlhf.models.names import not_found
from rlhf.models.reward_model import RewardModel
from rlhf.records import Comparison, RecordError
from rlhf.reward.scoring.engine import GroupScores
from rlhf.reward.scoring.scorer import Scorer
from rlhf.stats.arrays import Floats


class RunSource:
    """A `Scorer` behind the interface of reports.

    Args:
        name: heads its rows and columns.
        scorer: model, rendering, calibration, statistics of its states.
        calibrated: False where the calibration is a placeholder, to be fitted on validation data.
        bias: added to every reward; a foreign classifier's last layer may have one.
    """

    def __init__(self, name: str, scorer: Scorer, *, calibrated: bool = True, bias: float = 0.0) -> None:
        self.name, self.scorer, self.bias = name, scorer, bias
        self.calibration: Calibration | None = scorer.calibration if calibrated else None

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Rewards, members, states and detectors of every record's completions; NaN where one is too long."""
        groups = [self.scorer.renderer.encode(r.prompt, [c.text for c in r.completions]) for r in records]
        return list(map(self._scores, records, groups, self.scorer.engine.score(groups)))

    def fit_reference(self, records: Sequence[Comparison], held_out: Sequence[Comparison]) -> None:
        """Statistics of the states of training records, for a model that came without; all pairs count as labelled."""
        states, reward, first, second = [], [], [], []
        start = 0
        for scores in self._few(records):
            kept = np.flatnonzero(np.isfinite(scores.reward))
            i, j = np.triu_indices(len(kept), 1)
            states.append(_states(scores)[kept])
            reward.append(scores.reward[kept])
            first.append(i + start)
            second.append(j + start)
            start += len(kept)
        head = self.scorer.model.head
        weight = (head.mixture() @ head.weight).detach().double().cpu().numpy()
        columns = [np.concatenate(part) for part in (states, reward, first, second)]
        reference = fit_reference(columns[0], columns[1], columns[2], columns[3], weight)
        ordinary = [_states(s)[np.isfinite(s.reward)] for s in self._few(held_out)]
        self.scorer.reference = with_typical(reference, np.concatenate(ordinary)) if ordinary else reference

    @property
    def reference(self) -> Reference | None:
        """Statistics of the states; None where there are none."""
        return self.scorer.reference

    def _few(self, records: Sequence[Comparison]) -> Iterator[Scores]:
        """Scores of the first records, `MOST` completions at most."""
        total = 0
        for start in range(0, len(records), 32):
            for scores in self.score(records[start : start + 32]):
                total += len(scores.reward)
                if scores.features is not None:
                    yield scores
            if total >= MOST:
                return

    def _scores(self, record: Comparison, group: Encoded, found: GroupScores) -> Scores:
        k, kept = len(record.completions), group.kept
        members = found.rows.double().numpy() + self.bias
        if not kept:
            return Scores(np.full(k, np.nan), np.full((len(members), k), np.nan), np.full(k, np.nan))
        states = found.states.numpy()
        ood_scores = {} if self.reference is None else self.reference.detect(states)
        lengths = np.array([len(group.prompt) + len(r) for r in group.responses], dtype=np.float64)
        return Scores(
            reward=_spread((found.reward + self.bias).double().numpy(), kept, k),
            members=_spread(members, kept, k),
            tokens=_spread(lengths, kept, k),
            features=_spread(states.T, kept, k).T,
            ood_scores={name: _spread(values, kept, k) for name, values in ood_scores.items()},
            trimmed=group.trimmed > 0,
        )


def load_classifier(
    path: str | Path, *, max_length: int, device: str = "cpu", batch_tokens: int = 8192
) -> tuple[Scorer, float]:
    """Any `AutoModelForSequenceClassification` with one label, by name or folder, and the bias of its last layer.

    Raises:
        ValueError: there is no such model, it has several labels, or a last layer that its files do not hold (a
            language model).
    """
    local = Path(path).is_dir()
    if local and not (Path(path) / "config.json").is_file():
        raise RecordError(f"run={path} is neither a run nor a Hugging Face model: it holds no config.json")
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(str(path), output_loading_info=True)
    except OSError as error:
        if local:
            raise
        raise RecordError(not_found(str(path), "run")) from error
    if info["missing_keys"]:
        raise RecordError(
            f"{path} holds no trained {sorted(info['missing_keys'])[0]}: it is not a reward model; "
            "train one from it with model=local"
        )
    if model.config.num_labels != 1:
        raise RecordError(f"{path} has num_labels={model.config.num_labels}: a reward model has one")
    tokenizer = AutoTokenizer.from_pretrained(str(path))
    known = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_length
    renderer = Renderer(tokenizer, max_length=min(max_length, known), min_prompt=min(16, known - 1))
    backbone = Backbone(model)
    head = LinearHead(backbone.hidden_size)
    head.weight.data.copy_(backbone.initial_weight)
    bias = 0.0 if backbone.initial_bias is None else float(backbone.initial_bias)
    model = RewardModel(backbone, head).to(device)
    scorer = Scorer(model, renderer, Calibration.identity(), batch_tokens=batch_tokens)
    return scorer, bias


def _spread(values: Floats, kept: Sequence[int], k: int) -> Floats:
    """Values [..., len(kept)] at their places among k, NaN elsewhere."""
    out = np.full((*values.shape[:-1], k), np.nan)
    out[..., list(kept)] = values
    return out


def _states(scores: Scores) -> Any:
    assert scores.features is not None
    return scores.features
