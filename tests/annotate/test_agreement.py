"""Agreement against independent oracles: krippendorff, statsmodels, scikit-learn; and against published values."""

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from rlhf.annotate import agreement as ag
from rlhf.data.importers import pandalm
from rlhf.data.source import Source
from rlhf.labels.vote_table import collect, table


@st.composite
def counts(draw, least=0):
    rows = draw(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=3, max_size=20))
    return np.array(rows)


@settings(max_examples=60, deadline=None)
@given(counts())
@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_equals_the_krippendorff_package(level, c):
    kept = c[c.sum(1) > 1]
    if len(kept) == 0 or (kept.sum(0) > 0).sum() < 2:
        assert np.isnan(ag.krippendorff_alpha(c, level=level))
        return
    used = kept.sum(0) > 0
    values = np.flatnonzero(used).astype(float)
    expected = krippendorff.alpha(value_counts=kept[:, used], value_domain=values, level_of_measurement=level)
    ours = ag.krippendorff_alpha(kept[:, used], level=level, values=values.tolist())
    assert ours == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=12, max_size=60).filter(lambda v: len(set(v)) > 1))
def test_fleiss_equals_statsmodels(values):
    raters = np.array(values[: len(values) // 3 * 3]).reshape(-1, 3)
    units = np.repeat(np.arange(len(raters)), 3)
    c = table(units, raters.ravel(), len(raters), 3)
    if (c.sum(0) > 0).sum() > 1:
        assert ag.fleiss_kappa(c) == pytest.approx(statsmodels_fleiss(c), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abt"), st.sampled_from("abt")), min_size=2, max_size=50))
def test_cohen_equals_scikit_learn(pairs):
    a, b = zip(*pairs, strict=True)
    if len(set(a) | set(b)) == 1:
        assert np.isnan(ag.cohen_kappa(a, b))
    else:
        assert ag.cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_degenerate_cases_are_nan_not_a_number_to_be_believed():
    nobody_twice = np.eye(3, dtype=int)
    all_alike = np.array([[3, 0, 0], [3, 0, 0]])
    for c in (nobody_twice, all_alike, np.zeros((0, 3), int)):
        assert np.isnan(ag.krippendorff_alpha(c))
        assert np.isnan(ag.fleiss_kappa(c))
    assert np.isnan(ag.percent_agreement(nobody_twice))
    assert ag.percent_agreement(all_alike) == 1


def test_fleiss_reads_the_units_with_the_most_frequent_number_of_annotators():
    three = np.array([[3, 0, 0], [1, 2, 0], [0, 0, 3]])
    ragged = np.vstack([three, [[1, 1, 0], [0, 1, 0]]])
    assert ag.fleiss_kappa(ragged) == pytest.approx(ag.fleiss_kappa(three))
    assert ag.complete(ragged).tolist() == [True, True, True, False, False]


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Raters who say the truth with chance q and guess otherwise have nominal alpha q^2 (uniform truth)."""
    q, hits, trials = 0.7, 0, 120
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        truth = np.repeat(rng.integers(0, 3, 60), 2)  # two units per prompt
        said = np.where(rng.random((120, 4)) < q, truth[:, None], rng.integers(0, 3, (120, 4)))
        c = table(np.repeat(np.arange(120), 4), said.ravel(), 120, 3)
        low, high = ag.alpha_interval(c, np.arange(120) // 2, samples=300, seed=seed)
        hits += low <= q**2 <= high
    assert 0.88 <= hits / trials <= 0.99


def test_published_values_of_pandalm(shared):
    source = Source(pandalm, path=str(shared / "data" / "pandalm_three_annotators.jsonl"))
    b = collect(source.records()).vote_table()
    assert b.counts.shape == (999, 3)
    assert ag.fleiss_kappa(b.counts) == pytest.approx(0.8642, abs=5e-5)
    assert ag.krippendorff_alpha(b.counts) == pytest.approx(0.8642, abs=5e-5)
    said = np.full((3, 999), -1)
    said[b.annotator, b.unit] = b.verdict
    kappas = [ag.cohen_kappa(said[i], said[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert kappas == pytest.approx([0.8520, 0.8789, 0.8617], abs=5e-5)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="nominal, ordinal, interval"):
        ag.krippendorff_alpha([[1, 1]], level="ratio")
    with pytest.raises(ValueError, match="same units"):
        ag.cohen_kappa([1, 2], [1])
