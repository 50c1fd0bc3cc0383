"""The service's interface. Texts are neither stored nor logged: a line of the log has a route, a status and numbers."""

import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rlhf.data.render import Encoded
from rlhf.records import Prompt
from rlhf.reward.scoring.engine import GroupScores
from rlhf.reward.scoring.scorer import Scorer
from rlhf.serve.batcher import Batcher, Busy
from rlhf.serve.bodies import BatchBody, GroupBody, PairBody, Refused, RenderedBody, refusal, unreadable_body

log = logging.getLogger("rlhf.serve")

DETECTOR = "mahalanobis"
"""Of the `ood_score` in answers."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and all together.

    Args:
        max_bytes: of a request's body.
        max_completions: in a request, all prompts together.
        max_tokens: of a request, a prompt that is encoded once counted once.
        queue_tokens: tokens of all clients that may wait; beyond, the answer is 503.
    """

    max_bytes: int = 4_000_000
    max_completions: int = 256
    max_tokens: int = 131_072
    queue_tokens: int = 1_048_576


class Service:
    """Scoring for the routes: checks, the queue, and rewards as JSON.

    Args:
        scorer: the reward model.
        limits: of requests.
    """

    def __init__(self, scorer: Scorer, limits: Limits) -> None:
        self.scorer, self.limits, self.calibration = scorer, limits, scorer.calibration
        self.batcher = Batcher(scorer.engine, queue_tokens=limits.queue_tokens)
        reference = scorer.reference
        self.layout = scorer.engine.layout_name  # tried before the first request
        self.knows_ordinary = reference is not None and DETECTOR in reference.typical

    async def score(self, groups: Sequence[tuple[str, Prompt, Sequence[str]]]) -> list[dict[str, Any]]:
        """Scores of every group; the first of each triple is the name of its completions in the request.

        Raises:
            Refused: above a limit, too long to be read, or too much is waiting.
        """
        self._count(sum(len(texts) for _, _, texts in groups))
        encoded = await self.batcher.encode(lambda: [self._encode(*group) for group in groups])
        scores = await self._score(encoded)
        return await self.batcher.encode(lambda: list(map(self._answer, encoded, scores)))

    async def score_rendered(self, body: RenderedBody) -> tuple[list[float], list[int]]:
        """Scores of whole texts, and the tokens each prompt lost. Raises as `score`."""
        self._count(len(body.query))
        prompts = body.prompts or [""] * len(body.query)
        if len(prompts) != len(body.query):
            raise Refused(422, "prompts", "must be as many as query", "one prompt per query, or none at all")
        for i, (text, prompt) in enumerate(zip(body.query, prompts, strict=True)):
            if not text.startswith(prompt):
                problem = f"query[{i}] does not begin with it"
                raise Refused(422, f"prompts[{i}]", problem, "the prompt as it stands in query, or no prompts")
        renderer = self.scorer.renderer
        pairs = list(zip(body.query, prompts, strict=True))
        encoded = await self.batcher.encode(lambda: [renderer.encode_rendered(*pair) for pair in pairs])
        for i, group in enumerate(encoded):
            if not group.kept:
                raise self._too_long(f"query[{i}]")
        found = await self._score(encoded)
        return [float(s.reward[0]) for s in found], [e.trimmed for e in encoded]

    def info(self) -> dict[str, Any]:
        """What is served."""
        renderer, engine = self.scorer.renderer, self.scorer.engine
        return {
            "template_hash": renderer.template_hash,
            "max_length": renderer.max_length,
            "min_prompt": renderer.min_prompt,
            "members": engine.model.head.weight.shape[0],
            "calibration": asdict(self.calibration),
            "ood_score": self.knows_ordinary,
            "layout": self.layout,
            "batch_tokens": engine.batch_tokens,
            "device": str(engine.device),
            "limits": asdict(self.limits),
        }

    def _count(self, completions: int) -> None:
        if completions > self.limits.max_completions:
            problem = f"{completions} completions, max_completions={self.limits.max_completions}"
            raise Refused(413, "completions", problem, "send them in several requests")

    def _encode(self, name: str, prompt: Prompt, texts: Sequence[str]) -> Encoded:
        encoded = self.scorer.renderer.encode(prompt, texts)
        lost = sorted(set(range(len(texts))) - set(encoded.kept))
        if lost:
            raise self._too_long(f"{name}[{lost[0]}]" if name else "ab"[lost[0]])
        return encoded

    def _too_long(self, field: str) -> Refused:
        longest = self.scorer.renderer.max_length
        return Refused(422, field, f"is longer than max_length={longest} tokens allows", "shorten it")

    async def _score(self, encoded: Sequence[Encoded]) -> list[GroupScores]:
        tokens = sum(map(self.scorer.engine.tokens, encoded))
        if tokens > self.limits.max_tokens:
            problem = f"{tokens} tokens, max_tokens={self.limits.max_tokens}"
            raise Refused(413, "completions", problem, "send them in several requests")
        try:
            return await self.batcher.score(encoded)
        except Busy as busy:
            raise Refused(503, "", f"too busy: {busy}", "try again in a second") from busy

    def _answer(self, encoded: Encoded, found: GroupScores) -> dict[str, Any]:
        scores, members = found.reward.tolist(), found.members
        return {
            "scores": scores,
            "normalised": np.asarray(self.calibration.normalise(np.array(scores))).tolist(),
            "members": members.T.tolist() if members.ndim == 2 else None,
            "ood_score": self.scorer.ood_score_of(found.states, DETECTOR) if self.knows_ordinary else None,
            "prompt_tokens_lost": encoded.trimmed,
        }


