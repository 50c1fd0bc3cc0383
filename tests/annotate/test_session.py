"""The queue of an annotation project: overlap, blinding, retries, undo, gold and calibration items."""

import json
import random
import time
from collections import Counter
from dataclasses import replace

import pytest
from projects import person, project, tasks, work

from rlhf.annotate.items import AnswerError, Item, Questions, votes_of
from rlhf.annotate.report import ReportOptions, disputed, report
from rlhf.annotate.session import Gone, TooSoon
from rlhf.labels.dawid_skene import adjudicated
from rlhf.labels.vote_table import collect
from rlhf.records import RecordError, Vote, read, write


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
        {k: v for k, v in item.items() if k not in ("prompt", "slots")} | {"slots": [s["slot"] for s in item["slots"]]}
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


@pytest.mark.parametrize("answer", [None, {}, {"choice": "C"}, {"choice": "c0"}, {"ranking": [["A"], ["B"]]}, "A"])
def test_answers_that_do_not_fit_are_refused_and_the_item_stays(tmp_path, answer):
    session = project(tmp_path)
    ann = person(session, "ann")
    item = session.next(ann)
    with pytest.raises(AnswerError):
        session.answer(ann, {"assignment": item["assignment"], "answer": answer, "seconds": 1})
    assert session.next(ann)["assignment"] == item["assignment"]


def test_ranking_and_likert_answers_become_votes():
    order = ["c2", "c0", "c1"]
    common = {"annotator": "a", "seconds": 1.0, "asked": Questions(criteria=["honesty"])}
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
    session.skip(ann, {"assignment": again["assignment"], "comment": "cannot decide"})
    seen = []
    while not (other := session.next(ben))["done"]:
        seen.append(other["prompt"])
        session.answer(ben, {"assignment": other["assignment"], "answer": {"choice": "B"}, "seconds": 1})
    assert item["prompt"] in seen
    assert not session.undo(person(session, "cy"))


def test_gold_items_are_mixed_in_marked_and_given_to_everybody(tmp_path):
    gold = [replace(r, prompt_id=f"g{i}", prompt=f"gold {i}", meta={"gold": "c0"}) for i, r in enumerate(tasks(5))]
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


