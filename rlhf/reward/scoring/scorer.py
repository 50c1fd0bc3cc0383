"""A trained reward model in use: texts in, rewards and calibrated probabilities out."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf.data.render import Encoded, Renderer
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.metrics.ood import Reference
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead, MixtureHead, MlpHead
from rlhf.models.reward_model import RewardModel
from rlhf.records import Prompt, parse_prompt
from rlhf.reward.scoring.engine import GroupScores, ScoringEngine
from rlhf.reward.scoring.once import ScoreMemo

AnyPrompt = str | list[dict[str, str]] | Prompt
"""A text, or the messages of a chat."""


class Scorer:
    """Scores answers with the same rendering that training used.

    Args:
        model: put into evaluation mode.
        renderer: prompt and answer to tokens.
        calibration: temperature and normalisation fitted on validation data.
        reference: what the states of training completions look like; None = `ood_score` does not work.
        engine: options of `ScoringEngine`: `batch_tokens`, `layout`, `precision`.
    """

    def __init__(
        self,
        model: RewardModel,
        renderer: Renderer,
        calibration: Calibration,
        *,
        reference: Reference | None = None,
        **engine: Any,
    ) -> None:
        self.renderer, self.calibration, self.reference = renderer, calibration, reference
        pad_id = int(renderer.tokenizer.pad_token_id or 0)
        self.engine = ScoringEngine(model, pad_id=pad_id, max_length=renderer.max_length, **engine)

    @property
    def model(self) -> RewardModel:
        """Trunk and head."""
        return self.engine.model

    def score(self, prompt: AnyPrompt, completions: Sequence[str]) -> list[float]:
        """Rewards of the completions, raw (`calibration.normalise` gives mean 0 and std 1).

        Raises:
            ValueError: a completion is longer than the model may read, or there is none.
        """
        rewards: list[float] = self._scores(prompt, completions).reward.tolist()
        return rewards

    def members(self, prompt: AnyPrompt, completions: Sequence[str]) -> Float[Tensor, "*M N"]:
        """Rewards of every member `[M, N]`, or `[N]` where there is one head. Raises as `score`."""
        return self._scores(prompt, completions).members

    def attributes(self, prompt: AnyPrompt, completions: Sequence[str]) -> dict[str, list[float]]:
        """Scores per attribute on the scale of the ratings, one per completion. Raises as `score`, and
        ValueError where the model has no attribute head.
        """
        names = self.model.head.names
        if not names:
            raise ValueError("this model has no attributes: train with head=attributes batches.attributes=[...]")
        return dict(zip(names, self.members(prompt, completions).tolist(), strict=True))

    def ood_score(self, prompt: AnyPrompt, completions: Sequence[str], detector: str = "mahalanobis") -> list[float]:
        """How out of distribution each completion is: the share of held-out training-like answers that are less so.

        0.5 is an ordinary answer, 1 is farther out of distribution than all of them.

        Args:
            prompt, completions: as in `score`.
            detector: `mahalanobis` or `laplace`; see `rlhf.evaluation.metrics.ood`.

        Raises:
            ValueError: as `score`; and where the folder holds no statistics, or the detector is unknown.
        """
        return self.ood_score_of(self.states(prompt, completions), detector)

    def ood_score_of(self, states: Float[Tensor, "N D"], detector: str = "mahalanobis") -> list[float]:
        """`ood_score` of pooled states that are known already."""
        if self.reference is None:
            raise ValueError("this folder has no ood.safetensors: train again, or evaluate with part=test")
        if detector not in self.reference.typical:
            raise ValueError(f"detector={detector!r}: one of {', '.join(self.reference.typical)}")
        found = self.reference.detect(states.numpy())[detector]
        shares: list[float] = self.reference.ood_score(detector, found).tolist()
        return shares

    def states(self, prompt: AnyPrompt, completions: Sequence[str]) -> Float[Tensor, "N D"]:
        """Pooled hidden states of the completions, which the head reads. Raises as `score`."""
        return self._scores(prompt, completions).states

    def encode(self, prompt: AnyPrompt, completions: Sequence[str]) -> Encoded:
        """One group as tokens, every completion kept. Raises as `score`."""
        if isinstance(completions, str) or not completions:
            raise ValueError("completions must be a non-empty list of strings")
        parsed = parse_prompt(list(prompt) if not isinstance(prompt, str) else prompt)
        encoded = self.renderer.encode(parsed, completions)
        if len(encoded.kept) < len(completions):
            lost = sorted(set(range(len(completions))) - set(encoded.kept))
            raise ValueError(
                f"completions {lost} are longer than max_length={self.renderer.max_length} tokens allows; "
                "shorten them or train with a larger max_length"
            )
        return encoded

    def compare(self, prompt: AnyPrompt, a: str, b: str) -> float:
        """Calibrated probability that a is better than b: sigmoid((r_a - r_b) / temperature)."""
        first, second = self.score(prompt, [a, b])
        return float(self.calibration.probability(first, second))

    def _scores(self, prompt: AnyPrompt, completions: Sequence[str]) -> GroupScores:
        encoded = self.encode(prompt, completions)
        if encoded.trimmed:
            warnings.warn(f"the prompt lost {encoded.trimmed} tokens from its beginning", stacklevel=3)
        return ScoreMemo(self.engine).score([encoded])[0]


def load(folder: str | Path, *, device: str = "cpu", batch_tokens: int = 8192) -> Scorer:
    """A run's folder, or an exported `model/` folder, as a `Scorer`.

    Args:
        folder: of the run, or of its exported model.
        device: of the model.
        batch_tokens: tokens per forward pass, at most; a single completion may be longer.

    Raises:
        FileNotFoundError: neither the folder nor its `model/` holds an exported reward model.
    """
    path = Path(folder)
    path = path / "model" if (path / "model" / "rlhf.json").is_file() else path
    if not (path / "rlhf.json").is_file():
        raise FileNotFoundError(f"{folder} holds no exported reward model (no rlhf.json here or in model/)")
    about = json.loads((path / "rlhf.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(path)
    renderer = Renderer(tokenizer, max_length=about["max_length"], min_prompt=about["min_prompt"])
    if renderer.template_hash != about["template_hash"]:
        warnings.warn(f"the chat template in {path} is not the one of training: scores will differ", stacklevel=2)
    surface = tokenizer if about.get("surface") else None
    classifier = AutoModelForSequenceClassification.from_pretrained(path)
    backbone = Backbone(classifier, pooling=about.get("pooling", "stock"), surface=surface)
    model = RewardModel(backbone, _head(path, backbone, tuple(about.get("rows", ())))).to(device)
    statistics = path / "ood.safetensors"
    reference = Reference.load(statistics) if statistics.is_file() else None
    calibration = Calibration.from_json(path / "calibration.json")
    return Scorer(model, renderer, calibration, reference=reference, batch_tokens=batch_tokens)


def _head(path: Path, backbone: Backbone, names: tuple[str, ...]) -> LinearHead:
    members = path / "members.safetensors"
    if not members.is_file():
        return LinearHead.of(backbone.initial_weight)
    rows = load_file(members)
    if "outer" in rows:
        mlp = MlpHead(backbone.hidden_size, units=rows["inner"].shape[0])
        mlp.load_state_dict({name: rows[name] for name in ("weight", "inner", "outer")})
        return mlp
    if len(rows["weight"]) == 1:
        return LinearHead.of(rows["weight"])
    bias = rows.get("bias", torch.zeros_like(rows["mixture"]))
    return MixtureHead(rows["weight"], rows["mixture"], bias, names)
