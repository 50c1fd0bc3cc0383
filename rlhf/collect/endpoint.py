"""Chat over HTTP with any OpenAI-compatible server (vLLM, TGI, llama.cpp, hosted ones): retries, rate, cache, cost.

The client is the `openai` package (extra `endpoint`): it retries with backoff and honours Retry-After. Answers are
cached on disk by everything they depend on, so a stopped or repeated run asks, and pays, only once.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.collect.decoding import Decoding
from rlhf.collect.sampling import Draft
from rlhf.records import Message, Prompt, RecordError, as_messages


@dataclass
class Endpoint:
    """A chat endpoint.

    Args:
        model: name of the model, as the server has it.
        base_url: e.g. http://localhost:8000/v1; None = OpenAI's own.
        api_key_env: environment variable with the key; servers of your own need none.
        cache: folder of answers; None = ask every time.
        retries: attempts after a failure (connection, 429, 5xx), with growing pauses.
        timeout: seconds to wait for an answer.
        requests_per_minute: at most; None = as fast as answers come.
        price_in, price_out: per million tokens, for the cost in reports.
    """

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    cache: str | None = None
    retries: int = 5
    timeout: float = 120.0
    requests_per_minute: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    usage: dict[str, int] = field(
        default_factory=lambda: {"requests": 0, "from_cache": 0, "tokens_in": 0, "tokens_out": 0}, init=False
    )
    _client: Any = field(default=None, init=False, repr=False)
    _next: float = field(default=0.0, init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def cost(self) -> float:
        """What the answers that were paid for cost, in the unit of the prices."""
        return self.price(self.usage["tokens_in"], self.usage["tokens_out"])

    def price(self, tokens_in: int, tokens_out: int) -> float:
        """Of an answer."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def chat(self, messages: Sequence[Message], **options: Any) -> dict[str, Any]:
        """One answer: {"text", "finished", "tokens", "logprobs", "paid": tokens in and out; 0, 0 from the cache}.

        Args:
            messages: the turns so far.
            options: of the chat completions API: temperature, max_tokens, seed, logprobs, ...

        Raises:
            RecordError: the server still fails after all retries, or refuses the request.
        """
        body = {"model": self.model, "messages": [dict(m) for m in messages], **options}
        path = self._cached(body)
        if path is not None and path.exists():
            self.usage["from_cache"] += 1
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return stored | {"paid": [0, 0]}
        self._wait()
        reply = self._asked(body)
        paid = [reply.usage.prompt_tokens, reply.usage.completion_tokens] if reply.usage else [0, 0]
        with self._lock:
            self.usage["requests"] += 1
            self.usage["tokens_in"] += paid[0]
            self.usage["tokens_out"] += paid[1]
        answer = _plain(reply)
        if path is not None:
            partial = path.with_suffix(f".{threading.get_ident()}.partial")
            partial.write_text(json.dumps(answer, ensure_ascii=False), encoding="utf-8")
            partial.replace(path)
        return answer | {"paid": paid}

    def _asked(self, body: dict[str, Any]) -> Any:
        try:
            from openai import APIStatusError, OpenAI, OpenAIError
        except ImportError as error:
            raise ImportError(
                "an endpoint needs the openai package: pip install 'preference-reward-models[endpoint]'"
            ) from error
        try:
            if self._client is None:
                key = os.environ.get(self.api_key_env, "none" if self.base_url else None)
                options: dict[str, Any] = {"max_retries": self.retries, "timeout": self.timeout}
                self._client = OpenAI(base_url=self.base_url, api_key=key, **options)
            return self._client.chat.completions.create(**body)
        except OpenAIError as error:
            refused = isinstance(error, APIStatusError)
            remedy = "the model's name," if refused else "base_url, that the server runs,"
            remedy = f"check {remedy} and the key in {self.api_key_env}"
            if self.cache is not None:
                remedy += "; answers so far are kept: the same command goes on from them"
            place = f"endpoint {self.base_url or 'of OpenAI'}, model {self.model}"
            problem = f"{'refused' if refused else 'gave no answer'}: {error}"
            raise RecordError(problem, place=place, remedy=remedy) from error

    def _cached(self, body: dict[str, Any]) -> Path | None:
        if self.cache is None:
            return None
        folder = Path(self.cache)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps([self.base_url, body], sort_keys=True)
        return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def _wait(self) -> None:
        """Keep to the rate: requests are spaced evenly."""
        if self.requests_per_minute is None:
            return
        with self._lock:
            now = time.monotonic()
            pause = self._next - now
            self._next = max(now, self._next) + 60 / self.requests_per_minute
        if pause > 0:
            time.sleep(pause)


def _plain(reply: Any) -> dict[str, Any]:
    choice = reply.choices[0]
    logprobs = []
    if choice.logprobs is not None and choice.logprobs.content:
        logprobs = [{t.token: t.logprob for t in place.top_logprobs} for place in choice.logprobs.content]
    tokens = reply.usage.completion_tokens if reply.usage else 0
    text, finished = choice.message.content or "", choice.finish_reason != "length"
    return {"text": text, "finished": finished, "tokens": tokens, "logprobs": logprobs}


@dataclass
class EndpointPolicy:
    """A policy behind an endpoint. Answers repeat where the server honours `seed`, and always from the cache.

    Args:
        endpoint: whom to ask.
        max_new_tokens: length limit of an answer.
        stop: texts that end an answer; many servers take four at most.
    """

    endpoint: Endpoint
    max_new_tokens: int = 512
    stop: Sequence[str] = ()

    @property
    def provenance(self) -> dict[str, Any]:
        """Name of the model and the address."""
        return {"model": self.endpoint.model, "checkpoint": self.endpoint.base_url or "openai"}

    def answer(self, prompt: Prompt, decoding: Decoding, seeds: Sequence[int]) -> list[Draft]:
        """One answer per seed."""
        extra = {"top_k": decoding.top_k, "min_p": decoding.min_p}
        options: dict[str, Any] = {"stop": list(self.stop)} if self.stop else {}
        options |= {"extra_body": {k: v for k, v in extra.items() if v}} if any(extra.values()) else {}
        drafts = []
        for seed in seeds:
            reply = self.endpoint.chat(
                as_messages(prompt), temperature=decoding.temperature, top_p=decoding.top_p,
                max_tokens=self.max_new_tokens, seed=seed % 2**31, **options,
            )  # fmt: skip
            tokens_in, tokens_out = reply["paid"]
            asked = tokens_in + tokens_out > 0
            usage = {
                "requests": int(asked), "from_cache": int(not asked), "tokens_in": tokens_in,
                "tokens_out": tokens_out, "cost": self.endpoint.price(tokens_in, tokens_out),
            }  # fmt: skip
            drafts.append(Draft(reply["text"].strip(), reply["finished"], reply["tokens"], usage=usage))
        return drafts
