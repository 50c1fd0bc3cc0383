"""Annotator models: against a dense EM, a finite-difference gradient, and simulated truth."""

import numpy as np
import pytest
import torch

from rlhf.labels.aggregation import soft
from rlhf.labels.annotator_bradley_terry import AnnotatorBradleyTerry, _negative_log_posterior, as_shown, fit
from rlhf.labels.dawid_skene import DawidSkene, Weighted, adjudicated, dawid_skene_em
from rlhf.labels.label import FittedAggregation
from rlhf.labels.vote_table import collect
from rlhf.records import Comparison, Completion, RecordError, Vote

PAIR = (Completion("x", "one"), Completion("y", "two"))


def simulated(units=400, people=30, votes=5, spammers=0.3, seed=0):
    """Records with a known truth (0 = x, 1 = tie, 2 = y) and annotators who tell it, or guess."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, units, p=[0.4, 0.2, 0.4])
    skill = np.where(rng.random(people) < spammers, 0.0, 0.8)
    records = []
    for u in range(units):
        given = []
        for a in rng.permutation(people)[:votes]:
            said = truth[u] if rng.random() < skill[a] else rng.integers(3)
            given.append(Vote(f"w{a:02d}", pair=("x", "y"), choice=("x", "tie", "y")[said]))
        records.append(Comparison(f"p{u}", f"q{u}", PAIR, tuple(given)))
    return records, truth, skill


def dense_em(vote_table, smoothing, steps):
    """Dawid & Skene with loops, from the definition."""
    people, units = len(vote_table.annotators), len(vote_table.prompt)
    counts = vote_table.counts.astype(float)
    posterior = (counts + 0.1) / (counts + 0.1).sum(1, keepdims=True)
    for _ in range(steps):
        joint = np.zeros((people, 3, 3))
        for u, a, v in zip(vote_table.unit, vote_table.annotator, vote_table.verdict, strict=True):
            for t in range(3):
                joint[a, t, v] += posterior[u, t] / 2
                joint[a, 2 - t, 2 - v] += posterior[u, t] / 2
        pooled = joint.sum(0) + 0.01
        pooled /= pooled.sum(1, keepdims=True)
        confusion = joint + smoothing * pooled
        confusion /= confusion.sum(2, keepdims=True)
        prior = posterior.mean(0)
        prior = (prior + prior[::-1]) / 2
        log = np.tile(np.log(prior), (units, 1))
        for u, a, v in zip(vote_table.unit, vote_table.annotator, vote_table.verdict, strict=True):
            log[u] += np.log(confusion[a, :, v])
        posterior = np.exp(log - log.max(1, keepdims=True))
        posterior /= posterior.sum(1, keepdims=True)
    return posterior


def test_sparse_em_equals_the_definition():
    records, _, _ = simulated(units=40, people=8)
    vote_table = collect(records).vote_table()
    found = dawid_skene_em(vote_table, smoothing=2.0, steps=7, tolerance=0)
    assert np.allclose(found.posterior, dense_em(vote_table, 2.0, 7), atol=1e-10)


def test_dawid_skene_beats_the_majority_where_some_guess_and_knows_who():
    records, truth, skill = simulated()
    vote_table = collect(records).vote_table()
    found = dawid_skene_em(vote_table)
    said = vote_table.counts + np.random.default_rng(0).random((len(truth), 3)) * 1e-6
    majority = (said.argmax(1) == truth).mean()
    assert (found.posterior.argmax(1) == truth).mean() > majority + 0.02
    names = [int(n[1:]) for n in vote_table.annotators]
    assert np.corrcoef(found.accuracy, skill[names])[0, 1] > 0.9


@pytest.mark.parametrize("model", [Weighted(), DawidSkene(), AnnotatorBradleyTerry()])
def test_labels_are_sound_and_swap_with_the_completions(model):
    records, _, _ = simulated(units=60)
    assert isinstance(model, FittedAggregation)
    aggregate = model.fit(records)
    swapped = [Comparison(r.prompt_id, r.prompt, r.completions[::-1], r.votes) for r in records]
    mirrored = model.fit(swapped)
    for record, mirror in zip(records, swapped, strict=True):
        label, other = aggregate(record), mirrored(mirror)
        assert np.allclose(label.win_prob + label.win_prob.T, label.observed)
        assert (label.observed == soft(record).observed).all()
        assert np.allclose(label.win_prob, other.win_prob[::-1, ::-1], atol=2e-3)
        assert np.allclose(label.tie_prob, label.tie_prob.T)


def test_weights_trust_those_who_pass_gold_items():
    votes = [Vote("good", pair=("x", "y"), choice="x"), Vote("bad", pair=("x", "y"), choice="y")]
    checks = [Vote(v.annotator, pair=v.pair, choice=v.choice, gold=True) for v in votes]
    gold = [Comparison(f"g{i}", f"g{i}", PAIR, tuple(checks), meta={"gold": "x"}) for i in range(12)]
    task = Comparison("p", "q", PAIR, tuple(votes))
    label = Weighted(gold_votes=10).fit([*gold, task])(task)
    assert label.win_prob[0, 1] > 0.8


def test_experts_have_the_last_word():
    votes = (Vote("a", pair=("x", "y"), choice="x"), Vote("b", pair=("x", "y"), choice="x"))
    expert = Vote("e", pair=("x", "y"), choice="y")
    record = Comparison("p", "q", PAIR, (*votes, expert))
    assert adjudicated(record, experts=["e"]).win_prob[0, 1] == 0
    assert adjudicated(record, experts=["nobody"]).win_prob[0, 1] == pytest.approx(2 / 3)
    with pytest.raises(RecordError, match="names nobody"):
        adjudicated(record, experts=[])


def test_gradient_of_annotator_bradley_terry():
    rng = np.random.default_rng(0)
    columns = [torch.as_tensor(rng.integers(0, n, 40)) for n in (3, 5, 5, 4)]
    shapes = {"score": (5,), "gate": (4,), "guess": (4, 3), "mean": (4,), "tie": (1,)}
    values = {k: torch.randn(s, dtype=torch.float64, requires_grad=True) for k, s in shapes.items()}

    def loss(*tensors):
        return _negative_log_posterior(dict(zip(shapes, tensors, strict=True)), columns, 1.5, 1.0)

    assert torch.autograd.gradcheck(loss, tuple(values.values()))


def test_scores_and_reliabilities_are_recovered():
    rng = np.random.default_rng(1)
    items, people, votes = 40, 20, 6000
    score = rng.normal(0, 1.2, items)
    reliability = np.where(np.arange(people) < 5, 0.1, 0.95)
    first, second = rng.integers(0, items, votes), rng.integers(0, items, votes)
    keep = first != second
    first, second = first[keep], second[keep]
    who = rng.integers(0, people, len(first))
    logits = np.stack(
        [(score[first] - score[second]) / 2, np.full(len(first), -0.5), (score[second] - score[first]) / 2], 1
    )
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = reliability[who, None] * p + (1 - reliability[who, None]) / 3
    verdict = (rng.random(len(p))[:, None] > p.cumsum(1)).sum(1)
    found = fit(verdict, first, second, who, items=items, annotators=people)
    assert np.corrcoef(found.score, score)[0, 1] > 0.95
    assert found.reliability[:5].mean() < 0.4 < 0.75 < found.reliability[5:].mean()
    assert found.log_tie == pytest.approx(-0.5, abs=0.25)


def test_sides_are_taken_as_they_were_shown():
    vote = Vote("a", pair=("x", "y"), choice="x", meta={"first": "y"})
    vote_table = collect([Comparison("p", "q", PAIR, (vote,))]).vote_table()
    verdict, first, second = as_shown(vote_table)
    assert verdict.tolist() == [2]
    assert (first, second) == (vote_table.second, vote_table.first)


def test_on_real_votes_reliabilities_predict_held_out_votes_better(shared):
    """UKPConvArg, a fifth of the votes held out: joint reliabilities against everybody alike."""
    from functools import partial

    from rlhf.data.importers import ukpconvarg
    from rlhf.data.source import Source

    folder = shared / "data"
    importer = partial(ukpconvarg, responses_path=str(folder / "ukpconvarg_responses.jsonl"))
    vote_table = collect(Source(importer, path=str(folder / "ukpconvarg_pairs.jsonl")).records()).vote_table()
    verdict, first, second = as_shown(vote_table)
    test = np.random.default_rng(0).random(len(verdict)) < 0.2

    def held_out(annotator, people):
        found = fit(
            verdict[~test], first[~test], second[~test], annotator[~test],
            items=len(vote_table.items), annotators=people,
        )  # fmt: skip
        p = found.predict(first[test], second[test], annotator[test])
        return -np.log(p[np.arange(len(p)), verdict[test]]).mean()

    alike = held_out(np.zeros_like(vote_table.annotator), 1)
    assert held_out(vote_table.annotator, len(vote_table.annotators)) < alike - 0.02
