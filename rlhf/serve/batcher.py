"""Requests of many clients through one model: whatever waits when the model is free goes in together.

Nothing is delayed to make a batch larger. One thread turns texts into tokens (fast tokenizers are not meant to be
shared between threads), one thread runs the model, and the event loop stays free to answer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rlhf.data.render import Encoded
from rlhf.reward.scoring.engine import GroupScores, ScoringEngine

T = TypeVar("T")


class Busy(RuntimeError):
    """More is waiting than `queue_tokens` allows; the client may try again."""


class Batcher:
    """A queue in front of a model.

    Args:
        engine: scores groups; called from one thread only.
        queue_tokens: tokens that may wait, at most.
    """

    def __init__(self, engine: ScoringEngine, *, queue_tokens: int) -> None:
        self.engine, self.queue_tokens = engine, queue_tokens
        self.waiting: deque[tuple[Encoded, asyncio.Future[GroupScores]]] = deque()
        self.waiting_tokens = 0
        self._texts = ThreadPoolExecutor(1, "tokens")
        self._runs = ThreadPoolExecutor(1, "model")
        self._wake = asyncio.Event()
        self._ending = False
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to score; needs the event loop."""
        self._loop = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Finish what waits, then end."""
        self._ending = True
        self._wake.set()
        if self._loop is not None:
            await self._loop
        self._texts.shutdown()
        self._runs.shutdown()

    async def encode(self, work: Callable[[], T]) -> T:
        """Run `work`, which uses the tokenizer, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._texts, work)

    async def score(self, groups: Sequence[Encoded]) -> list[GroupScores]:
        """Scores of every group's completions.

        Raises:
            Busy: the queue is full.
        """
        tokens = sum(map(self.engine.tokens, groups))
        if self.waiting and self.waiting_tokens + tokens > self.queue_tokens:
            raise Busy(f"{self.waiting_tokens} tokens are waiting, queue_tokens={self.queue_tokens}")
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[GroupScores]] = [loop.create_future() for _ in groups]
        self.waiting.extend(zip(groups, answers, strict=True))
        self.waiting_tokens += tokens
        self._wake.set()
        return list(await asyncio.gather(*answers))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting or not self._ending:
            await self._wake.wait()
            batch = self._take()
            if batch:
                await loop.run_in_executor(self._runs, self._run, loop, batch)

    def _take(self) -> list[tuple[Encoded, asyncio.Future[GroupScores]]]:
        """The oldest groups, as many as fit into a batch; at least one where there is one."""
        batch: list[tuple[Encoded, asyncio.Future[GroupScores]]] = []
        size = 0
        while self.waiting:
            tokens = self.engine.tokens(self.waiting[0][0])
            if batch and size + tokens > self.engine.batch_tokens:
                break
            group, answer = self.waiting.popleft()
            self.waiting_tokens -= tokens
            if not answer.done():  # whoever asked is still there
                batch.append((group, answer))
                size += tokens
        if not self.waiting and not self._ending:
            self._wake.clear()
        return batch

    def _run(
        self, loop: asyncio.AbstractEventLoop, batch: Sequence[tuple[Encoded, asyncio.Future[GroupScores]]]
    ) -> None:
        """Score a batch; where that fails, every group for itself, so that one cannot fail the others."""
        try:
            scores = list(self.engine.score([group for group, _ in batch]))
        except Exception as error:
            if len(batch) == 1:
                loop.call_soon_threadsafe(_resolve, batch[0][1], None, error)
                return
            for single in batch:
                self._run(loop, [single])
            return
        for (_, answer), found in zip(batch, scores, strict=True):
            loop.call_soon_threadsafe(_resolve, answer, found, None)


def _resolve(answer: asyncio.Future[GroupScores], scores: GroupScores | None, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    elif scores is not None:
        answer.set_result(scores)
