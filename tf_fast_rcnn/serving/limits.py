"""How many requests run and wait at a time; more are refused at once, as TensorFlow Serving does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from tf_fast_rcnn.serving.status import ServingError


class Limits:
    """Runs functions in threads, a limited number at a time.

    Args:
        concurrency: functions that run at a time.
        queue: that wait; beyond them a request is refused.
    """

    def __init__(self, concurrency: int, queue: int) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(concurrency, "request")
        self._free = asyncio.Semaphore(concurrency)
        self._queue = queue
        self.waiting = 0
        self.running = 0

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns, in a thread. Who stops waiting leaves the queue.

        Raises:
            ServingError: UNAVAILABLE, where the queue is full.
        """
        if self._free.locked() and self.waiting >= self._queue:
            raise ServingError(
                grpc.StatusCode.UNAVAILABLE, f"The queue is full: {self.waiting} requests wait; try again later"
            )
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        work = self._threads.submit(function, *arguments)
        # A thread cannot be stopped: its place is free when it is done, and not when nobody waits for it any more.
        loop = asyncio.get_running_loop()
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        answer = asyncio.wrap_future(work)
        # Where nobody waits any more, asyncio would tell of an error that nobody saw.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(answer)

    def _done(self):
        self.running -= 1
        self._free.release()

    async def drain(self, seconds: float) -> None:
        """Returns when nothing runs or waits, at the latest after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.running or self.waiting:
                    await asyncio.sleep(0.02)
