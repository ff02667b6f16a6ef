"""Limits of running and waiting requests. Like in TensorFlow Serving, further requests are rejected at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from tf_fast_rcnn.serving.status import ServingError


class Limits:
    """Runs functions in a limited number of threads, with a limited queue.

    Args:
        concurrency: maximum number of functions that run concurrently.
        queue: maximum number of waiting functions; further ones are rejected.
    """

    def __init__(self, concurrency: int, queue: int) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(concurrency, "request")
        self._free = asyncio.Semaphore(concurrency)
        self._queue = queue
        self.waiting = 0
        self.running = 0

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a function in a thread and returns its result. A cancelled caller leaves the queue.

        Raises:
            ServingError: UNAVAILABLE, if the queue is full.
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
        # A thread cannot be stopped, so it is released when it finishes, not when its caller is cancelled.
        loop = asyncio.get_running_loop()
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        answer = asyncio.wrap_future(work)
        # Retrieves the exception: otherwise asyncio logs it as "never retrieved" if the caller was cancelled.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(answer)

    def _done(self):
        self.running -= 1
        self._free.release()

    async def drain(self, seconds: float) -> None:
        """Returns when nothing runs or waits, or after the given number of seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.running or self.waiting:
                    await asyncio.sleep(0.02)