def app(service: Service) -> FastAPI:
    """The service's routes. `/openapi.json` describes them; there is no page that loads scripts from elsewhere."""

    @asynccontextmanager
    async def life(web: FastAPI) -> AsyncIterator[None]:
        await service.batcher.start()
        yield
        await service.batcher.stop()

    web = FastAPI(
        title="reward model", lifespan=life, docs_url=None, redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # spans and logs could hold texts
    )  # fmt: skip
    _watch(web, service.limits)
    _refusals(web, service.limits)
    _routes(web, service)
    return web


def _routes(web: FastAPI, service: Service) -> None:
    post = partial(web.post, max_body_size=service.limits.max_bytes)

    @web.get("/health")
    async def health() -> dict[str, Any]:
        """Is the service up, and how much is waiting."""
        return {"status": "ok", "waiting_tokens": service.batcher.waiting_tokens}

    @web.get("/info")
    async def info() -> dict[str, Any]:
        """Template, calibration, lengths, limits."""
        return service.info()

    @post("/score")
    async def score(body: GroupBody) -> dict[str, Any]:
        """Rewards of the completions of one prompt."""
        return (await service.score([("completions", body.prompt, body.completions)]))[0]

    @post("/score_batch")
    async def score_batch(body: BatchBody) -> dict[str, Any]:
        """Rewards of the completions of several prompts."""
        named = [(f"groups[{i}].completions", g.prompt, g.completions) for i, g in enumerate(body.groups)]
        return {"groups": await service.score(named)}

    @post("/compare")
    async def compare(body: PairBody) -> dict[str, Any]:
        """Calibrated probability that `a` is better than `b`."""
        (found,) = await service.score([("", body.prompt, [body.a, body.b])])
        probability = float(service.calibration.probability(*found["scores"]))
        return {"probability": probability, "temperature": service.calibration.temperature} | found

    @post("/get_reward")
    async def get_reward(body: RenderedBody) -> dict[str, Any]:
        """Rewards of whole texts, as OpenRLHF asks for them; the policy must use this model's chat template."""
        rewards, lost = await service.score_rendered(body)
        return {"rewards": rewards, "scores": rewards, "extra_logs": {"prompt_tokens_lost": lost}}


def _refusals(web: FastAPI, limits: Limits) -> None:
    bodies = {
        "/score": (GroupBody,),
        "/score_batch": (BatchBody, GroupBody),
        "/compare": (PairBody,),
        "/get_reward": (RenderedBody,),
    }

    @web.exception_handler(Refused)
    async def refuse(request: Request, error: Refused) -> JSONResponse:
        return _refused(error)

    @web.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        models = bodies.get(request.url.path, ())
        return _refused(refusal(error.errors(), sorted({key for m in models for key in m.model_fields})))

    @web.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 413:
            return _refused(_too_large(limits))
        if error.status_code == 400:
            return _refused(Refused(400, "", *unreadable_body(error.__cause__)))
        return _refused(Refused(error.status_code, "", str(error.detail), "the routes are in /openapi.json"))


def _watch(web: FastAPI, limits: Limits) -> None:
    """One line of the log per request, and no text in it: not even of an error's message or an unknown path."""

    @web.middleware("http")
    async def watch(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        start = time.perf_counter()
        try:
            response = await go_on(request)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s at %s:%s", type(error).__name__, last.filename, last.lineno)
            response = _refused(Refused(500, "", f"the service failed: {type(error).__name__}", "see its log"))
        if response.status_code == 413 and response.headers["content-type"] != "application/json":
            response = _refused(_too_large(limits))  # by the announced length, before the body was read
        route = getattr(request.scope.get("route"), "path", "other route")
        spent = 1e3 * (time.perf_counter() - start)
        log.info("%s %s %s %.1f ms", request.method, route, response.status_code, spent)
        return response


def _too_large(limits: Limits) -> Refused:
    return Refused(413, "", f"more than max_bytes={limits.max_bytes}", "send it in several requests")


def _refused(refused: Refused) -> JSONResponse:
    headers = {"Retry-After": "1"} if refused.status == 503 else None
    return JSONResponse(refused.body(), refused.status, headers)
