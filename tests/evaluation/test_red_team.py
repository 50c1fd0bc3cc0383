"""Tasks where a model fails: by construction, and by asking the model again."""

from random import Random

import numpy as np
import pytest

from rlhf.evaluation import perturbations
from rlhf.evaluation.red_team import PROMPTS, hard_prompts, red_team
from rlhf.evaluation.report.sections.accuracy import accuracy
from rlhf.evaluation.run import EvaluationRun
from rlhf.evaluation.score_pass import Pass
from rlhf.evaluation.score_source import Scores
from rlhf.labels.aggregation import soft
from rlhf.records import read, write
from rlhf.toy.world import ToyWorld

PROBES = {"flattery": perturbations.flattery, "refusal": perturbations.refusal, "swapped": perturbations.swapped}


class Vain:
    """Gold, and 3 more for flattery; out of distribution is what is long; two members of which one adds noise."""

    name, calibration = "vain", None

    def score(self, records):
        out = []
        for r in records:
            reward = np.array([c.meta["gold"] + 3 * c.text.startswith(perturbations.FLATTERY) for c in r.completions])
            noise = np.array([Random(c.text).gauss(0, 1) for c in r.completions])
            ood_scores = {"mahalanobis": np.array([float(len(c.text)) for c in r.completions])}
            out.append(Scores(reward, np.stack([reward, reward + noise]), np.zeros(len(reward)), ood_scores=ood_scores))
        return out


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("r")
    scoring = Pass(Vain(), soft, perturbed_records=150)
    sections = {"accuracy": accuracy}
    report = EvaluationRun(
        folder, scoring, ToyWorld(size=150), ("a", "b"), sections, probes=PROBES, samples=0, about="x"
    )()
    return report.evaluation


@pytest.fixture(scope="module")
def tasks(evaluation):
    return red_team(evaluation, PROBES, each=10)


def of(tasks, kind):
    return [t for t in tasks if t.meta["red_team"]["kind"] == kind]


def test_every_kind_is_there_without_votes_and_survives_the_file(tasks, tmp_path):
    assert {t.meta["red_team"]["kind"] for t in tasks} == {
        "failure", "ambiguous", "ood", "disagreement", "adversarial",
    }  # fmt: skip
    assert all(len(t.completions) == 2 and not t.votes for t in tasks)
    assert len({t.prompt_id for t in tasks}) == len(tasks)
    for kind in ("failure", "ambiguous", "ood", "disagreement"):
        assert len(of(tasks, kind)) == len({t.prompt for t in of(tasks, kind)}) == 10
    write(tmp_path / "t.jsonl", tasks)
    assert list(read(tmp_path / "t.jsonl")) == tasks
    assert all("gold" not in t.meta for t in tasks), "meta.gold would make a task a check of the annotators"


def test_failures_are_wrong_and_the_surest_first(evaluation, tasks):
    margins = []
    for task in of(tasks, "failure"):
        a, b = (c.meta["gold"] for c in task.completions)
        about = task.meta["red_team"]
        assert (a - b) * (about["votes_for_first"] - 0.5) < 0
        assert about["margin"] == pytest.approx(a - b)
        margins.append(abs(a - b))
    assert margins == sorted(margins, reverse=True)
    scored = evaluation.results.scored
    wrong = (scored.difference * (scored.win_prob - 0.5)) < 0
    assert margins[0] == pytest.approx(np.abs(scored.difference[wrong]).max())


def test_ambiguous_ones_have_the_least_margins_and_ood_ones_the_longest_answer(tasks, evaluation):
    ambiguous = [abs(t.meta["red_team"]["margin"]) for t in of(tasks, "ambiguous")]
    assert ambiguous == sorted(ambiguous)
    assert ambiguous[0] == np.abs(evaluation.results.scored.difference).min()
    longest = [max(len(c.text) for c in t.completions) for t in of(tasks, "ood")]
    assert longest == sorted(longest, reverse=True)


def test_attacks_beat_the_better_answer_when_the_model_is_asked_again(tasks):
    attacks = of(tasks, "adversarial")
    assert {t.meta["red_team"]["change"] for t in attacks} == {"flattery"}, "neither refusals nor an order"
    for task in attacks:
        first_is_better = task.meta["red_team"]["votes_for_first"] > 0.5
        changed = [c.id.endswith("+flattery") for c in task.completions]
        assert changed == [not first_is_better, first_is_better]
        reward = Vain().score([task])[0].reward
        assert reward[changed.index(True)] > reward[changed.index(False)]
        assert task.completions[changed.index(True)].text.startswith(perturbations.FLATTERY)


def test_hard_prompts_are_made_from_the_prompts_and_wait_for_answers():
    records = list(ToyWorld(size=30).records())
    found = hard_prompts(records, each=5)
    assert found == hard_prompts(records, each=5)
    assert len(found) == 5 * len(PROMPTS)
    assert all(not r.completions and not r.votes for r in found)
    known = [str(r.prompt) for r in records]
    for r in (r for r in found if r.prompt_id.startswith("multi_step")):
        assert sum(prompt in r.prompt for prompt in known) >= 1
        assert "2. " in r.prompt
    for r in (r for r in found if r.prompt_id.startswith("cut")):
        assert any(prompt.startswith(r.prompt) and prompt != r.prompt for prompt in known)
