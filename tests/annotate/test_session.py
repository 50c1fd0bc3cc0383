"""An annotation project: overlap, blinding, retries, undo, many people at once and a kill -9 in between."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import httpx
import pytest
from fastapi.testclient import TestClient

from rlhf.annotate.items import AnswerError, Item, votes_of
from rlhf.annotate.report import ReportOptions
from rlhf.annotate.session import Gone, Plan, Session
from rlhf.annotate.store import Store
from rlhf.annotate.web import app
from rlhf.data.toy import ToyWorld
from rlhf.record_types import Comparison, Completion, RecordError
from rlhf.records import read, write

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def tasks(size=10, k=2):
    return [replace(r, votes=()) for r in ToyWorld(size=size, min_completions=k, max_completions=k).records()]


def project(tmp_path, records=None, **plan):
    plan = {"gold_share": 0.0} | plan
    session = Session(Store(f"sqlite:///{tmp_path}/p.db"), Plan(**plan))
    session.load(tasks() if records is None else records)
    return session


def person(session, name):
    return session.store.person(session.store.link(name))


def some_answer(item, rng):
    slots = [s["slot"] for s in item["slots"]]
    if item["form"] == "pair":
        return {"choice": rng.choice([*slots, "tie"])}
    if item["form"] == "ranking":
        rng.shuffle(slots)
        return {"ranking": [[s] for s in slots]}
    return {"likert": {c: {s: rng.randint(1, 5) for s in slots} for c in item["criteria"]}}


def work(session, who, rng, limit=10_000):
    for done in range(limit):
        item = session.next(who)
        if item["done"]:
            return done
        session.answer(
            who, {"assignment": item["assignment"], "answer": some_answer(item, rng), "seconds": 1}
        )
    return limit


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


def test_the_web_interface_checks_links_and_sizes(tmp_path):
    session = project(tmp_path)
    client = TestClient(app(session, guidelines="# Hi", options=ReportOptions(samples=20)))
    token, admin = session.store.link("ann"), session.store.link("admin", admin=True)
    assert client.get("/api/nobody/next").status_code == 403
    assert client.get(f"/api/admin/{token}").status_code == 403
    reply = client.get(f"/api/{token}/next")
    assert "script-src 'self'" in reply.headers["content-security-policy"]
    body = {"assignment": reply.json()["assignment"], "answer": {"choice": "Z"}, "seconds": 1}
    assert client.post(f"/api/{token}/answer", json=body).status_code == 422
    assert client.post(f"/api/{token}/answer", json=body | {"comment": "x" * 200_000}).status_code == 413
    assert client.post(f"/api/{token}/answer", json=body | {"answer": {"choice": "A"}}).json() == {"ok": True}
    assert client.get(f"/api/admin/{admin}").json()["progress"]["done"] == 1
    lines = client.get(f"/api/admin/{admin}/export.jsonl").text.splitlines()
    assert sum(len(json.loads(line)["votes"]) for line in lines) == 1


def start_server(root, tmp_path, port):
    names = ",".join(f"w{i:02d}" for i in range(20))
    command = [
        sys.executable, "annotate.py", "annotator=web", f"tasks={tmp_path}/tasks.jsonl", f"out={tmp_path}/votes.jsonl",
        f"annotator.people=[{names}]", f"annotator.port={port}", "annotator.overlap=3", "report.samples=20",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    links = {}
    while "admin" not in links:
        line = process.stdout.readline()
        assert line, "the server ended"
        name, _, link = line.strip().partition(": ")
        links[name] = link
    for _ in range(200):
        try:
            httpx.get(links["admin"])
            return process, links
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the server does not answer")


@pytest.mark.slow
def test_twenty_people_at_once_and_a_kill_lose_double_and_over_assign_nothing(root, tmp_path, unused_port):
    write(tmp_path / "tasks.jsonl", tasks(60))
    process, links = start_server(root, tmp_path, unused_port)
    accepted, stop = [], threading.Event()

    def annotate(name):
        rng = random.Random(name)
        api = links[name].replace("/a/", "/api/")
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                try:
                    item = client.get(f"{api}/next").json()
                    if item["done"]:
                        return
                    body = {
                        "assignment": item["assignment"],
                        "answer": some_answer(item, rng),
                        "seconds": 0.1,
                    }
                    if client.post(f"{api}/answer", json=body).status_code == 200:
                        accepted.append((name, item["prompt"], item["assignment"]))
                except httpx.TransportError:
                    time.sleep(0.05)

    threads = [threading.Thread(target=annotate, args=(n,)) for n in links if n != "admin"]
    for thread in threads:
        thread.start()
    while len(accepted) < 60 and any(t.is_alive() for t in threads):
        time.sleep(0.01)
    process.kill()  # SIGKILL: no goodbye
    process.wait()
    process, again = start_server(root, tmp_path, unused_port)
    assert again == links
    for thread in threads:
        thread.join(120)
    stop.set()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    records = list(read(tmp_path / "votes.jsonl"))
    votes = [(v.annotator, r.prompt) for r in records for v in r.votes]
    assert len(votes) == len(set(votes)) == 180, "nothing doubled, every item exactly its three people"
    assert {(name, prompt) for name, prompt, _ in accepted} <= set(votes), "nothing accepted was lost"
    assert len({a for _, _, a in accepted}) == len(accepted)
    assert all(len(r.votes) == 3 for r in records)


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


CHROMIUM = "/usr/bin/chromium"


@pytest.mark.slow
def test_in_a_real_browser_with_texts_that_attack_the_page(root, tmp_path, unused_port):
    import os

    if not os.path.exists(CHROMIUM):
        pytest.skip(f"needs {CHROMIUM}")
    from playwright.sync_api import expect, sync_playwright

    evil = Comparison("p", EVIL, (Completion("x", EVIL), Completion("y", "harmless")))
    write(tmp_path / "tasks.jsonl", [evil, *tasks(4)])
    process, links = start_server(root, tmp_path, unused_port)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(links["w00"])
        expect(page.locator(".answer")).to_have_count(2)
        expect(page.locator("#prompt")).to_have_text(EVIL)
        assert page.title() == "Annotation", "a script in a model's text ran"
        assert page.locator("img").count() == 0
        width = page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 390, "the page is wider than a phone"
        for key, progress in (
            ("1", "1 of 5"),
            ("0", "2 of 5"),
            ("ArrowRight", "3 of 5"),
            ("u", "2 of 5"),
            ("2", "3 of 5"),
        ):
            page.keyboard.press(key)
            expect(page.locator("#progress")).to_have_text(progress)
        page.keyboard.press("s")
        expect(page.locator("#progress")).to_have_text("3 of 4")
        page.get_by_role("button", name="Tie").click()
        expect(page.locator("#end")).to_be_visible()
        page.goto(links["admin"])
        expect(page.locator("#progress")).to_contain_text("4 answers")
        browser.close()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    votes = [v for r in read(tmp_path / "votes.jsonl") for v in r.votes]
    assert len(votes) == 4
    assert [v.choice == "tie" for v in votes].count(True) == 2
    assert all(v.kind == "human" and v.seconds >= 0 for v in votes)
