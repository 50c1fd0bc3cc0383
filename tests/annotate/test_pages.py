"""The desk in a real Chromium: keys alone, drag with mouse and finger, double clicks, a phone, guidelines."""

import pytest
from desk import begin, only_vote, press, progress, ready, slots, texts_of
from projects import project, tasks

from rlhf.records import Comparison, Completion

pytestmark = pytest.mark.slow


def test_a_ranking_by_keys_alone(page, serve, tmp_path):
    session = project(tmp_path, tasks(1, k=3), form="ranking", overlap=1)
    text = begin(page, serve, session)
    press(page, "a", "c", "Backspace", "3", "=", "b")
    assert page.locator(".ladder").inner_text().split() == ["A", ">", "C", "=", "B"]
    press(page, "Enter")
    progress(page, "1 of 1")
    ids = texts_of(session)
    ranked = [sorted(ids[i] for i in group) for group in only_vote(session).ranking]
    assert ranked == [[text["A"]], sorted([text["B"], text["C"]])]


def test_ratings_by_keys_alone_with_the_row_marked_and_send_closed_till_the_end(page, serve, tmp_path):
    session = project(tmp_path, tasks(1), form="likert", overlap=1, criteria=("helpfulness", "honesty"))
    text = begin(page, serve, session)
    send = page.get_by_role("button", name="Send")
    closed = send.evaluate("e => [e.disabled, getComputedStyle(e).backgroundColor]")
    for given, key in enumerate("4321"):
        marked = page.locator("fieldset").evaluate_all(
            "rows => rows.map(r => getComputedStyle(r).outlineStyle !== 'none')"
        )
        assert marked == [row == given for row in range(4)], "exactly the row that the next number rates is marked"
        press(page, key)
    opened = send.evaluate("e => [e.disabled, getComputedStyle(e).backgroundColor]")
    assert closed[0]
    assert not opened[0]
    assert closed[1] != opened[1], "a closed button looks closed"
    press(page, "Enter")
    progress(page, "1 of 1")
    ids = texts_of(session)
    (record,) = session.results()
    said = {v.criterion: {ids[i]: r for i, r in v.likert.items()} for v in record.votes}
    assert said == {
        "helpfulness": {text["A"]: 4, text["B"]: 2}, "honesty": {text["A"]: 3, text["B"]: 1}
    }  # fmt: skip


def test_a_double_click_is_one_vote_and_a_held_key_too(page, serve, tmp_path):
    session = project(tmp_path, tasks(4), overlap=1)
    begin(page, serve, session)
    page.evaluate(
        """() => {  // the second click comes when the next item is there
            const first = () => document.querySelector('.vote').click();
            const watch = new MutationObserver(() => setTimeout(first, 100));
            watch.observe(document.querySelector('#progress'), {childList: true});
            first();
        }"""
    )
    progress(page, "1 of 4")
    page.wait_for_timeout(400)
    progress(page, "1 of 4")
    page.reload()
    page.wait_for_selector(".answer")
    ready(page)
    page.keyboard.down("2")
    page.keyboard.down("2")  # a repeat
    page.keyboard.up("2")
    progress(page, "2 of 4")
    page.get_by_role("button", name="Skip").dblclick()
    progress(page, "2 of 3")
    assert session.store.progress() == {"done": 2, "skipped": 1, "open": 1}


@pytest.mark.parametrize("by", [".chip", ".answer"])
def test_a_drag_reaches_every_place_the_last_too(page, serve, tmp_path, by):
    session = project(tmp_path, tasks(1, k=3), form="ranking", overlap=1)
    text = begin(page, serve, session)

    def drag(slot, onto):
        grip = " h2" if by == ".answer" else ""
        start, end = (page.locator(f"{by}[data-slot={s}]{grip}").bounding_box() for s in (slot, onto))
        page.mouse.move(start["x"] + 12, start["y"] + 12)
        page.mouse.down()
        page.mouse.move(end["x"] + 10, end["y"] + 10, steps=4)
        page.mouse.up()

    order = page.locator(".ladder")
    drag("A", "C")
    assert order.inner_text().split() == ["B", ">", "C", ">", "A"]
    drag("A", "B")
    assert order.inner_text().split() == ["A", ">", "B", ">", "C"]
    drag("A", "B")
    assert order.inner_text().split() == ["B", ">", "A", ">", "C"]
    if by == ".answer":
        assert slots(page) == ["B", "A", "C"], "what was dragged stands where it was put"
    page.wait_for_timeout(60)
    order.get_by_role("button", name="A is better than C: tie them").click()
    press(page, "Enter")
    progress(page, "1 of 1")
    ids = texts_of(session)
    ranked = [{ids[i] for i in group} for group in only_vote(session).ranking]
    assert ranked == [{text["B"]}, {text["A"], text["C"]}]


def test_a_finger_drags_too_and_scrolls_elsewhere(phone, serve, tmp_path):
    session = project(tmp_path, tasks(1, k=4), form="ranking", overlap=1)
    begin(phone, serve, session)
    touch = phone.context.new_cdp_session(phone)

    def drag(start, end):
        between = [[s + (e - s) * k / 5 for s, e in zip(start, end, strict=True)] for k in range(6)]
        steps = [{"x": x, "y": y} for x, y in between]
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": steps[:1]})
        for step in steps[1:]:
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [step]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def middle(selector):
        box = phone.locator(selector).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    drag(middle(".chip[data-slot=A]"), middle(".chip[data-slot=D]"))
    assert phone.locator(".ladder").inner_text().split() == ["B", ">", "C", ">", "D", ">", "A"]


