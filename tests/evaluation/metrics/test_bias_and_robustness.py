"""What a reward pays for, and whether members of a set err together: by hand, by regression, by identity."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.stats import rankdata
from scored_sets import pair, ranked

from rlhf.evaluation import perturbations
from rlhf.evaluation.bag_of_words import BagOfWords
from rlhf.evaluation.metrics.bias import partial_length_correlation
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.metrics.paired import robustness
from rlhf.evaluation.metrics.scored import Scored
from rlhf.evaluation.metrics.selective import accuracy_at, area, risk_coverage
from rlhf.evaluation.score_source import Ensemble, Scores
from rlhf.labels.aggregation import soft
from rlhf.records import Comparison, Completion, Vote


def groups_of(rng, count, make):
    """Ranked groups of four; `make(quality, noise)` gives rewards and lengths."""
    out = []
    for n in range(count):
        quality, noise = rng.normal(size=4), rng.normal(size=(2, 4))
        reward, length = make(quality, noise)
        rank = rankdata(-quality).astype(int) - 1
        out.append(replace(ranked(reward, rank, prompt=f"p{n}"), length=np.round(length * 100).astype(int)))
    return Scored.from_groups(out)


def test_partial_correlation_is_that_of_regression_residuals():
    scored = groups_of(np.random.default_rng(2), 50, lambda q, e: (q + e[0], 10 + q + e[0] + e[1]))
    columns = []
    for values in (scored.reward, scored.length, -scored.rank.astype(float)):
        rows = values.reshape(-1, 4)
        columns.append(np.concatenate([rankdata(r) - 2.5 for r in rows]))
    x, y, z = columns
    left, right = x - z * (x @ z) / (z @ z), y - z * (y @ z) / (z @ z)
    expected = left @ right / np.sqrt((left @ left) * (right @ right))
    assert partial_length_correlation(scored, samples=10, seed=0).value == pytest.approx(expected)


def test_the_order_of_votes_is_held_fixed_inside_what_they_connect():
    """Two pairs of one record are what they are in records of their own: their ranks say nothing across."""
    rng = np.random.default_rng(3)
    pairs = [ranked(rng.normal(size=2), [0, 1] if n % 2 else [1, 0], prompt=f"p{n // 2}") for n in range(40)]
    pairs = [replace(g, length=rng.permutation(9)[:2]) for g in pairs]
    interleaved = [0, 2, 1, 3]
    both = []
    for a, b in zip(pairs[::2], pairs[1::2], strict=True):
        square = {
            name: block_diag(getattr(a, name), getattr(b, name))[np.ix_(interleaved, interleaved)]
            for name in ("win_prob", "tie_prob", "observed", "votes")
        }
        square["observed"] = square["observed"].astype(bool)
        row = {n: np.append(getattr(a, n), getattr(b, n))[interleaved] for n in ("reward", "length", "rank")}
        both.append(replace(a, **row, **square))
    apart, joined = (partial_length_correlation(Scored.from_groups(g), samples=20, seed=0) for g in (pairs, both))
    assert joined.value == pytest.approx(apart.value)
    assert 0 < abs(joined.value) < 1


def test_members_by_hand():
    scored = Scored.from_groups([pair(1, 0, 3, 0, 0, prompt=f"p{n}") for n in range(4)])
    members = np.array([[1, 0, 1, 0, 0, 1, 0, 1], [1, 0, 0, 1, 1, 0, 0, 1]], dtype=float)
    found = robustness(scored, members)
    np.testing.assert_array_equal(found.right, [[1, 1, 0, 0], [1, 0, 1, 0]])
    assert (found.right.min(0) != found.right.max(0)).mean() == 0.5
    assert (found.right < 0.5).all(0).mean() == 0.25
    np.testing.assert_allclose(found.correlation, [[1, 0], [0, 1]], atol=1e-12)
    np.testing.assert_allclose(found.disagreement, [0, np.sqrt(2), np.sqrt(2), 0])
    assert robustness(scored, members[:1]) is None


class Fixed:
    def __init__(self, name, reward, calibration=None, ood_scores=None):
        self.name, self.reward, self.calibration = name, np.array(reward, dtype=float), calibration
        self.ood_scores = ood_scores or {}

    def score(self, records):
        return [Scores(self.reward, self.reward[None], np.zeros(2), ood_scores=self.ood_scores) for _ in records]


def test_an_ensemble_normalises_before_it_averages():
    def scale(temperature, mean):
        return replace(Calibration.identity(), temperature=temperature, reward_mean=mean)

    record = Comparison("p", "q", (Completion("a", "x"), Completion("b", "y")))
    sources = [Fixed("one", [2, 0], scale(1, 1)), Fixed("two", [200, 0], scale(100, 100))]
    (found,) = Ensemble(sources).score([record])
    np.testing.assert_allclose(found.members, [[1, -1], [1, -1]])
    np.testing.assert_allclose(found.reward, [1, -1])
    with pytest.raises(ValueError, match="every member once"):
        Ensemble([sources[0], sources[0]])


def test_risk_and_coverage_by_hand():
    confidence, right = np.array([0.9, 0.8, 0.8, 0.6]), np.array([1.0, 1.0, 0.0, 0.0])
    coverage, accuracy = risk_coverage(confidence, right)
    np.testing.assert_allclose(coverage, [0.25, 0.75, 0.75, 1])
    np.testing.assert_allclose(accuracy, [1, 2 / 3, 2 / 3, 0.5])
    assert area(confidence, right) == pytest.approx(1 - np.mean([1, 2 / 3, 2 / 3, 0.5]))
    assert accuracy_at(confidence, right, 0.25) == 1
    assert accuracy_at(confidence, right, 0.5) == pytest.approx(2 / 3), "equal confidences go together"


RECORD = Comparison(
    "p", "Q?", (Completion("a", "One two. Three four!"), Completion("b", "Yes.")),
    (Vote("w", pair=("a", "b"), choice="a"),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (perturbations.truncated, "One two."),
        (perturbations.filler, "One two. Three four!" + perturbations.FILLER),
        (perturbations.flattery, perturbations.FLATTERY + "One two. Three four!"),
        (perturbations.markdown, "## Answer\n\n- **One two.**\n- **Three four!**"),
        (perturbations.repetition, "One two. Three four! One two. Three four!"),
        (perturbations.refusal, perturbations.REFUSAL),
        (perturbations.truncated_end, "One two. Three "),
    ],
)
def test_perturbations_by_hand(change, expected):
    changed = change(RECORD, Random(0))
    assert changed.completions[0].text == expected
    assert [c.id for c in changed.completions] == ["a", "b"]
    assert changed.votes == RECORD.votes


def test_shuffled_keeps_the_words_and_long_is_long():
    changed = perturbations.shuffled(RECORD, Random(1)).completions[0].text
    assert sorted(changed.split()) == sorted(["One", "two.", "Three", "four!"])
    grown = perturbations.long(RECORD, Random(0), times=3.0)
    for before, after in zip(RECORD.completions, grown.completions, strict=True):
        assert after.text.startswith(before.text)
        assert len(after.text) >= 3 * len(before.text)
    assert [c.id for c in perturbations.swapped(RECORD, Random(0)).completions] == ["b", "a"]


def fruit(number, won, lost, shares=((1, 0),)):
    """Two answers of eight words, six of them random letters; votes for the first and the second."""
    rng = np.random.default_rng(number)
    texts = [" ".join([word, *("x" + c for c in rng.choice(list("abcdefgh"), 6))]) for word in (won, lost)]
    votes = tuple(
        Vote(f"w{v}", pair=("a", "b"), choice="ab"[v >= wins]) for wins, losses in shares for v in range(wins + losses)
    )
    return Comparison(f"p{number}", f"Q{number}?", (Completion("a", texts[0]), Completion("b", texts[1])), votes)


def test_a_bag_of_words_learns_which_words_win():
    """A word that always wins decides unseen pairs; one that wins half its votes does not, nor do unseen words."""
    decided = [fruit(n, "plum", "stone") if n % 2 else fruit(n, "stone", "plum", ((0, 1),)) for n in range(100)]
    even = [fruit(n, "pear", "rock", ((2, 2),)) for n in range(100, 200)]
    model = BagOfWords(decided + even, soft)
    unseen = [fruit(n, "plum", "stone") for n in range(200, 300)]
    leads = np.array([scores.reward[0] - scores.reward[1] for scores in model.score(unseen)])
    assert (leads > 0).all()
    weight = dict(zip(model.words.get_feature_names_out(), model.model.coef_[0], strict=True))
    assert weight["plum"] > 0.5
    assert weight["stone"] == pytest.approx(-weight["plum"], rel=0.2)
    assert abs(weight["pear"]) < 0.1 * weight["plum"]
    strangers = Comparison("p", "Q?", (Completion("a", "one two"), Completion("b", "three")))
    np.testing.assert_array_equal(model.score([strangers])[0].reward, 0.0)
    turned = [replace(r, votes=tuple(replace(v, choice="ba"["ab".index(v.choice)]) for v in r.votes)) for r in decided]
    opposite = BagOfWords(turned + even, soft).model.coef_
    np.testing.assert_allclose(opposite, -model.model.coef_, atol=1e-3)
    with pytest.raises(ValueError, match="needs a labelled pair"):
        BagOfWords([replace(RECORD, votes=())], soft)
