"""The embedded server: one model over gRPC and REST, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from aiohttp import web

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.serving.batching import BatchingParameters
from tf_fast_rcnn.serving.grpc_api import set_health, start_grpc
from tf_fast_rcnn.serving.limits import Limits, Metrics
from tf_fast_rcnn.serving.rest_api import rest_application
from tf_fast_rcnn.serving.versions import Model

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_log = logging.getLogger(__name__)

# Seconds to send the last responses after all requests have finished.
_LAST_ANSWERS = 0.5


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """Settings of a server.

    Attributes:
        host: address of the network interface; only loopback by default.
        grpc_port, rest_port: ports; 0 selects a free port.
        concurrency: number of requests that run concurrently; None: one per CPU core, or with batching as many as fill
            all batches.
        queue: maximum number of waiting requests; further requests are rejected at once.
        max_message_bytes: maximum size of a request.
        poll_seconds: interval between checks for new versions, in seconds.
        grace_seconds: time for running requests to finish when the server stops, in seconds.
        batching: `BatchingParameters`; None to run each request separately.
        enable_cors: whether pages of any site may read the responses of REST.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    concurrency: int | None = None
    queue: int = 32
    max_message_bytes: int = 64 << 20
    poll_seconds: float = 1.0
    grace_seconds: float = 30.0
    batching: BatchingParameters | None = None
    enable_cors: bool = False

    @property
    def threads(self) -> int:
        """Number of requests that run concurrently."""
        if self.concurrency is not None:
            return self.concurrency
        if self.batching is not None:  # The running batches, and one that is being filled.
            return self.batching.max_batch_size * (self.batching.num_batch_threads + 1)
        return len(os.sched_getaffinity(0))


@contextlib.asynccontextmanager
async def embedded_server(
    name: str, directory: StrPath, server_settings: ServerSettings
) -> AsyncIterator[dict[str, int]]:
    """Serves a model until the context exits, then finishes pending requests and stops.

    Args:
        name: name of the model.
        directory: folder of its versions, or a SavedModel.
        server_settings: `ServerSettings`.

    Yields:
        Dict with the ports "grpc" and "rest".

    Raises:
        InputError: if no version can be loaded, or a port cannot be used.

    Example:
        >>> async with embedded_server("cells", "export", ServerSettings()) as ports:     # doctest: +SKIP
        ...     await asyncio.sleep(60)
    """
    model = Model(name, directory, server_settings.batching)
    await asyncio.to_thread(model.poll)
    if not model.available:
        raise InputError(_why_unavailable(model, directory))
    limits = Limits(server_settings.threads, server_settings.queue)
    metrics = Metrics(limits)
    address = socket_address(server_settings.host, server_settings.grpc_port)
    server, grpc_port, health = start_grpc(model, limits, metrics, address, server_settings.max_message_bytes)
    await server.start()
    application = rest_application(
        model, limits, metrics, server_settings.max_message_bytes, enable_cors=server_settings.enable_cors
    )
    try:
        async with listening(
            application, server_settings.host, server_settings.rest_port, server_settings.grace_seconds
        ) as rest_port:
            await set_health(health, True)
            polling = asyncio.create_task(_poll(model, server_settings.poll_seconds))
            try:
                yield {"grpc": grpc_port, "rest": rest_port}
            finally:
                polling.cancel()
                await set_health(health, False)
    finally:
        # Watchers of the health service are notified, but the server does not wait for them as for requests.
        stopping = asyncio.create_task(server.stop(server_settings.grace_seconds))
        await limits.drain(server_settings.grace_seconds)
        await server.stop(_LAST_ANSWERS)
        await stopping


@contextlib.asynccontextmanager
async def listening(application: web.Application, host: str, port: int, grace_seconds: float) -> AsyncIterator[int]:
    """Serves an aiohttp application until the context exits; yields the port.

    The application gets bodies as they were sent, and decompresses them itself.

    Raises:
        InputError: if the port cannot be used.
    """
    runner = web.AppRunner(
        application,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=grace_seconds,
        keepalive_timeout=75,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise InputError(
                f"{socket_address(host, port)}: found a port that cannot be used ({error.strerror}); expected a free "
                "one; choose another port"
            ) from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def socket_address(host: str, port: int) -> str:
    """ "HOST:PORT", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _poll(model, seconds):
    logged = ""
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(model.poll)
        except (InputError, OSError) as error:
            if str(error) != logged:
                _log.error("%s; keeping the loaded version", error)
            logged = str(error)


def _why_unavailable(model, directory):
    errors = model.errors
    if errors:
        return errors[0]
    return f"{directory}: found no version; expected folders 1, 2, ... or saved_model.pb; export a model to this folder"
