"""Limits of running and waiting requests, and their metrics for Prometheus.

Like in TensorFlow Serving, requests beyond the limits are rejected at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import prometheus_client

from tf_fast_rcnn.serving.status import ServingError, to_serving_error

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


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


class Metrics:
    """Request metrics of a server, with memory and CPU time of the process.

    Args:
        limits: `Limits`, whose numbers of running and waiting requests are exported.
    """

    def __init__(self, limits: Limits) -> None:
        self._registry = registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        labels = ["protocol", "method", "status"]
        self._requests = prometheus_client.Counter(
            "tf_fast_rcnn_requests", "Requests answered or rejected", labels, registry=registry
        )
        self._seconds = prometheus_client.Histogram(
            "tf_fast_rcnn_request_seconds",
            "Duration of requests, including time in the queue",
            labels[:2],
            buckets=_BUCKETS,
            registry=registry,
        )
        for name, what in (("running", "Running requests"), ("waiting", "Waiting requests")):
            gauge = prometheus_client.Gauge(f"tf_fast_rcnn_requests_{name}", what, registry=registry)
            gauge.set_function(functools.partial(getattr, limits, name))

    @contextlib.contextmanager
    def observed(self, protocol: str, method: str) -> Iterator[None]:
        """Records the status and duration of a request; exceptions are re-raised."""
        started, status = time.perf_counter(), "CANCELLED"
        try:
            yield
            status = "OK"
        except Exception as error:
            status = to_serving_error(error).code.name
            raise
        finally:
            self._requests.labels(protocol, method, status).inc()
            self._seconds.labels(protocol, method).observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """The metrics in the format `CONTENT_TYPE`."""
        return prometheus_client.generate_latest(self._registry)
