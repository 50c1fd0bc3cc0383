"""Votes to labels: what the raw votes on one record add up to. numpy only, no torch.

Every form of vote says the same kind of thing about the completions it names: for each pair, which is better, or
that they are tied. A pairwise vote says it of one pair, a ranking and Likert ratings of all pairs they name. An option
out of its range raises RecordError.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlhf.labels.label import Label, no_rankings, whole_rankings
from rlhf.labels.orders import ranked
from rlhf.labels.vote_table import levels
from rlhf.records import Comparison, RecordError, Vote
from rlhf.stats.arrays import Bools, Floats, Ints

OVERALL = "overall"  # the criterion that decides where a record has votes on it and no other one is asked for
WHOLE = 3  # votes that name so many completions are rankings; of two they are comparisons of a pair


@dataclass(frozen=True, slots=True)
class Counts:
    """How the votes on one record fall on its pairs.

    wins     [K, K] votes that put i above j
    ties     [K, K] votes that call i and j tied; symmetric
    margin   [K, K] mean of the margins that votes for i over j stated, 0 where none did
    rankings [R, K] what votes on three or more said, and ranking_weight [R]; see `rlhf.data.batch.Target`
    """

    wins: Floats
    ties: Floats
    margin: Floats
    rankings: Ints
    ranking_weight: Floats

    @property
    def votes(self) -> Floats:
        """[K, K] votes on each pair."""
        votes: Floats = self.wins + self.wins.T + self.ties
        return votes


def soft(
    record: Comparison, *, criterion: str | None = None, pseudocount: float = 0.0, attributes: Sequence[str] = ()
) -> Label:
    """The share of the votes as the label: p_ij = (wins_ij + ties_ij / 2 + a) / (votes_ij + 2a).

    Gold checks do not count. Completions are ranked as far as votes compare them (`rlhf.labels.orders`), which keeps
    the order of a single ranking; `margin` is the mean stated margin of the winning side.

    Args:
        criterion: only votes on this criterion; None = votes on "overall" if there are any, else all votes.
        pseudocount: a >= 0, votes added to each side of every labelled pair (0.5 Jeffreys, 1 Laplace).
        attributes: criteria whose mean Likert ratings become the columns of `score`.
    """
    if pseudocount < 0:
        raise RecordError(f"is {pseudocount:g}", key="aggregation.pseudocount", remedy="0, or positive to smooth")
    counts = count(record, criterion)
    return label_of(record, counts, *shares(counts, pseudocount), counts.votes > 0, attributes)


def majority(record: Comparison, *, criterion: str | None = None, attributes: Sequence[str] = ()) -> Label:
    """The answer with most votes as a hard label: p = 1 or 0, or a tie (p = 0.5).

    A pair is tied where both sides have as many votes, and where more votes say tie than either side. As many ties
    as votes for the stronger side leave the pair to that side. Rankings of the same completions become one: see
    `consensus`. Everything else as in `soft`.
    """
    counts = count(record, criterion)
    beats = (counts.wins > counts.wins.T) & (counts.wins >= counts.ties)
    p = 0.5 + (beats.astype(float) - beats.T) / 2
    return label_of(record, consensus(counts, p), p, (p == 0.5).astype(float), counts.votes > 0, attributes)


def discard(
    record: Comparison, *, criterion: str | None = None, min_votes: int = 1, min_agreement: float = 0.8,
    attributes: Sequence[str] = (),
) -> Label:  # fmt: skip
    """`soft` without the pairs that got too few votes or with too little agreement.

    Args:
        criterion, attributes: as in `soft`.
        min_votes: pairs with fewer votes become unobserved.
        min_agreement: pairs whose most frequent answer (i, j or tie) has a smaller share become unobserved.
    """
    if not 0 <= min_agreement <= 1:
        raise RecordError(f"is {min_agreement:g}", key="aggregation.min_agreement", remedy="a share, 0 to 1")
    if min_votes < 1:
        raise RecordError(f"is {min_votes}", key="aggregation.min_votes", remedy="1 or more")
    counts = count(record, criterion)
    total = np.maximum(counts.votes, 1)
    agreement = np.maximum(np.maximum(counts.wins, counts.wins.T), counts.ties) / total
    observed = (counts.votes >= min_votes) & (agreement >= min_agreement)
    return label_of(record, counts, *shares(counts), observed, attributes)


def count(
    record: Comparison, criterion: str | None = None, weight: Callable[[Vote], float] = lambda vote: 1.0
) -> Counts:
    """How the votes that count (see `soft`) fall on the pairs of the record, each with its weight."""
    ids = record.places
    wins, ties, stated, margins = np.zeros((4, len(ids), len(ids)))
    votes = deciding(record.votes, criterion)
    for vote in votes:
        worth = weight(vote)
        if vote.pair is not None and vote.p is not None:
            i, j = (ids[name] for name in vote.pair)
            wins[i, j] += worth * vote.p
            wins[j, i] += worth * (1 - vote.p)
            continue
        if vote.pair is not None and vote.choice in vote.pair:  # as below, without matrices
            i, j = ids[vote.choice], ids[vote.pair[vote.choice == vote.pair[0]]]
            wins[i, j] += worth
            if vote.margin > 0 and worth > 0:
                stated[i, j] += 1
                margins[i, j] += vote.margin
            continue
        level = _levels(vote, ids)
        better = level[:, None] > level[None, :]  # False wherever a level is NaN
        wins += worth * better
        ties += worth * (level[:, None] == level[None, :])
        if vote.margin > 0 and worth > 0:
            stated += better
            margins += vote.margin * better
    np.fill_diagonal(ties, 0)
    return Counts(wins, ties, margins / np.maximum(stated, 1), *_rankings(votes, ids, weight))


def deciding(votes: Iterable[Vote], criterion: str | None) -> list[Vote]:
    """The votes that decide: no gold checks, and only those on the criterion."""
    real = [v for v in votes if not v.gold]
    if criterion is None and any(v.criterion == OVERALL for v in real):
        criterion = OVERALL
    return [v for v in real if criterion is None or v.criterion == criterion]


def _levels(vote: Vote, ids: Mapping[str, int]) -> Floats:
    """One number per completion: higher was voted better, equal was voted tied, NaN got no vote."""
    level = np.full(len(ids), np.nan)
    for completion_id, value in levels(vote).items():
        level[ids[completion_id]] = value
    return level


def _rankings(votes: Sequence[Vote], ids: Mapping[str, int], weight: Callable[[Vote], float]) -> tuple[Ints, Floats]:
    """What was voted of sets of completions: ranks [R, K] and weights [R].

    Every vote that names `WHOLE` or more is a ranking, and so is every vote on two of those completions. The weights of
    all votes on the same set add up to 1.
    """
    if all(vote.pair is not None for vote in votes):
        return no_rankings(len(ids))
    named = [(_levels(vote, ids), weight(vote), vote.p) for vote in votes]
    whole = np.array([~np.isnan(level) for level, _, _ in named if (~np.isnan(level)).sum() >= WHOLE])
    rows: dict[tuple[int, ...], float] = {}
    totals: dict[tuple[bool, ...], float] = {}
    for level, worth, p in named:
        some = ~np.isnan(level)
        if worth <= 0 or some.sum() < 2 or not (len(whole) and whole[:, some].all(1).any()):
            continue
        totals[tuple(some)] = totals.get(tuple(some), 0.0) + worth
        for share, order in [(1.0, -level)] if p is None else [(p, -level), (1 - p, level)]:
            rank = np.full(len(ids), -1)
            rank[some] = np.unique(order[some], return_inverse=True)[1]
            rows[tuple(rank)] = rows.get(tuple(rank), 0.0) + worth * share
    if not rows:
        return no_rankings(len(ids))
    found = np.array(sorted(rows))
    return found, np.array([rows[tuple(rank)] / totals[tuple(rank >= 0)] for rank in found])


def consensus(counts: Counts, p: Floats) -> Counts:
    """The counts with one ranking of each ranked set of completions: by their mean p [K, K] over the others of it."""
    sets = np.unique(counts.rankings >= 0, axis=0)
    sets = sets[sets.sum(1) >= WHOLE]
    rank = np.full(sets.shape, -1)
    for row, some in zip(rank, sets, strict=True):
        square = np.ix_(some, some)
        row[some] = ranked(p[square], ~np.eye(some.sum(), dtype=bool))
    return replace(counts, rankings=rank, ranking_weight=np.ones(len(rank)))


def shares(counts: Counts, pseudocount: float = 0.0) -> tuple[Floats, Floats]:
    """Win probability and share of ties of each pair, as `soft` has them; p is exactly 0.5 on equal sides."""
    total = np.where(counts.votes > 0, counts.votes + 2 * pseudocount, 1)
    return 0.5 + (counts.wins - counts.wins.T) / (2 * total), counts.ties / total


def label_of(
    record: Comparison, counts: Counts, p: Floats, tie: Floats, observed: Bools, attributes: Sequence[str]
) -> Label:
    """The label with win probabilities p [K, K] and tie probabilities [K, K] on the observed pairs [K, K]."""
    p, tie = np.where(observed, p, 0), np.where(observed, tie, 0)
    margin = np.where(counts.wins > counts.wins.T, counts.margin, 0)
    whole = whole_rankings(counts.rankings, observed)
    return Label(
        win_prob=p,
        tie_prob=tie,
        observed=observed,
        margin=np.where(observed, margin + margin.T, 0),
        rank=ranked(p, observed),
        score=_ratings(record, attributes),
        votes=counts.votes,
        rankings=counts.rankings[whole],
        ranking_weight=counts.ranking_weight[whole],
    )


def label_of_truth(record: Comparison, counts: Counts, truth: Floats, attributes: Sequence[str]) -> Label:
    """The label from P(i better), P(tie), P(j better) [K, K, 3]: p_ij = P(i) + P(tie) / 2 on the pairs with votes."""
    tie = truth[..., 1]
    p = truth[..., 0] + tie / 2
    return label_of(record, consensus(counts, p), p, tie, counts.votes > 0, attributes)


def _ratings(record: Comparison, attributes: Sequence[str]) -> Floats:
    """Mean Likert rating [K, A] of each completion on each attribute, NaN where nobody rated it."""
    if isinstance(attributes, str):
        raise RecordError("must be a list of criteria", key="aggregation.attributes", remedy=f"write [{attributes}]")
    ids = record.places
    score = np.full((len(ids), len(attributes)), np.nan)
    for a, attribute in enumerate(attributes):
        votes = [v for v in record.votes if not v.gold and v.criterion == attribute and v.likert is not None]
        if votes:
            given = np.array([_levels(v, ids) for v in votes])
            raters = (~np.isnan(given)).sum(0)
            score[raters > 0, a] = np.nansum(given, 0)[raters > 0] / raters[raters > 0]
    return score
