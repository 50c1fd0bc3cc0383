"""The queue of an annotation project: overlap, blinding, retries, undo, gold and calibration items."""

import json
import random
import time
from collections import Counter
from dataclasses import replace

import pytest
from projects import person, project, tasks, work

from rlhf.annotate.items import AnswerError, Item, votes_of
from rlhf.annotate.session import Gone
from rlhf.record_types import RecordError


@pytest.mark.parametrize("form", ["pair", "ranking", "likert"])
def test_every_item_gets_its_overlap_of_different_people(tmp_path, form):
    session = project(tmp_path, tasks(8, k=3), form=form, overlap=3)
    rng = random.Random(0)
    people = [person(session, f"w{i}") for i in range(5)]
    while any([work(session, who, rng, limit=1) for who in people]):
        pass
    for record in session.results():
        units = Counter((v.pair, v.criterion) for v in record.votes)
        assert set(units.values()) == {3}
        assert len({(v.annotator, v.pair, v.criterion) for v in record.votes}) == len(record.votes)
    assert session.totals()["items"] == session.totals()["complete"]


def test_what_a_person_sees_names_no_source_and_no_id(tmp_path):
    session = project(tmp_path)
    item = session.next(person(session, "ann"))
    record = next(r for r in tasks() if {c.text for c in r.completions} == {s["text"] for s in item["slots"]})
    shown = json.dumps(
        {k: v for k, v in item.items() if k not in ("prompt", "slots")}
        | {"slots": [s["slot"] for s in item["slots"]]}
    )
    for hidden in ("toy", "gold", record.prompt_id, *(c.id for c in record.completions)):
        assert hidden not in shown


def test_sides_are_random_but_the_vote_names_the_right_completion(tmp_path):
    session = project(tmp_path, tasks(40), overlap=1)
    ann = person(session, "ann")
    chosen, first = {}, Counter()
    while not (item := session.next(ann))["done"]:
        record = next(
            r
            for r in tasks(40)
            if r.prompt.endswith(item["prompt"])
            and {c.text for c in r.completions} == {s["text"] for s in item["slots"]}
        )
        first[record.completions[0].text == item["slots"][0]["text"]] += 1
        chosen[record.prompt_id] = item["slots"][0]["text"]
        session.answer(ann, {"assignment": item["assignment"], "answer": {"choice": "A"}, "seconds": 2})
    assert 8 <= first[True] <= 32
    for record in session.results():
        (vote,) = record.votes
        text = {c.id: c.text for c in record.completions}
        assert text[vote.choice] == chosen[record.prompt_id]
        assert vote.meta["first"] == vote.choice
        assert vote.seconds <= 2


def test_a_retry_changes_nothing_another_answer_is_refused(tmp_path):
    session = project(tmp_path)
    ann, ben = person(session, "ann"), person(session, "ben")
    item = session.next(ann)
    body = {"assignment": item["assignment"], "answer": {"choice": "A"}, "seconds": 1}
    session.answer(ann, body)
    session.answer(ann, body | {"seconds": 9})
    for who, answer in ((ann, {"choice": "B"}), (ben, {"choice": "A"})):
        with pytest.raises(Gone):
            session.answer(who, body | {"answer": answer})
    assert session.store.progress() == {"done": 1}


@pytest.mark.parametrize(
    "answer", [None, {}, {"choice": "C"}, {"choice": "c0"}, {"ranking": [["A"], ["B"]]}, "A"]
)
def test_answers_that_do_not_fit_are_refused_and_the_item_stays(tmp_path, answer):
    session = project(tmp_path)
    ann = person(session, "ann")
    item = session.next(ann)
    with pytest.raises(AnswerError):
        session.answer(ann, {"assignment": item["assignment"], "answer": answer, "seconds": 1})
    assert session.next(ann)["assignment"] == item["assignment"]


