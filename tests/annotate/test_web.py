"""An annotation project on the web: links and sizes, many people at once, a kill -9 in between, a real browser."""

import json
import random
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from fastapi.testclient import TestClient
from projects import project, some_answer, tasks

from rlhf.annotate.report import ReportOptions
from rlhf.annotate.web import app
from rlhf.records import Comparison, Completion, read, write

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


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


def start_server(root, tmp_path, port, *more):
    names = ",".join(f"w{i:02d}" for i in range(20))
    command = [
        sys.executable, "annotate.py", "annotator=web", f"tasks={tmp_path}/tasks.jsonl", f"out={tmp_path}/votes.jsonl",
        f"annotator.people=[{names}]", f"annotator.port={port}", "annotator.overlap=3", "report.samples=20", *more,
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
    process, links = start_server(root, tmp_path, unused_port, "annotator.pause=0")
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
                    body = {"assignment": item["assignment"], "answer": some_answer(item, rng), "seconds": 0.1}
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
    process, again = start_server(root, tmp_path, unused_port, "annotator.pause=0")
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
        expect(page.locator("main")).to_have_attribute("aria-busy", "false")
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
            expect(page.locator("main")).to_have_attribute("aria-busy", "false")
        page.keyboard.press("s")
        expect(page.locator("#progress")).to_have_text("3 of 4")
        expect(page.locator("main")).to_have_attribute("aria-busy", "false")
        page.get_by_role("button", name="Tie").click()
        expect(page.locator("#end")).to_be_visible()
        page.goto(links["w00"] + "x")
        expect(page.locator("#problem")).to_have_text("This link is not known; ask for a new one.")
        page.goto(links["admin"])
        expect(page.locator("#progress")).to_contain_text("4 answers")
        browser.close()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    votes = [v for r in read(tmp_path / "votes.jsonl") for v in r.votes]
    assert len(votes) == 4
    assert [v.choice == "tie" for v in votes].count(True) == 2
    assert all(v.kind == "human" and v.seconds >= 0 for v in votes)