def test_a_skip_is_not_taken_back_when_its_item_went_to_somebody_else(tmp_path):
    session = project(tmp_path, tasks(1), overlap=1)
    ann, ben = person(session, "ann"), person(session, "ben")
    session.skip(ann, {"assignment": session.next(ann)["assignment"]})
    assert session.undo(ann), "nobody has it yet"
    session.skip(ann, {"assignment": session.next(ann)["assignment"]})
    held = session.next(ben)
    assert not session.undo(ann), "a second person would be one too many"
    session.answer(ben, {"assignment": held["assignment"], "answer": {"choice": "A"}, "seconds": 1})
    assert not session.undo(ann)
    assert session.undo(ben), "an answer is its own place"


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told: `clock.append(clock[-1] + seconds)`."""
    times = [1e9]
    monkeypatch.setattr("time.time", lambda: times[-1])
    return times


def test_items_left_open_return_to_the_pool_and_get_exactly_their_people(tmp_path, clock):
    session = project(tmp_path, tasks(6), overlap=2, lease_hours=1.0)
    rng = random.Random(0)
    gone = [person(session, f"gone{i}") for i in range(3)]
    held = [session.next(who) for who in gone]
    for who in [person(session, f"w{i}") for i in range(4)] * 12:
        item = session.next(who)
        clock.append(clock[-1] + (600 if rng.random() < 0.8 else 7200))  # some come back late
        if not item["done"]:
            answer = {"assignment": item["assignment"], "answer": {"choice": "A"}, "seconds": 1}
            session.answer(who, answer)
    for who, item in zip(gone, held, strict=True):
        with pytest.raises(Gone):
            session.answer(who, {"assignment": item["assignment"], "answer": {"choice": "A"}, "seconds": 1})
    assert [len(r.votes) for r in session.results()] == [2] * 6
    assert all(len({v.annotator for v in r.votes}) == 2 for r in session.results())
    assert session.store.progress()["expired"] >= 3


def test_the_second_of_two_answers_at_once_is_refused_and_its_item_stays(tmp_path, clock):
    session = project(tmp_path, tasks(3), overlap=1, pause=0.3)
    ann = person(session, "ann")
    first = {"assignment": session.next(ann)["assignment"], "answer": {"choice": "A"}, "seconds": 1}
    session.answer(ann, first)
    session.answer(ann, first)  # a retry of the same answer is none
    second = first | {"assignment": session.next(ann)["assignment"]}
    with pytest.raises(TooSoon):
        session.answer(ann, second)
    with pytest.raises(TooSoon):
        session.skip(ann, second)
    assert session.store.progress() == {"done": 1, "open": 1}
    clock.append(clock[-1] + 0.4)
    session.answer(ann, second)
    assert session.store.progress() == {"done": 2}


def test_a_calibration_session_has_its_own_report(tmp_path):
    meta = {"session": "calibration"}
    session = project(tmp_path, [replace(r, meta=meta) for r in tasks(5)] + tasks(40)[5:], overlap=2)
    for name in ("ann", "ben", "cy"):
        who = person(session, name)
        for number in range(8):
            item = session.next(who)
            record = next(r for r in tasks(40) if r.prompt == item["prompt"])
            best = next(s["slot"] for s in item["slots"] if s["text"] == record.completions[0].text)
            other = "AB".replace(best, "")
            choice = other if number == 4 and name == "cy" else best
            session.answer(who, {"assignment": item["assignment"], "answer": {"choice": choice}, "seconds": 1})
    numbers = report(collect(session.results()), ReportOptions(samples=20))
    assert numbers["calibration/kappa/fleiss/n_units"] == 5
    assert numbers["calibration/percent"] == pytest.approx((4 + 1 / 3) / 5), "one of five items is 2 against 1"


def test_disputed_records_go_to_experts_who_have_not_voted_and_come_back_merged(tmp_path):
    disputed_one = replace(
        tasks(1)[0],
        votes=tuple(Vote(n, pair=("c0", "c1"), choice=c) for n, c in (("ann", "c0"), ("ben", "c1"), ("cy", "tie"))),
    )
    clear = replace(tasks(2)[1], votes=(Vote("ann", pair=("c0", "c1"), choice="c0"),))
    assert write(tmp_path / "adjudicate.jsonl", disputed([disputed_one, clear], 0.6)) == 1
    session = project(tmp_path, list(read(tmp_path / "adjudicate.jsonl")), overlap=2)
    assert session.next(person(session, "ben"))["done"], "who has voted is not asked again"
    assert [p["name"] for p in session.people()] == []
    for name in ("expert1", "expert2"):
        who = person(session, name)
        item = session.next(who)
        slot = next(s["slot"] for s in item["slots"] if s["text"] == disputed_one.completions[1].text)
        session.answer(who, {"assignment": item["assignment"], "answer": {"choice": slot}, "seconds": 3})
    write(tmp_path / "merged.jsonl", session.results())
    (merged,) = read(tmp_path / "merged.jsonl")
    assert merged.votes[:3] == disputed_one.votes, "raw votes stay"
    assert [(v.annotator, v.choice) for v in merged.votes[3:]] == [("expert1", "c1"), ("expert2", "c1")]
    assert adjudicated(merged, experts=("expert1", "expert2")).win_prob[1, 0] == 1


def test_flags_and_notes_are_listed_newest_first(tmp_path):
    session = project(tmp_path, tasks(4), overlap=1)
    ann = person(session, "ann")
    said = [(True, ""), (False, ""), (False, 'a "quoted" note'), (True, "skipped")]
    for flagged, comment in said:
        body = {"assignment": session.next(ann)["assignment"], "flagged": flagged, "comment": comment}
        if comment == "skipped":
            session.skip(ann, body)
        else:
            session.answer(ann, body | {"answer": {"choice": "A"}, "seconds": 1})
    found = [(n["skipped"], n["flagged"], n["comment"]) for n in session.notes()]
    assert found == [(True, True, "skipped"), (False, False, 'a "quoted" note'), (False, True, "")]


GRADED = Questions(strengths=("slightly better", "much better"))


@pytest.mark.parametrize(
    ("answer", "choice", "margin"),
    [
        ({"choice": "A", "strength": 2}, "y", 2.0),
        ({"choice": "B", "strength": 1}, "x", 1.0),
        ({"choice": "tie"}, "tie", 0.0),
    ],
)
def test_a_graded_choice_is_kept_as_the_votes_margin(answer, choice, margin):
    item = Item("pair", ("x", "y"))
    (vote,) = votes_of(answer, item, ["y", "x"], GRADED, annotator="ann", seconds=1.0)
    assert (vote.pair, vote.choice, vote.margin) == (("x", "y"), choice, margin)


@pytest.mark.parametrize("strength", [None, 0, 3, 1.0, True, "1"])
def test_a_graded_choice_without_a_fitting_strength_is_refused(strength):
    with pytest.raises(AnswerError, match="1 to 2 \\(slightly better, much better\\)"):
        votes_of({"choice": "A", "strength": strength}, Item("pair", ("x", "y")), ["x", "y"], GRADED,
                 annotator="ann", seconds=1.0)  # fmt: skip


@pytest.mark.parametrize("wrong", [{"form": "ranking", "strengths": ("a", "b")}, {"strengths": ("a", "a")},
                                   {"strengths": tuple("abcde")}])  # fmt: skip
def test_strengths_that_cannot_be_asked_are_refused(wrong):
    with pytest.raises(RecordError, match="strengths"):
        Questions(**wrong)


def test_a_project_that_began_before_there_were_strengths_goes_on(tmp_path):
    session = project(tmp_path)
    plan = {k: v for k, v in session.store.setting("plan", {}).items() if k != "strengths"}
    with session.store.engine.begin() as db:
        db.exec_driver_sql("update about set value = ? where key = 'plan'", (json.dumps(plan),))
    project(tmp_path)
    with pytest.raises(RecordError, match="differs from the plan"):
        project(tmp_path, strengths=("a", "b"))
