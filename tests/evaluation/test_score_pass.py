"""Scoring a set once: what is kept, what is counted, and that processes do not matter."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from rlhf.evaluation import perturbations
from rlhf.evaluation.bag_of_words import BagOfWords
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.score_pass import Pass, read_spools, results_from, write_spool
from rlhf.evaluation.score_source import Ensemble, Scores
from rlhf.labels.aggregation import soft
from rlhf.toy.world import ToyWorld

WORLD = list(ToyWorld(size=65).records())


class Gold:
    """Scores by the gold reward plus noise that depends on the text alone; cannot read what is longer than `most`."""

    calibration = None

    def __init__(self, name="gold", most=10**9, noise=0.0, scale=1.0):
        self.name, self.most, self.noise, self.scale = name, most, noise, scale

    def score(self, records):
        out = []
        for r in records:
            noise = [Random(self.name + c.text).gauss(0, 1) * self.noise for c in r.completions]
            reward = [self.scale * (c.meta["gold"] + n) for c, n in zip(r.completions, noise, strict=True)]
            scores = Scores.plain(
                [v if len(c.text) <= self.most else np.nan for v, c in zip(reward, r.completions, strict=True)]
            )
            out.append(scores)
        return out


def run(tmp_path, world, **options):
    names = {}
    for rank in range(world):
        one = Pass(Gold(), soft, rank=rank, world_size=world, block=64, perturbed_records=20, **options)
        names[rank] = tmp_path / f"{world}-{rank}"
        write_spool(names[rank], one.entries(WORLD, len(WORLD)))
    return list(read_spools(list(names.values())))


def test_65_records_in_blocks_of_64_are_the_same_for_one_and_two_processes(tmp_path):
    options = {"perturbations": {"shuffled": perturbations.shuffled}, "others": [Gold("other", noise=1.0)]}
    alone, together = run(tmp_path, 1, **options), run(tmp_path, 2, **options)
    for name in ("", "shuffled"):
        a, b = (results_from((e for e in entries if e.name == name), ("gold",)) for entries in (alone, together))
        for column in ("record", "place", "tokens", "members", "gold"):
            np.testing.assert_array_equal(getattr(a, column), getattr(b, column))
        for column in ("reward", "first", "second", "win_prob", "length", "prompt"):
            np.testing.assert_array_equal(getattr(a.scored, column), getattr(b.scored, column))
        assert a.prompt_id == b.prompt_id
        assert a.counts == b.counts
    assert len({e.number for e in alone if e.name == ""}) == 65
    assert len([e for e in alone if e.name == "shuffled"]) == 20


def test_everything_that_is_left_out_is_counted():
    silent = replace(WORLD[0], votes=())
    twins = replace(WORLD[1], completions=tuple(replace(c, text="same") for c in WORLD[1].completions))
    records = [silent, twins, *WORLD[2:]]
    most = 60
    found = results_from(Pass(Gold(most=most), soft).entries(records), ("gold",))
    counts = found.counts
    dropped = sum(n for k, n in counts.items() if k.startswith("dropped/"))
    assert counts["records"] == len(records) == dropped + len(found.prompt_id)
    assert counts["dropped/no_votes"] == counts["dropped/identical"] == 1
    assert counts["completions_too_long"] == sum(len(c.text) > most for r in records for c in r.completions)
    assert found.scored.length.max() <= most
    np.testing.assert_allclose(found.gold, found.scored.reward)


def test_a_completion_that_one_model_cannot_read_is_left_out_for_all():
    both = Pass(Gold(), soft, others=[Gold("short", most=60)])
    found = results_from(both.entries(WORLD), ("gold",))
    assert found.scored.length.max() <= 60
    np.testing.assert_allclose(found.others["short"], found.scored.reward)


def test_reversed_answers_are_put_back_in_their_order():
    entries = list(
        Pass(Gold(), soft, perturbations={"swapped": perturbations.swapped}, perturbed_records=65).entries(WORLD, 65)
    )
    a, b = (results_from((e for e in entries if e.name == name), ("gold",)) for name in ("", "swapped"))
    np.testing.assert_array_equal(a.scored.reward, b.scored.reward)
    np.testing.assert_array_equal(a.scored.win_prob, b.scored.win_prob)


def test_an_ensemble_is_the_mean_of_log_odds_whatever_the_scales():
    members = [Gold("a", noise=0.5), Gold("b", noise=0.5, scale=10.0)]
    members[0].calibration = Calibration(1.0, 0.0, 1.0, 1, 1, "")
    members[1].calibration = Calibration(10.0, 0.0, 1.0, 1, 1, "")
    found = Ensemble(members).score(WORLD[:3])[0]
    one, ten = (m.score(WORLD[:3])[0].reward for m in members)
    np.testing.assert_allclose(found.reward, (one + ten / 10) / 2)
    assert found.members.shape == (2, len(WORLD[0].completions))
    with pytest.raises(ValueError, match="every member once"):
        Ensemble([members[0], members[0]])


def test_a_bag_of_words_learns_words_and_not_their_order():
    world = list(ToyWorld(size=1000).records())
    words = BagOfWords(world[:600], soft)
    found = results_from(Pass(words, soft).entries(world[600:]), ("words",))
    right = (found.scored.difference > 0) == (found.scored.win_prob > 0.5)
    decided = found.scored.win_prob != 0.5
    standard_error = 0.5 / np.sqrt(decided.sum() / 3)  # 3 pairs a prompt, as if they were one
    assert right[decided].mean() > 0.5 + 3 * standard_error
    record = world[0]
    again = perturbations.swapped(record, Random(0))
    np.testing.assert_allclose(words.score([record])[0].reward[::-1], words.score([again])[0].reward)
    with pytest.raises(ValueError, match="labelled pair"):
        BagOfWords([replace(record, votes=())], soft)


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (perturbations.truncated, lambda a, b: a.startswith(b) and len(b) < len(a)),
        (perturbations.shuffled, lambda a, b: sorted(a.split()) == sorted(b.split())),
        (perturbations.long, lambda a, b: b.startswith(a) and len(b) >= 3 * len(a)),
        (perturbations.filler, lambda a, b: b.startswith(a) and b != a),
        (perturbations.flattery, lambda a, b: b.endswith(a) and b != a),
        (perturbations.markdown, lambda a, b: all(w in b for w in a.split()) and b.startswith("## ")),
        (perturbations.repetition, lambda a, b: b == f"{a} {a}"),
        (perturbations.refusal, lambda a, b: b == perturbations.REFUSAL),
        (perturbations.truncated_end, lambda a, b: a.startswith(b) and len(b) == round(0.75 * len(a))),
    ],
)
def test_perturbations_change_what_they_say_and_nothing_else(change, holds):
    for record in WORLD[:20]:
        after = change(record, Random(1))
        assert after == change(record, Random(1))
        assert (after.prompt, after.votes) == (record.prompt, record.votes)
        for a, b in zip(record.completions, after.completions, strict=True):
            assert (a.id, a.meta) == (b.id, b.meta)
            assert holds(a.text, b.text)
