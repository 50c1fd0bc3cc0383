"""The scoring service in a process of its own."""

import signal
import subprocess
import sys

import httpx

WAIT = 60


class Served:
    """A service in a process of its own."""

    def __init__(self, root, folder, log, *overrides):
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rlhf.serve", f"run={folder}", "port=0", "threads=1", *overrides],
            cwd=root, stdout=subprocess.PIPE, stderr=log.open("w"), text=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert line.startswith("serving: "), log.read_text()
        self.url = line.split()[1]
        transport = httpx.HTTPTransport(retries=20)  # the socket is bound before it listens
        self.client = httpx.Client(base_url=self.url, timeout=WAIT, transport=transport)

    def post(self, route, body, **options):
        return self.client.post(route, json=body, **options)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT)