def test_ranking_and_likert_answers_become_votes():
    order = ["c2", "c0", "c1"]
    common = {"annotator": "a", "seconds": 1.0, "criteria": ["honesty"], "scale": (1, 5)}
    item = Item("ranking", ("c0", "c1", "c2"))
    (vote,) = votes_of({"ranking": [["B"], ["A", "C"]]}, item, order, **common)
    assert vote.ranking == (("c0",), ("c2", "c1"))
    (vote,) = votes_of(
        {"likert": {"honesty": {"A": 5, "B": 1, "C": 3}}}, Item("likert", item.completions), order, **common
    )
    assert vote.likert == {"c2": 5, "c0": 1, "c1": 3}
    assert vote.criterion == "honesty"
    for bad in ({"ranking": [["A"]]}, {"ranking": [["A"], ["A", "B", "C"]]}, {"ranking": "ABC"}):
        with pytest.raises(AnswerError):
            votes_of(bad, item, order, **common)


def test_undo_brings_the_item_back_and_skip_gives_it_away(tmp_path):
    session = project(tmp_path, tasks(3), overlap=1)
    ann, ben = person(session, "ann"), person(session, "ben")
    item = session.next(ann)
    session.answer(ann, {"assignment": item["assignment"], "answer": {"choice": "A"}, "seconds": 1})
    assert session.undo(ann)
    again = session.next(ann)
    assert again["assignment"] == item["assignment"]
    session.skip(ann, {"assignment": again["assignment"], "comment": "cannot judge"})
    seen = []
    while not (other := session.next(ben))["done"]:
        seen.append(other["prompt"])
        session.answer(ben, {"assignment": other["assignment"], "answer": {"choice": "B"}, "seconds": 1})
    assert item["prompt"] in seen
    assert not session.undo(person(session, "cy"))


def test_gold_items_are_mixed_in_marked_and_given_to_everybody(tmp_path):
    gold = [
        replace(r, prompt_id=f"g{i}", prompt=f"gold {i}", meta={"gold": "c0"}) for i, r in enumerate(tasks(5))
    ]
    session = project(tmp_path, [*tasks(20), *gold], overlap=1, gold_share=0.3)
    rng = random.Random(0)
    people = [person(session, n) for n in ("ann", "ben", "cy")]
    for who in people * 40:
        work(session, who, rng, limit=1)
    votes = [v for r in session.results() for v in r.votes if r.meta.get("gold")]
    assert all(v.gold for v in votes)
    assert Counter(v.annotator for v in votes) == {"ann": 5, "ben": 5, "cy": 5}
    assert not any(v.gold for r in session.results() for v in r.votes if not r.meta.get("gold"))


def test_calibration_items_come_first_and_go_to_everybody(tmp_path):
    shared_items = [replace(r, meta={"session": "calibration"}) for r in tasks(3)]
    session = project(tmp_path, [*tasks(10)[3:], *shared_items], overlap=1)
    prompts = {r.prompt for r in shared_items}
    for name in ("ann", "ben"):
        who = person(session, name)
        for _ in range(3):
            item = session.next(who)
            assert item["prompt"] in prompts
            session.answer(who, {"assignment": item["assignment"], "answer": {"choice": "A"}, "seconds": 1})


def test_an_item_held_too_long_goes_to_somebody_else(tmp_path):
    session = project(tmp_path, tasks(1), overlap=1, lease_hours=0.0)
    ann, ben = person(session, "ann"), person(session, "ben")
    held = session.next(ann)
    time.sleep(0.01)
    assert session.next(ben)["prompt"] == held["prompt"]
    with pytest.raises(Gone):
        session.answer(ann, {"assignment": held["assignment"], "answer": {"choice": "A"}, "seconds": 1})


def test_another_plan_is_refused(tmp_path):
    project(tmp_path, overlap=2)
    with pytest.raises(RecordError, match="overlap"):
        project(tmp_path, overlap=3)
