"""Labels that know the annotators: reliability-weighted votes, and Dawid & Skene (1979). numpy only, no torch.

Both learn who is reliable from many records first (`fit`) and are then views of one record's votes like any other
aggregation. Annotators never seen count as the average one. All symmetric: swapping the completions swaps the label.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from scipy.special import softmax

from rlhf.labels.aggregation import consensus, count, deciding, label_of, label_of_truth, shares
from rlhf.labels.label import Aggregation, Label
from rlhf.labels.vote_table import UNKNOWN, VoteTable, collect, levels
from rlhf.records import Comparison, RecordError
from rlhf.stats.arrays import Floats

VERDICTS = 3  # the first is better, a tie, the second is better


@dataclass(frozen=True)
class Reliabilities:
    """What Dawid & Skene's EM found.

    confusion   [A, 3, 3] P(verdict v | truth t) of every annotator
    pooled      [3, 3] the same over all, for annotators never seen
    prior       [3] of the truth
    posterior   [U, 3] of the truth of the units it was fitted on
    """

    confusion: Floats
    pooled: Floats
    prior: Floats
    posterior: Floats

    @property
    def accuracy(self) -> Floats:
        """[A] chance that an annotator says what is true, Σ_t prior_t · P(t | t)."""
        right: Floats = np.einsum("t,att->a", self.prior, self.confusion)
        return right


def dawid_skene_em(
    vote_table: VoteTable, *, smoothing: float = 4.0, steps: int = 100, tolerance: float = 1e-5
) -> Reliabilities:
    """Sparse EM for annotators' confusion matrices (Dawid & Skene 1979); O(votes) per step.

    E: P(t | votes) ∝ prior_t Π P(v_a | t, a).  M: P(v | t, a) ∝ Σ_units P(t) [v_a = v] + smoothing · pooled(v | t).
    The matrices are those of an annotator who treats first and second alike, P(v | t) = P(2 - v | 2 - t).

    Args:
        vote_table: the votes.
        smoothing: votes' worth of the average annotator in everyone's matrix: few votes say little.
        steps: EM steps, at most.
        tolerance: stop when no posterior moves by more.
    """
    people, units = len(vote_table.annotators), len(vote_table.prompt)
    counts = vote_table.counts.astype(float)
    posterior = (counts + 0.1) / (counts + 0.1).sum(1, keepdims=True)
    for _ in range(steps):
        joint = _joint(vote_table, posterior, people)
        pooled = joint.sum(0) + 0.01
        pooled /= pooled.sum(-1, keepdims=True)
        confusion = joint + smoothing * pooled
        confusion /= confusion.sum(-1, keepdims=True)
        prior = posterior[counts.sum(1) > 0].mean(0) if counts.any() else np.ones(VERDICTS)
        prior = (prior + prior[::-1]) / (2 * prior.sum())
        before, posterior = posterior, _posterior(vote_table, confusion, prior, units)
        if np.abs(posterior - before).max(initial=0) < tolerance:
            break
    return Reliabilities(confusion, pooled, prior, posterior)


def _joint(vote_table: VoteTable, posterior: Floats, people: int) -> Floats:
    """Expected counts [A, truth, verdict], made symmetric in first and second."""
    cell = vote_table.annotator * VERDICTS + vote_table.verdict
    truth = posterior[vote_table.unit]
    size = people * VERDICTS
    columns = [np.bincount(cell, truth[:, t], minlength=size).reshape(people, VERDICTS) for t in range(VERDICTS)]
    joint = np.stack(columns, axis=1)
    both: Floats = (joint + joint[:, ::-1, ::-1]) / 2
    return both


def _posterior(vote_table: VoteTable, confusion: Floats, prior: Floats, units: int) -> Floats:
    log = np.log(confusion)[vote_table.annotator, :, vote_table.verdict]
    columns = [np.bincount(vote_table.unit, log[:, t], minlength=units) for t in range(VERDICTS)]
    total: Floats = np.stack(columns, axis=1).astype(np.float64)
    posterior: Floats = softmax(total + np.log(prior), axis=-1)
    return posterior


@dataclass(frozen=True)
class Weighted:
    """Vote shares weighted by reliability: log(q / (1 - q)) (Nitzan & Paroush 1982), q the chance to be right.

    q is the accuracy on gold items for annotators with at least `gold_votes` of them, else Dawid & Skene's; clipped to
    [0.55, 0.99]. Weights have mean 1, so the number of votes keeps its meaning. p_ij = Σ w (win + tie / 2) / Σ w.

    Args:
        criterion, attributes: as in `rlhf.labels.aggregation.soft`.
        gold_votes: gold items from which on they decide an annotator's reliability.
    """

    criterion: str | None = None
    gold_votes: int = 10
    attributes: Sequence[str] = ()

    def fit(self, records: Iterable[Comparison]) -> Aggregation:
        """Learn the weights; gold checks count here and nowhere else."""
        vote_table = collect(_only(r, self.criterion, checks=True) for r in records).vote_table()
        found = dawid_skene_em(vote_table.of(~vote_table.check))
        people = len(vote_table.annotators)
        gold = vote_table.gold[vote_table.unit]
        known = (gold != UNKNOWN) & vote_table.check
        who = vote_table.annotator[known]
        number = np.bincount(who, minlength=people)
        right = np.bincount(who, (gold == vote_table.verdict)[known], minlength=people)
        learned = found.accuracy if people else np.zeros(0)
        accuracy = np.where(number >= self.gold_votes, (right + 1) / (number + 2), learned)
        weights = np.log(1 / (1 / np.clip(accuracy, 0.55, 0.99) - 1))
        mean = weights[vote_table.annotator].mean() if len(vote_table.annotator) else 1.0
        by_name = dict(zip(vote_table.annotators, (weights / mean).tolist(), strict=True))

        def label(record: Comparison) -> Label:
            counts = count(record, self.criterion, lambda vote: by_name.get(vote.annotator, 1.0))
            return label_of(record, counts, *shares(counts), counts.votes > 0, self.attributes)

        return label


@dataclass(frozen=True)
class DawidSkene:
    """The posterior of the true verdict as the label: p_ij = P(i) + P(tie) / 2.

    Sharper than a share of votes: it says what is true, not what the next annotator would say, so rewards come out
    larger; probabilities need the temperature fitted on raw votes.

    Args:
        criterion, attributes: as in `rlhf.labels.aggregation.soft`.
        smoothing: votes' worth of the average annotator in everyone's matrix.
    """

    criterion: str | None = None
    smoothing: float = 4.0
    attributes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.smoothing <= 0:
            remedy = "more than 0; 4 is the default"
            raise RecordError(f"is {self.smoothing:g}", key="aggregation.smoothing", remedy=remedy)

    def fit(self, records: Iterable[Comparison]) -> Aggregation:
        """Learn the confusion matrices."""
        vote_table = collect(_only(r, self.criterion) for r in records).vote_table()
        found = dawid_skene_em(vote_table, smoothing=self.smoothing)
        pooled, prior = np.log(found.pooled), np.log(found.prior)
        confusion = dict(zip(vote_table.annotators, np.log(found.confusion), strict=True))

        def label(record: Comparison) -> Label:
            counts = count(record, self.criterion)
            logits: Floats = np.zeros((*counts.wins.shape, VERDICTS)) + prior
            place = record.places
            for vote in deciding(record.votes, self.criterion):
                matrix = confusion.get(vote.annotator, pooled)
                level = {place[i]: value for i, value in levels(vote).items()}
                for i, j in permutations(level, 2):
                    logits[i, j] += matrix[:, 1 + int(level[i] < level[j]) - int(level[i] > level[j])]
            return label_of_truth(record, counts, softmax(logits, axis=-1), self.attributes)

        return label


def _only(record: Comparison, criterion: str | None, *, checks: bool = False) -> Comparison:
    """The record with the votes that decide, and with its gold checks where asked."""
    votes = deciding(record.votes, criterion)
    return replace(record, votes=tuple(votes + [v for v in record.votes if checks and v.gold]))


def adjudicated(
    record: Comparison, *, experts: Sequence[str], criterion: str | None = None, attributes: Sequence[str] = ()
) -> Label:
    """`soft`, but on pairs that an expert voted on only the experts' votes count.

    Args:
        experts: annotators whose word is final; see the adjudication queue of the agreement report.
        criterion, attributes: as in `rlhf.labels.aggregation.soft`.

    Raises:
        RecordError: no experts named.
    """
    if isinstance(experts, str) or not experts:
        raise RecordError("names nobody", key="aggregation.experts", remedy="e.g. aggregation.experts=[ann1]")
    everybody = count(record, criterion)
    expert = count(record, criterion, lambda vote: float(vote.annotator in experts))
    final = expert.votes > 0
    names = ("wins", "ties", "margin")
    counts = replace(everybody, **{n: np.where(final, getattr(expert, n), getattr(everybody, n)) for n in names})
    p, tie = shares(counts)
    return label_of(record, consensus(counts, p), p, tie, counts.votes > 0, attributes)
