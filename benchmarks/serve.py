"""Load test of the scoring service on loopback: clients that wait for each answer, prompts with k = 4 completions.

    python benchmarks/serve.py [--requests 60] [--rounds 3] [--clients 1 4 16] [--threads 1] [--width 256]

Three services on the same exported model and the same HTTP stack (FastAPI, uvicorn), asked in turns:
    ours          python -m rlhf.serve: requests that wait go into one batch, every prompt encoded once
    one by one    plain transformers, a forward pass per completion, one request at a time
    padded        plain transformers, the completions of a request as one padded batch, one request at a time
The load generator (httpx, asyncio) shares the machine with the services. Writes results/serve.json.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

RESULTS = Path(__file__).parent / "results"
K = 4
NAMES = ("ours", "one by one", "padded")


def main() -> None:
    """Measure, print, write; with `--plain`, be one of the plain services."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=256, help="hidden size of the Llama (4 layers)")
    parser.add_argument("--plain", choices=NAMES[1:], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plain_service(options.plain, options.folder, options.threads)
        return
    RESULTS.mkdir(exist_ok=True)
    found = race(options)
    (RESULTS / "serve.json").write_text(json.dumps(found, indent=2))
    print(table(found))


def race(options: argparse.Namespace) -> dict[str, Any]:
    """All services at all numbers of clients, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        bodies = prepare(Path(folder), options)
        rates: dict[str, list[float]] = {}
        seconds: dict[str, list[float]] = {}
        with served(folder, options) as urls:
            difference = _difference(folder, bodies[:10], urls)
            for _ in range(options.rounds):
                for clients in options.clients:
                    for name in NAMES:
                        spent, each = asyncio.run(load(urls[name], bodies, clients))
                        rates.setdefault(f"{name}/{clients}", []).append(len(bodies) / spent)
                        seconds.setdefault(f"{name}/{clients}", []).extend(each)
    return {
        "requests": options.requests, "rounds": options.rounds, "k": K, "threads": options.threads,
        "width": options.width, "largest_difference_from_python": difference,
        "requests_per_s_min_median_max": {k: _spread(v) for k, v in rates.items()},
        "completions_per_s": {k: K * float(np.median(v)) for k, v in rates.items()},
        "ratio_to_one_by_one_min_median_max": {
            k: _spread(np.array(v) / np.array(rates[f"one by one/{k.split('/')[1]}"])) for k, v in rates.items()
        },
        "latency_ms_p50_p95_p99": {
            k: [1e3 * float(q) for q in np.percentile(v, [50, 95, 99])] for k, v in seconds.items()
        },
    }  # fmt: skip


def _spread(values: Any) -> list[float]:
    return [float(f(values)) for f in (np.min, np.median, np.max)]


def table(found: dict[str, Any]) -> str:
    """Markdown: a row per service and number of clients."""
    lines = [
        "| clients | service | requests/s (min to max) | completions/s | p50 ms | p95 ms | p99 ms | over one by one |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, (low, middle, high) in found["requests_per_s_min_median_max"].items():
        name, clients = key.split("/")
        p50, p95, p99 = found["latency_ms_p50_p95_p99"][key]
        ratio = found["ratio_to_one_by_one_min_median_max"][key]
        lines.append(
            f"| {clients} | {name} | {middle:.1f} ({low:.1f} to {high:.1f}) | {found['completions_per_s'][key]:.0f} | "
            f"{p50:.0f} | {p95:.0f} | {p99:.0f} | {ratio[1]:.1f} ({ratio[0]:.1f} to {ratio[2]:.1f}) |"
        )
    return "\n".join(lines)


def prepare(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Export the model; the bodies of the requests."""
    import torch
    from score_pool import Texts
    from train_step import quiet
    from workload import llama

    from rlhf.data.render import Renderer
    from rlhf.evaluation.metrics.calibration import Calibration
    from rlhf.models.backbone import Backbone
    from rlhf.models.heads import LinearHead
    from rlhf.models.pretrained import Tiny
    from rlhf.models.reward_model import RewardModel
    from rlhf.reward.export import export

    torch.set_num_threads(options.threads)
    quiet()
    model = RewardModel(Backbone(llama(options.width)), LinearHead(options.width))
    export(model, Renderer(Tiny().tokenizer(), max_length=1500), folder, Calibration.identity())
    records = list(Texts(options.requests * K).records())
    return [{"prompt": r.prompt, "completions": [c.text for c in r.completions]} for r in records]


def _difference(folder: str, bodies: list[dict[str, Any]], urls: dict[str, str]) -> float:
    """Between the service and Python; the plain services must agree too, or the race is not one."""
    import rlhf

    scorer = rlhf.load(folder)
    largest = 0.0
    for body in bodies:
        expected = np.array(scorer.score(body["prompt"], body["completions"]))
        for name, url in urls.items():
            got = np.array(httpx.post(f"{url}/score", json=body, timeout=600).json()["scores"])
            error = float(np.abs(got - expected).max())
            assert error < 1e-4, f"{name} gives other scores"
            largest = max(largest, error if name == "ours" else 0.0)
    return largest


async def load(url: str, bodies: list[dict[str, Any]], clients: int) -> tuple[float, list[float]]:
    """Seconds for all requests, and of each; every client has a connection and waits for its answers."""
    waiting = iter(bodies)
    seconds: list[float] = []

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600) as own:
            for body in waiting:
                start = time.perf_counter()
                (await own.post("/score", json=body)).raise_for_status()
                seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - start, seconds


@contextmanager
def served(folder: str, options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The three services in processes of their own; name -> address."""
    threads = str(options.threads)
    ours = ["-m", "rlhf.serve", f"run={folder}", "port=0", f"threads={threads}", "log_level=warning"]
    plain = [__file__, "--folder", folder, "--threads", threads, "--plain"]
    commands = {"ours": ours} | {name: [*plain, name] for name in NAMES[1:]}
    running = {
        name: subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    try:
        yield {name: _address(process) for name, process in running.items()}
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait(60)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    for _ in range(600):
        try:
            httpx.get(f"{url}/health")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return url
    raise TimeoutError(url)


def plain_service(name: str, folder: str, threads: int) -> None:
    """What one writes first: a handler around plain transformers, with a lock."""
    import socket

    import torch
    import uvicorn
    from fastapi import FastAPI
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lock = threading.Lock()

    def forward(texts: list[str]) -> list[float]:
        batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        with torch.inference_mode():
            scores: list[float] = model(**batch).logits[:, 0].tolist()
        return scores

    scored: dict[str, Callable[[list[str]], list[float]]] = {
        "one by one": lambda texts: [forward([text])[0] for text in texts],
        "padded": forward,
    }
    web = FastAPI()

    @web.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @web.post("/score")
    def score(body: dict[str, Any]) -> dict[str, list[float]]:
        said = [{"role": "user", "content": body["prompt"]}]
        chats = [[*said, {"role": "assistant", "content": text}] for text in body["completions"]]
        texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
        with lock:
            return {"scores": scored[name](texts)}

    listener = socket.create_server(("127.0.0.1", 0))
    print(f"serving: http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(web, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
