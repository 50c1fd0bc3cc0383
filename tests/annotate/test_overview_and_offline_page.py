"""In a real Chromium: hostile texts on every page, the overview of a project, and the page without a server."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from desk import begin, press, progress, ready
from projects import person, project, tasks, work

from rlhf.annotate.items import Questions
from rlhf.annotate.offline_page import offline_page, votes_from_page
from rlhf.annotate.serve import GUIDELINES
from rlhf.records import Comparison, Completion, RecordError

HOSTILE = (
    "<script>document.title='owned'</script>", "<img src=x onerror=\"document.title='owned'\">",
    "[click](javascript:document.title='owned')", "</script></textarea><svg onload=\"document.title='owned'\">",
    "{{constructor.constructor('document.title=1')()}} \u202e \x00 ${document.title='owned'}",
)  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("form", ["pair", "ranking", "likert"])
def test_hostile_texts_stay_texts_on_every_page(page, serve, tmp_path, form):
    chat = tuple({"role": f"user{h}", "content": h} for h in HOSTILE)
    evil = Comparison("p", chat, tuple(Completion(f"c{k}", "\n".join(HOSTILE[k:])) for k in range(3)))
    session = project(tmp_path, [evil], form=form, overlap=1, criteria=(HOSTILE[1],))
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    shown = begin(page, serve, session)
    assert HOSTILE[2] in shown["A"]
    assert page.locator(".turn .text").all_text_contents() == [h.replace("\x00", "\ufffd") for h in HOSTILE]
    press(page, "r")
    assert page.locator(".turn .text").all_text_contents() == list(HOSTILE)
    press(page, "r")
    press(page, "f", "n")
    page.locator("#comment").fill(HOSTILE[1])
    page.keyboard.press("Escape")
    press(page, "s")
    ready(page)
    assert page.title() == "Annotation"
    page.goto(page.url.split("/a/")[0] + "/admin/" + session.store.link("admin", admin=True))
    page.wait_for_selector("#notes td")
    notes = page.locator("#notes").inner_text()
    assert HOSTILE[1] in notes
    assert "flagged, skipped" in notes
    file = tmp_path / "page.html"
    how = {"form": form, "criteria": (HOSTILE[1],), "scale": (1, 5), "seed": 0}
    file.write_text(offline_page([evil], Questions(**how), guidelines="\n".join(HOSTILE)), encoding="utf-8")
    page.goto(file.as_uri())
    page.wait_for_selector(".answer")
    assert page.title() == "Annotation, offline"
    assert page.locator("img, svg, a[href^=javascript]").count() == 0
    assert not errors


def test_the_overview_is_grouped_named_and_shows_flags_without_scrolling(page, phone, serve, tmp_path):
    shared = [
        replace(r, prompt_id=f"s{i}", prompt=f"s {r.prompt}", meta={"session": "calibration"})
        for i, r in enumerate(tasks(6))
    ]
    session = project(tmp_path, [*tasks(60), *shared], overlap=3)
    rng = random.Random(0)
    for name in ("ann", "ben"):
        work(session, person(session, name), rng)
    dora = person(session, "dora")
    while not (item := session.next(dora))["done"]:
        session.answer(dora, {"assignment": item["assignment"], "answer": {"choice": "A"}, "seconds": 1})
    session.store.link("eve")
    url = f"{serve(session)}/admin/{session.store.link('admin', admin=True)}"
    page.goto(url)
    page.wait_for_selector("#agreement td")
    people = page.locator("#annotators")
    assert people.locator("thead th").all_text_contents()[:2] == ["Annotator", "Flags"]
    badge = people.locator("tbody tr", has_text="dora").get_by_text("one side").bounding_box()
    assert badge["x"] + badge["width"] <= 1280
    assert people.evaluate("e => e.querySelector('.scroll').scrollWidth <= e.clientWidth")
    assert people.locator("tbody tr", has_text="eve").count() == 1, "who has not begun is listed"
    shown = page.locator("#agreement").inner_text()
    for label in ("Overall", "Calibration session", "By domain", "Pairs of annotators", "Fleiss' κ", "Mean of all"):
        assert label in shown
    assert "/" not in shown, "no raw keys"
    cell = page.locator("#agreement tbody td").first.inner_text()
    value, low, high = (float(x) for x in cell.replace("[", "").replace("]", "").replace(",", "").split())
    assert low <= value <= high
    assert page.locator("a button").count() == 0
    exported = downloaded(page, page.get_by_role("link", name="Export votes"))
    assert sum(len(r["votes"]) for r in exported) == session.store.progress()["done"]
    phone.goto(url)
    phone.wait_for_selector("#agreement td")
    assert phone.locator("#bar").bounding_box()["width"] > 340
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


FORMS = {
    # keys, and what the page's slots get by them
    "pair": (["2"], lambda vote, slot: slot[vote.choice], {"overall": "B"}),
    "ranking": (
        ["b", "=", "c", "a", "Enter"],
        lambda vote, slot: [sorted(slot[i] for i in group) for group in vote.ranking],
        {"overall": [["B", "C"], ["A"]]},
    ),
    "likert": (
        [*"512345", "Enter"],
        lambda vote, slot: {slot[i]: rating for i, rating in vote.likert.items()},
        {"helpfulness": {"A": 5, "B": 2, "C": 4}, "honesty": {"A": 1, "B": 3, "C": 5}},
    ),
}


def downloaded(page, button):
    with page.expect_download() as got:
        button.click()
    return [json.loads(line) for line in Path(got.value.path()).read_text(encoding="utf-8").splitlines()]


def opened(page, tmp_path, records, how):
    file = tmp_path / "page.html"
    file.write_text(offline_page(records, Questions(**how), guidelines=GUIDELINES), encoding="utf-8")
    page.goto(file.as_uri())
    page.wait_for_selector(".answer")
    return json.loads(page.locator("#data").text_content())["tasks"]


@pytest.mark.parametrize("form", list(FORMS))
def test_the_page_without_a_server_keeps_downloads_any_part_and_comes_back_as_votes(page, tmp_path, form):
    records = tasks(4, k=2 if form == "pair" else 3)
    how = {"form": form, "criteria": ("helpfulness", "honesty"), "scale": (1, 5), "seed": 3}
    asked = []
    page.on("request", lambda request: asked.append(request.url.split(":")[0]))
    shown = opened(page, tmp_path, records, how)
    keys, said, expected = FORMS[form]
    download = page.get_by_role("button", name="Download")
    press(page, *keys)
    progress(page, "1 of 4")
    download.click()
    assert "name" in page.locator("#problem").inner_text(), "a file without a name would mix people up"
    page.get_by_label("your name").fill("Ann Ö")
    first = downloaded(page, download)
    assert len(first) == 1
    page.locator("#question").click()
    for key, count in ((keys, 2), (["u"], 1), (["s"], 2), (keys, 3)):
        press(page, *key)
        progress(page, f"{count} of 4")
    page.reload()  # a closed tab loses nothing
    progress(page, "3 of 4")
    press(page, *keys)
    page.wait_for_selector("#end:not([hidden])")
    second = downloaded(page, download)
    assert set(asked) <= {"file", "blob"}, "no network"
    with pytest.raises(RecordError, match="another page"):
        list(votes_from_page(records, first, Questions(**how | {"seed": 4})))  # the sides would be others
    voted = list(votes_from_page(records, [*second, *first], Questions(**how)))
    assert [len(r.votes) for r in voted] == [len(expected) * n for n in (1, 0, 1, 1)], (
        "what both files have counts once, a skipped task not at all"
    )
    for record, task in zip(voted, shown, strict=True):
        slots = {s["text"]: s["slot"] for s in task["slots"]}
        slot = {c.id: slots[c.text] for c in record.completions}
        assert {v.criterion: said(v, slot) for v in record.votes} in (expected, {})
        assert {v.annotator for v in record.votes} <= {"Ann Ö"}


def test_pages_of_other_tasks_or_forms_do_not_share_answers(page, tmp_path):
    how = {"criteria": ("honesty",), "scale": (1, 5), "seed": 0}
    opened(page, tmp_path, tasks(4), {"form": "pair", **how})
    press(page, "1")
    progress(page, "1 of 4")
    opened(page, tmp_path, tasks(4), {"form": "ranking", **how})
    progress(page, "0 of 4")
    opened(page, tmp_path, tasks(4), {"form": "pair", **how})
    progress(page, "1 of 4")


@pytest.mark.parametrize(("form", "key"), [("pair", "ebe3341c00a4b3d3"), ("likert", "a207a7553609b8a0")])
def test_a_page_that_was_mailed_before_texts_were_rendered_is_still_read(form, key):
    pair = Completion("a", "x"), Completion("b", "y")
    chat = ({"role": "system", "content": "s"}, {"role": "user", "content": "**q**"})
    page = offline_page(
        [Comparison("p", chat, pair), Comparison("q", "plain", pair)], Questions(form=form), guidelines=""
    )
    assert f'"key": "{key}"' in page
