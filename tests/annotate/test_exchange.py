"""Files of Label Studio, Argilla and the page without a server: out, answered, and back as the same votes."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from rlhf.annotate.exchange import from_argilla, from_label_studio, to_argilla, to_label_studio
from rlhf.annotate.items import Questions
from rlhf.annotate.offline_page import offline_page, votes_from_page
from rlhf.records import Comparison, Completion, RecordError

HOW = {"criteria": ("helpfulness", "honesty"), "scale": (1, 5), "seed": 3}


def tasks(count=6, k=3):
    def answers(n):
        return tuple(Completion(f"c{i}", f"answer {i} to {n}", {"model": "secret"}) for i in range(k))

    return [Comparison(f"p{n}", f"Question {n}?", answers(n)) for n in range(count)]


def better(a, b):
    """Which of two completions these tests prefer: the higher number, but c0 and c1 are level."""
    return "tie" if {a, b} == {"c0", "c1"} else max(a, b)


def test_label_studio_there_and_back_loses_no_vote_and_shows_no_source():
    out = list(to_label_studio(tasks()))
    assert len(out) == 6 * 3
    assert "secret" not in json.dumps(out)
    assert {t["data"]["pair"][0] for t in out} == {"c0", "c1", "c2"}, "sides are swapped"
    answered = []
    for number, task in enumerate(out):
        a, b = task["data"]["pair"]
        assert task["data"]["a"].startswith(f"answer {a[1]}")
        choice = {a: "A", b: "B", "tie": "tie"}[better(a, b)]
        result = [{"value": {"choices": [choice]}, "from_name": "better", "type": "choices"}]
        answered.append(
            task | {"id": number, "annotations": [
                {"completed_by": {"email": "ann@x"}, "lead_time": 4.5, "result": result},
                {"completed_by": 7, "was_cancelled": True, "result": []},
            ]}
        )  # fmt: skip
    back = list(from_label_studio(tasks(), answered))
    assert sum(len(r.votes) for r in back) == 18
    for record in back:
        assert {v.annotator for v in record.votes} == {"ann@x"}
        assert {v.seconds for v in record.votes} == {4.5}
        for vote in record.votes:
            assert vote.choice == better(*vote.pair)
            assert vote.meta["first"] == vote.pair[0]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"data": {"text": "x"}}, "import what we exported"),
        ({"data": {"prompt_id": "p9", "pair": ["c0", "c1"]}}, "give the tasks= file"),
        ({"data": {"prompt_id": "p0", "pair": ["c0", "c8"]}}, "give the tasks= file"),
        ({"id": 5, "data": {"prompt_id": "p0", "pair": ["c0", "c1"]}, "annotations": [{"result": []}]}, "task 5"),
    ],
)
def test_label_studio_answers_that_are_not_ours_are_refused(task, message):
    with pytest.raises(RecordError, match=message):
        list(from_label_studio(tasks(), [task]))


def test_argilla_there_and_back_keeps_rankings_and_ties_whatever_the_order_shown():
    rows = list(to_argilla(tasks()))
    assert "secret" not in json.dumps(rows)
    ranks = {"2": 1, "0": 2, "1": 2}
    orders = set()
    for row in rows:
        shown = [row["fields"][f"answer-{n}"].split()[1] for n in (1, 2, 3)]
        orders.add(tuple(shown))
        ranking = [{"value": f"answer-{n}", "rank": ranks[i]} for n, i in enumerate(shown, start=1)]
        row["responses"] = {"ranking": [
            {"value": ranking, "user_id": "u1", "status": "submitted"},
            {"value": ranking[:1], "user_id": "u2", "status": "draft"},
        ]}  # fmt: skip
    assert len(orders) > 2, "the order shown is shuffled"
    for record in from_argilla(tasks(), rows):
        (vote,) = record.votes
        assert [set(group) for group in vote.ranking] == [{"c2"}, {"c0", "c1"}]
        assert vote.annotator == "u1"


def test_records_that_share_a_prompt_id_get_their_own_answers():
    first, second = tasks(1, 2)[0], tasks(2, 2)[1]
    ours = [first, replace(second, prompt_id=first.prompt_id)]
    exported = list(to_label_studio(ours))
    result = [{"value": {"choices": ["A"]}}]
    exported[1]["annotations"] = [{"completed_by": 1, "result": result}]
    assert [len(r.votes) for r in from_label_studio(ours, exported)] == [0, 1]
    rows = list(to_argilla(ours))
    assert len({row["id"] for row in rows}) == 2
    ranking = [{"value": "answer-1", "rank": 1}, {"value": "answer-2", "rank": 2}]
    rows[0]["responses"] = {"ranking": [{"value": ranking, "user_id": "u"}]}
    assert [len(r.votes) for r in from_argilla(ours, rows)] == [1, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "p0", "responses": {"ranking": [{"value": ["answer-1", "answer-2"]}]}}, "argilla#5712"),
        (
            {"id": "p9", "responses": {"ranking": [{"value": [{"value": "answer-1", "rank": 1}]}]}},
            "give the tasks= file",
        ),
        (
            {"id": "p0", "responses": {"ranking": [{"value": [{"value": "answer-7", "rank": 1}]}]}},
            "give the tasks= file",
        ),
        (
            {"id": "p0", "responses": {"ranking": [{"value": [{"value": "answer-1", "rank": 1}]}]}},
            "ranks answer-1 of 3 answers",
        ),
        (
            {"id": "p0", "responses": {"ranking": [{"value": [{"value": "answer-1", "rank": r} for r in (1, 2, 3)]}]}},
            "every answer needs one rank",
        ),
    ],
)
def test_argilla_answers_that_are_not_ours_are_refused(row, message):
    with pytest.raises(RecordError, match=message):
        list(from_argilla(tasks(), [row]))


@pytest.mark.parametrize("form", ["pair", "ranking", "likert"])
def test_the_page_is_whole_blind_and_cannot_be_injected(form):
    evil = Completion("c0", "<img src=x onerror=alert(2)>", {"model": "secret"})
    records = [Comparison("p", "</script><script>alert(1)</script>", (evil, Completion("c1", "b")))]
    page = offline_page(records, Questions(form, **HOW), guidelines="Be kind </script>")
    assert "secret" not in page
    assert "</script><script>alert" not in page
    assert "<img src=x" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|\#)""", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert data["tasks"][0]["prompt"] == records[0].prompt
    assert {s["text"] for s in data["tasks"][0]["slots"]} == {c.text for c in records[0].completions}


