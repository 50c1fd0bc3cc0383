"""Working at the desk in a browser: `page` is Playwright's."""

from playwright.sync_api import expect


def ready(page):
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")


def press(page, *keys):
    ready(page)
    for key in keys:
        page.keyboard.press(key)


def progress(page, text):
    expect(page.locator("#progress")).to_have_text(text)
    ready(page)


def begin(page, serve, session, name="ann"):
    page.goto(f"{serve(session)}/a/{session.store.link(name)}")
    page.wait_for_selector(".answer")
    ready(page)
    return {s: page.locator(f".answer[data-slot={s}] .text").text_content() for s in slots(page)}


def slots(page):
    return [box.get_attribute("data-slot") for box in page.locator(".answer").all()]


def only_vote(session):
    (vote,) = [v for r in session.results() for v in r.votes]
    return vote


def texts_of(session):
    (record,) = session.results()
    return {c.id: c.text for c in record.completions}
