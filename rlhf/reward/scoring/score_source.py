"""A trained run, or any Hugging Face reward model, as something that scores records for a report."""

from collections.abc import Iterator, Sequence
from pathlib import Path

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
from rlhf.reward.scoring.once import ScoreMemo
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
        self._memo = ScoreMemo(scorer.engine)

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Rewards, members, states and detectors of every record's completions; NaN where one is too long."""
        groups = self._encoded(records)
        return list(map(self._scores, records, groups, self._memo.score(groups)))

    @property
    def counts(self) -> dict[str, int]:
        """Completions that were asked for, and those that the model read: each distinct text once."""
        return self._memo.counts

    def fit_reference(self, records: Sequence[Comparison], held_out: Sequence[Comparison]) -> None:
        """Statistics of the states of training records, for a model that came without; all pairs count as labelled."""
        seen = list(self._few(records))
        sizes = [len(scores.reward) for scores in seen]
        starts = np.cumsum(sizes) - sizes
        pairs = [np.stack(np.triu_indices(k, 1)) + start for k, start in zip(sizes, starts, strict=True)]
        first, second = np.concatenate(pairs, 1)
        head = self.scorer.model.head
        weight = (head.mixture() @ head.weight).detach().double().cpu().numpy()
        states = np.concatenate([scores.states.numpy() for scores in seen])
        reward = np.concatenate([(scores.reward + self.bias).double().numpy() for scores in seen])
        reference = fit_reference(states, reward, first, second, weight)
        ordinary = [scores.states.numpy() for scores in self._few(held_out)]
        self.scorer.reference = with_typical(reference, np.concatenate(ordinary)) if ordinary else reference

    @property
    def reference(self) -> Reference | None:
        """Statistics of the states; None where there are none."""
        return self.scorer.reference

    def _encoded(self, records: Sequence[Comparison]) -> list[Encoded]:
        return [self.scorer.renderer.encode(r.prompt, [c.text for c in r.completions]) for r in records]

    def _few(self, records: Sequence[Comparison]) -> Iterator[GroupScores]:
        """Scores of the first records, about `MOST` completions."""
        total, memo = 0, ScoreMemo(self.scorer.engine)
        for start in range(0, len(records), 32):
            some = records[start : start + 32]
            yield from (s for s in memo.score(self._encoded(some)) if len(s.reward))
            total += sum(len(record.completions) for record in some)
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