def test_answers_of_the_page_are_about_the_completions_that_were_shown():
    records = tasks(20, 2)
    page = offline_page(records, Questions(**HOW), guidelines="")
    shown = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])["tasks"]
    assert 0 < np.mean([t["slots"][0]["text"].startswith("answer 0") for t in shown]) < 1, "sides are drawn"
    answers = [
        {"assignment": t["assignment"], "annotator": "ann", "seconds": 2.0,
         "answer": {"choice": next(s["slot"] for s in t["slots"] if s["text"].startswith("answer 1"))}}
        for t in shown
    ]  # fmt: skip
    for record in votes_from_page(records, answers, Questions(**HOW)):
        (vote,) = record.votes
        assert vote.choice == "c1"
        assert vote.annotator == "ann"


def test_answers_that_do_not_fit_the_page_are_refused_and_no_record_is_lost():
    alone = Comparison("p9", "only one answer", (Completion("c0", "x"),))
    records = [*tasks(2, 2), alone]
    fits = {"assignment": 0, "annotator": "ann", "seconds": 2.0, "answer": {"choice": "A"}}
    voted = list(votes_from_page(records, [fits, fits | {"answer": {"choice": "B"}}], Questions(**HOW)))
    assert [len(r.votes) for r in voted] == [1, 0, 0], "the last word counts; a record without items stays"
    for wrong, key in (
        ({"assignment": 7}, "assignment"), ({"annotator": ""}, "annotator"), ({"page": "of others"}, "page"),
        ({"answer": {"ranking": []}}, "answer"), ({"seconds": "long"}, "answer"),
    ):  # fmt: skip
        with pytest.raises(RecordError, match=f"answer 2: key '{key}'"):
            list(votes_from_page(records, [fits, fits | wrong], Questions(**HOW)))
