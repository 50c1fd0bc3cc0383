"""A judge behind the interface of reports: probabilities come back as differences of rewards."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.special import expit

from rlhf.annotate.judges import OVERALL, Unreadable
from rlhf.evaluation.llm_judge_source import JudgeSource
from rlhf.records import Comparison, Completion


@dataclass
class Fake:
    """Bradley-Terry on the number an answer holds, with a bonus for the first; "?" makes it mumble."""

    bonus: float = 0.0
    scale: float = 1.0
    name: str = "fake"
    asked: list = field(default_factory=list)

    def prefer(self, prompt, first, second, principle=OVERALL):
        self.asked.append((first, second))
        if first.startswith("?"):
            raise Unreadable("mumbles")
        return float(expit(self.scale * (float(first.strip("?")) - float(second.strip("?")) + self.bonus)))

    def usage(self):
        return {"requests": float(len(self.asked))}


def record(*texts):
    return Comparison("p", "Q", tuple(Completion(f"c{i}", t) for i, t in enumerate(texts)))


def differences(source, *texts):
    (scores,) = source.score([record(*texts)])
    return scores.reward - scores.reward[0]


def test_two_answers_differ_by_the_judges_log_odds():
    assert differences(JudgeSource(Fake()), "0", "1.5") == pytest.approx([0, 1.5])


def test_more_answers_get_the_scores_that_a_consistent_judge_has_in_mind():
    assert differences(JudgeSource(Fake()), "0.3", "-1", "2", "0.3") == pytest.approx([0, -1.3, 1.7, 0])


def test_position_cancels_and_turned_verdicts_are_counted():
    source = JudgeSource(Fake(bonus=2.0))
    assert differences(source, "0", "0") == pytest.approx([0, 0])
    assert source.usage()["turned_by_order"] == 1
    clear = JudgeSource(Fake(bonus=2.0))
    assert differences(clear, "0", "5")[1] > 2
    assert clear.usage() == {"pairs": 1, "unreadable": 0, "turned_by_order": 0, "requests": 2}


def test_certain_verdicts_stay_finite_and_contradicting_ones_tie():
    certain = JudgeSource(Fake(scale=1e6), floor=0.02)
    assert differences(certain, "0", "1") == pytest.approx([0, np.log(0.98 / 0.02)])
    assert differences(JudgeSource(Fake(scale=1e6, bonus=5.0)), "0", "1") == pytest.approx([0, 0])


def test_an_unreadable_reply_leaves_the_other_order_and_is_counted():
    source = JudgeSource(Fake())
    assert differences(source, "?0", "1") == pytest.approx([0, 1])
    assert differences(source, "?0", "?1") == pytest.approx([0, 0])
    assert source.usage()["unreadable"] == 3


def test_a_floor_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"0 < floor < 0\.5"):
        JudgeSource(Fake(), floor=0.5)


def test_its_name_says_that_it_is_a_judge():
    assert JudgeSource(Fake()).name == f"{Fake().name} (judge)"
    assert JudgeSource(Fake(), name="mine").name == "mine"


def test_a_pair_that_comes_again_is_looked_up_unless_replies_are_drawn():
    source, drawn = JudgeSource(Fake(bonus=2.0)), JudgeSource(Fake(bonus=2.0))
    wanted = differences(source, "0", "1.5")
    assert differences(source, "0", "1.5") == pytest.approx(wanted)
    assert differences(source, "1.5", "0") == pytest.approx(-wanted)
    assert source.usage()["requests"] == 2
    drawn.judge.temperature = 1.0
    drawn = JudgeSource(drawn.judge)
    differences(drawn, "0", "1.5")
    differences(drawn, "0", "1.5")
    assert drawn.usage()["requests"] == 4
