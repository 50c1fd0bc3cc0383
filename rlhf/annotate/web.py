"""The web app of an annotation project: a JSON interface and static pages (FastAPI, extra `annotate`).

A link is a secret token and the only login. Model texts are data: the pages put them in place as text, never as markup,
and the content security policy forbids scripts that are not ours.
"""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse

from rlhf.annotate.items import AnswerError
from rlhf.annotate.page import PAGE, html
from rlhf.annotate.report import ReportOptions, annotator_rows, report
from rlhf.annotate.session import Gone, Session, TooSoon
from rlhf.annotate.store import Person
from rlhf.labels.vote_table import collect
from rlhf.records import dump

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
LONGEST = 100_000  # bytes of an answer, at most


def app(session: Session, *, guidelines: str, options: ReportOptions) -> FastAPI:
    """The app of a project.

    Args:
        session: the project.
        guidelines: text shown beside the task: lines, `# ` headings, `- ` points, `> ` examples.
        options: of the report on the admin page.
    """
    web = FastAPI(title="annotation", docs_url=None, redoc_url=None, openapi_url=None)
    web.middleware("http")(_headers)
    for refusal, status in ((AnswerError, 422), (Gone, 409), (TooSoon, 409)):
        web.exception_handler(refusal)(partial(_refused, status))
    _pages(web)
    _tasks(web, session, guidelines)
    _admin(web, session, options)
    return web


def _refused(status: int, request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status)


async def _headers(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    if int(request.headers.get("content-length") or 0) > LONGEST:
        return PlainTextResponse("the answer is too long", 413)
    response = await go_on(request)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


def _pages(web: FastAPI) -> None:
    @web.get("/favicon.ico")
    def icon() -> Response:
        return Response(status_code=204)

    @web.get("/a/{token}")
    def task_page(token: str) -> HTMLResponse:
        return HTMLResponse(html("task.html"))

    @web.get("/admin/{token}")
    def admin_page(token: str) -> HTMLResponse:
        return HTMLResponse(html("admin.html"))

    @web.get("/page/{name}")
    def part(name: str) -> FileResponse:
        known = {p.name: p for p in PAGE.iterdir() if p.suffix in (".css", ".js")}
        if name not in known:
            raise HTTPException(404, "no such page")
        return FileResponse(known[name])


def _tasks(web: FastAPI, session: Session, guidelines: str) -> None:
    def who(token: str) -> Person:
        person = session.store.person(token)
        if person is None:
            raise HTTPException(403, "this link is not known; ask for a new one")
        return person

    @web.get("/api/{token}/next")
    def next_item(token: str) -> dict[str, Any]:
        person = who(token)
        return {"name": person.name, "guidelines": guidelines, **session.next(person)}

    @web.post("/api/{token}/answer")
    def answer(token: str, body: dict[str, Any]) -> dict[str, Any]:
        session.answer(who(token), body)
        return {"ok": True}

    @web.post("/api/{token}/skip")
    def skip(token: str, body: dict[str, Any]) -> dict[str, Any]:
        session.skip(who(token), body)
        return {"ok": True}

    @web.post("/api/{token}/undo")
    def undo(token: str) -> dict[str, Any]:
        return {"ok": session.undo(who(token))}


def _admin(web: FastAPI, session: Session, options: ReportOptions) -> None:
    def check(token: str) -> None:
        person = session.store.person(token)
        if person is None or not person.admin:
            raise HTTPException(403, "this is not an admin's link")

    @web.get("/api/admin/{token}")
    def summary(token: str) -> dict[str, Any]:
        check(token)
        box = collect(session.results())
        vote_table = box.vote_table()
        return {
            "progress": session.store.progress() | session.totals(),
            "agreement": report(box, options) if len(vote_table.unit) else {},
            "annotators": annotator_rows(vote_table, options) if len(vote_table.unit) else [],
            "people": session.people(),
            "notes": session.notes(),
        }

    @web.get("/api/admin/{token}/export.jsonl")
    def export(token: str) -> StreamingResponse:
        check(token)
        lines = (json.dumps(dump(record), ensure_ascii=False) + "\n" for record in session.results())
        named = {"Content-Disposition": 'attachment; filename="votes.jsonl"'}
        return StreamingResponse(lines, media_type="application/jsonl", headers=named)