def test_on_a_phone_both_answers_come_first_and_the_buttons_stay_in_sight(phone, serve, tmp_path):
    long = [Comparison("p", "why?", tuple(Completion(f"c{k}", f"{k} because " * 900) for k in range(2)))]
    session = project(tmp_path, long, overlap=1)
    begin(phone, serve, session)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    a, b = (phone.locator(f".answer[data-slot={s}]").bounding_box() for s in "AB")
    assert a["y"] + a["height"] <= b["y"]
    for _ in range(2):
        buttons = [phone.get_by_role("button", name=n).bounding_box() for n in ("A is better", "Tie", "B is better")]
        assert all(x["y"] > 0 and x["y"] + x["height"] <= 844 and x["height"] >= 44 for x in buttons)
        assert len({x["y"] for x in buttons}) == 1, "one row: A, tie, B"
        assert [x["x"] for x in buttons] == sorted(x["x"] for x in buttons)
        phone.evaluate("scrollTo(0, 1e6)")
    last = phone.locator(".answer[data-slot=B]").bounding_box()
    assert last["y"] + last["height"] <= buttons[0]["y"], "nothing stays hidden below the buttons"


def test_guidelines_and_their_examples_stand_beside_the_task(page, serve, tmp_path):
    begin(page, serve, project(tmp_path))
    example = page.locator("#guidelines blockquote p")
    assert example.all_text_contents()[1] == "A: Lima."
    assert page.locator("#guidelines li").count() >= 5
    assert page.locator("aside").bounding_box()["x"] > page.locator("#work").bounding_box()["x"] + 400
    press(page, "g")
    assert not example.first.is_visible()


def test_graded_choices_by_keys_and_on_a_phone(phone, serve, tmp_path):
    session = project(tmp_path, tasks(1), overlap=1, strengths=("slightly better", "much better"))
    text = begin(phone, serve, session)
    buttons = phone.locator(".vote")
    assert [b.split("\n")[0] for b in buttons.all_inner_texts()] == [
        "A much better", "A slightly better", "Tie", "B slightly better", "B much better"
    ]  # fmt: skip
    boxes = [buttons.nth(k).bounding_box() for k in range(5)]
    assert all(b["height"] >= 44 and b["y"] + b["height"] <= 844 for b in boxes)
    assert boxes[0]["y"] == boxes[4]["y"] < boxes[1]["y"] == boxes[3]["y"] < boxes[2]["y"]
    press(phone, "5")
    progress(phone, "1 of 1")
    vote, ids = only_vote(session), texts_of(session)
    assert (ids[vote.choice], vote.margin) == (text["B"], 2.0)


CHAT = (
    *({"role": ("user", "assistant")[k % 2], "content": f"turn {k}: " + "words " * 120} for k in range(8)),
    {"role": "user", "content": "What is the **last** question?"},
)


@pytest.mark.parametrize("kind", ["page", "phone"])
def test_the_last_turn_of_the_user_is_always_in_sight_and_earlier_ones_fold(request, kind, serve, tmp_path):
    page = request.getfixturevalue(kind)
    long = [Comparison("p", CHAT, tuple(Completion(f"c{k}", f"{k} because\n\n" * 200) for k in range(2)))]
    begin(page, serve, project(tmp_path, long, overlap=1))
    last, height = page.get_by_text("What is the last question?"), page.viewport_size["height"]
    earlier = page.get_by_text("turn 0:")
    assert not earlier.is_visible()
    for place in (0, 2000, 1e6):
        page.evaluate(f"scrollTo(0, {place})")
        box = last.bounding_box()
        assert box["y"] > 0
        assert box["y"] + box["height"] < height / 2
        head = page.locator(".answer[data-slot=B] h2").bounding_box()
        assert not (box["y"] < head["y"] < box["y"] + box["height"]), "the letter of an answer lies below the prompt"
    page.get_by_text("8 earlier turns").click()
    assert earlier.is_visible()
    ends = [
        page.locator(at).evaluate("e => e.getBoundingClientRect().bottom")
        for at in ("#prompt", "#prompt > .turn:last-child")
    ]
    assert ends[1] <= ends[0] + 1, "the last turn stays in sight beside the earlier ones"
    assert page.locator("#asked").bounding_box()["height"] < height / 2


def test_texts_are_rendered_and_raw_on_a_key(page, serve, tmp_path):
    text = "**bold** and $x^2$\n\n| a |\n| - |\n| 1 |\n\n<script>document.title = 'owned'</script>"
    begin(page, serve, project(tmp_path, [Comparison("p", text, (Completion("a", text), Completion("b", "no")))]))
    prompt = page.locator("#prompt .text")
    assert prompt.locator("strong, math, table").count() == 3
    press(page, "r")
    assert prompt.text_content() == text
    assert prompt.locator("*").count() == 0
    assert page.locator("#raw").get_attribute("aria-pressed") == "true"
    press(page, "r")
    assert prompt.locator("strong").count() == 1
    assert page.title() == "Annotation"


def test_everything_that_can_be_pressed_has_a_name_and_the_keyboard_reaches_it(page, serve, tmp_path):
    begin(page, serve, project(tmp_path, tasks(1), strengths=("slightly better", "much better")))
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, summary, [role=region], progress')]
            .filter((e) => !(e.ariaLabel ?? e.textContent).trim()).map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.innerText?.split('\\n')[0] ?? ''"))
    assert {"A much better", "Tie", "B much better", "Undo", "Skip", "Flag", "Note", "Raw"} <= {
        r.strip() for r in reached
    }
