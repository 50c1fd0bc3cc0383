"""The research sets as they were published: counts, majorities and accuracies of the real files, where they are."""

from collections import Counter

import pytest
from research_rows import ROOT, source

from rlhf.data.importers.research import SCALE
from rlhf.records import read, write

SHARED = ROOT.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the data beside the project are not here")

FILES = {
    "ukpconvarg": "ukpconvarg_pairs.jsonl",
    "pandalm": "pandalm_three_annotators.jsonl",
    "qa_feedback": "qa_feedback_k4.jsonl",
    "rankme": "rankme_likert.jsonl",
    "llmbar": "llmbar_natural_ai_labels.jsonl",
}


def real(name):
    extra = {"responses_path": str(SHARED / "ukpconvarg_responses.jsonl")} if name == "ukpconvarg" else {}
    return list(source(name, path=str(SHARED / FILES[name]), **extra).records())


def test_ukpconvarg_has_its_published_counts():
    records = real("ukpconvarg")
    votes = [v for r in records for v in r.votes]
    assert len(records) == 9_782
    assert len(votes) == 48_797
    assert len({v.annotator for v in votes}) == 3_632
    assert len({r.prompt_id for r in records}) == 18
    assert len({c.id for r in records for c in r.completions}) == 600
    assert Counter(v.choice == "tie" for v in votes)[True] == 11_915


def test_ukpconvarg_winners_have_the_lower_pagerank():
    """The source says that a lower score is more convincing: turned-round labels would turn this round."""
    wins = Counter()
    for record in real("ukpconvarg"):
        if record.meta["gold"] not in (None, "tie"):
            score = {c.id: c.meta["pagerank_score"] for c in record.completions}
            wins[score[record.meta["gold"]] == min(score.values())] += 1
    assert wins[True] > 0.8 * wins.total()


def test_pandalm_has_its_published_majorities():
    majority = Counter(Counter(v.choice for v in r.votes).most_common(1)[0][0] for r in real("pandalm"))
    assert majority == {"tie": 105, "a": 422, "b": 472}


def test_pandalm_attributes_texts_to_models_consistently():
    """A model has one answer to a prompt; turned-round names would give most prompts several."""
    answers = {}
    for record in real("pandalm"):
        for c in record.completions:
            answers.setdefault((record.prompt_id, c.source["model"]), set()).add(c.text)
    assert sum(len(texts) == 1 for texts in answers.values()) > 0.95 * len(answers)


def test_qa_feedback_has_its_counts_and_its_first_answer_wins_most():
    records = real("qa_feedback")
    assert len(records) == 300
    assert Counter(len(r.votes) for r in records) == {6: 300}
    votes = [v for r in records for v in r.votes]
    assert sum(v.choice == "tie" for v in votes) == 223
    first = [v.choice == "r0" for v in votes if "r0" in v.pair and v.choice != "tie"]
    assert 0.55 < sum(first) / len(first) < 0.75


def test_rankme_has_its_counts():
    records = real("rankme")
    assert len(records) == 100
    assert {len(r.completions) for r in records} == {3}
    ratings = Counter(v for r in records for vote in r.votes for v in vote.likert.values())
    assert ratings == {6: 2121, 5: 275, 2: 155, 4: 75, 1: 71, 3: 45}


@pytest.mark.parametrize(("judge", "consistent", "right"), [("GPT-4", 95, 93), ("ChatGPT", 71, 67)])
def test_llmbar_reproduces_the_published_accuracy_of_judges(judge, consistent, right):
    records = real("llmbar")
    verdicts = [(v.choice, r.meta["gold"]) for r in records for v in r.votes if v.annotator == f"{judge}/Vanilla"]
    assert len(verdicts) == 100
    assert sum(choice != "tie" for choice, _ in verdicts) == consistent
    assert sum(choice == gold for choice, gold in verdicts) == right


@pytest.mark.parametrize("name", FILES)
def test_every_record_is_one_that_the_format_allows(name, tmp_path):
    records = real(name)
    scale = SCALE if name == "rankme" else (1.0, 5.0)
    write(tmp_path / "out.jsonl", records, likert=scale)
    assert list(read(tmp_path / "out.jsonl")) == records
