"""Bradley-Terry with ties in which every annotator has a reliability, fitted jointly by automatic differentiation.

    P(v | i, j, a) = g_a · Davidson(v | s_i - s_j) + (1 - g_a) · c_a(v)

Davidson (1970) with D = s_i - s_j: P(i) : P(tie) : P(j) = e^{D/2} : ν : e^{-D/2}. g_a is the chance that annotator a
follows the scores at all, c_a what the annotator does otherwise, as seen on the screen: a guess, a habit, always the
first side.
MAP by L-BFGS: s ~ N(0, score_sd²), logit g_a ~ N(ḡ, reliability_sd²), logits of c_a ~ N(c̄, 1), the rest flat.
Without ties and with c_a over two sides this is the model of Bugakova et al. (2019), crowd-kit's NoisyBradleyTerry.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.labels.aggregation import count, deciding, label_of_truth
from rlhf.labels.label import Aggregation, Label
from rlhf.labels.vote_table import VoteTable, collect, identity
from rlhf.records import Comparison, RecordError
from rlhf.stats.arrays import Floats, Ints


@dataclass(frozen=True)
class BradleyTerryFit:
    """What was found: score [I] of every item, reliability g [A], guess c [A, 3], log ν, and the votes' mean NLL."""

    score: Floats
    reliability: Floats
    guess: Floats
    log_tie: float
    nll: float

    def probabilities(self, first: Ints, second: Ints) -> Floats:
        """Davidson's P(first), P(tie), P(second) [..., 3] of items by a reliable annotator."""
        return davidson(self.score[first] - self.score[second], self.log_tie)

    def predict(self, first: Ints, second: Ints, annotator: Ints) -> Floats:
        """P(first), P(tie), P(second) [V, 3] of the annotators' verdicts, sides as in the stored order."""
        g = self.reliability[annotator, None]
        mixed: Floats = g * self.probabilities(first, second) + (1 - g) * self.guess[annotator]
        return mixed


def fit(
    verdict: Ints, first: Ints, second: Ints, annotator: Ints, *, items: int, annotators: int,
    score_sd: float = 1.5, reliability_sd: float = 1.0, steps: int = 200,
) -> BradleyTerryFit:  # fmt: skip
    """MAP estimate from V verdicts.

    Args:
        verdict: [V] 0 = the first item won, 1 = tie, 2 = the second won.
        first, second: [V] items.
        annotator: [V] who said so.
        items, annotators: how many there are.
        score_sd, reliability_sd: a-priori standard deviations, see the module.
        steps: L-BFGS iterations, at most.
    """
    columns = [torch.as_tensor(c) for c in (verdict, first, second, annotator)]
    shapes = {"score": (items,), "gate": (annotators,), "guess": (annotators, 3), "mean": (4,), "tie": (1,)}
    options: dict[str, Any] = {"dtype": torch.float64, "requires_grad": True}
    parameters = {name: torch.zeros(shape, **options) for name, shape in shapes.items()}
    with torch.no_grad():
        parameters["mean"][0] = 1.0  # most follow the scores
        parameters["gate"] += 1.0
    optimizer = torch.optim.LBFGS(parameters.values(), max_iter=steps, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = _negative_log_posterior(parameters, columns, score_sd, reliability_sd)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        nll = float(-_log_likelihood(parameters, columns).mean()) if len(verdict) else float("nan")
        score = parameters["score"]
        return BradleyTerryFit(
            score=score.numpy(),
            reliability=torch.sigmoid(parameters["gate"]).numpy(),
            guess=torch.softmax(parameters["guess"], -1).numpy(),
            log_tie=float(parameters["tie"]),
            nll=nll,
        )


def davidson(difference: Floats, log_tie: float) -> Floats:
    """P(first), P(tie), P(second) [..., 3] for differences of score [...]."""
    return _davidson(torch.as_tensor(difference), torch.tensor(log_tie)).numpy()


def _davidson(difference: Tensor, log_tie: Tensor) -> Tensor:
    logits = torch.stack([difference / 2, log_tie.expand_as(difference), -difference / 2], -1)
    return torch.softmax(logits.double(), -1)


def _log_likelihood(parameters: dict[str, Tensor], columns: list[Tensor]) -> Tensor:
    """[V] log P of every verdict."""
    verdict, first, second, annotator = columns
    score = parameters["score"]
    model = _davidson(score[first] - score[second], parameters["tie"][0])
    gate = torch.sigmoid(parameters["gate"])[annotator]
    guess = torch.softmax(parameters["guess"], -1)[annotator, verdict]
    return torch.log(gate * model.gather(1, verdict[:, None])[:, 0] + (1 - gate) * guess)


def _negative_log_posterior(
    parameters: dict[str, Tensor], columns: list[Tensor], score_sd: float, reliability_sd: float
) -> Tensor:
    mean = parameters["mean"]
    prior = (parameters["score"] / score_sd).square().sum()
    prior = prior + ((parameters["gate"] - mean[0]) / reliability_sd).square().sum()
    prior = prior + (parameters["guess"] - mean[1:]).square().sum() + mean.square().sum() / 9
    return prior / 2 - _log_likelihood(parameters, columns).sum()


def as_shown(vote_table: VoteTable) -> tuple[Ints, Ints, Ints]:
    """Verdict, first and second item [V] with the sides as they stood on the screen, where that was recorded."""
    swapped = vote_table.shown_first == 1
    first, second = vote_table.first[vote_table.unit], vote_table.second[vote_table.unit]
    verdict = np.where(swapped, 2 - vote_table.verdict, vote_table.verdict)
    return verdict, np.where(swapped, second, first), np.where(swapped, first, second)


@dataclass(frozen=True)
class AnnotatorBradleyTerry:
    """Labels from the fitted scores: p_ij = P(i) + P(tie) / 2 of an annotator who follows the scores.

    Args:
        criterion, attributes: as in `rlhf.labels.aggregation.soft`.
        score_sd, reliability_sd: see the module.
    """

    criterion: str | None = None
    score_sd: float = 1.5
    reliability_sd: float = 1.0
    attributes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("score_sd", "reliability_sd"):
            if getattr(self, name) <= 0:
                raise RecordError(f"is {getattr(self, name):g}", key=f"aggregation.{name}", remedy="more than 0")

    def fit(self, records: Iterable[Comparison]) -> Aggregation:
        """Fit scores and annotators; only these records can be labelled."""
        kept = (replace(r, votes=tuple(deciding(r.votes, self.criterion))) for r in records)
        vote_table = collect(kept).vote_table()
        verdict, first, second = as_shown(vote_table)
        found = fit(
            verdict, first, second, vote_table.annotator,
            items=len(vote_table.items), annotators=len(vote_table.annotators),
            score_sd=self.score_sd, reliability_sd=self.reliability_sd,
        )  # fmt: skip

        def score(record: Comparison, completion_id: str, criteria: set[str]) -> float:
            """Mean over the criteria; 0, the mean a priori, where nobody voted on the completion."""
            own = identity(record, completion_id)
            codes = (vote_table.items.get((record.prompt_id, own, criterion)) for criterion in criteria)
            known = [found.score[code] for code in codes if code is not None]
            return float(np.mean(known)) if known else 0.0

        def label(record: Comparison) -> Label:
            counts = count(record, self.criterion)
            criteria = {vote.criterion for vote in deciding(record.votes, self.criterion)}
            scores = np.array([score(record, c.id, criteria) for c in record.completions])
            truth = davidson(scores[:, None] - scores[None, :], found.log_tie)
            return label_of_truth(record, counts, truth, self.attributes)

        return label
