"""A desktop's and a phone's page of a real Chromium, and servers in this process."""

import threading
import time

import pytest


@pytest.fixture
def page(chromium):
    with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
        context.set_default_timeout(10_000)
        yield context.new_page()


@pytest.fixture
def phone(chromium):
    size = {"width": 390, "height": 844}
    with chromium.new_context(viewport=size, has_touch=True, is_mobile=True) as context:
        context.set_default_timeout(10_000)
        yield context.new_page()


@pytest.fixture
def serve():
    import uvicorn

    from rlhf.annotate.report import ReportOptions
    from rlhf.annotate.serve import GUIDELINES
    from rlhf.annotate.web import app

    servers = []

    def start(session):
        web = app(session, guidelines=GUIDELINES, options=ReportOptions(samples=20))
        server = uvicorn.Server(uvicorn.Config(web, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)
