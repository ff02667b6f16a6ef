"""The embedded server: gRPC and REST over one model, in one process."""

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
from tf_fast_rcnn.serving.limits import Limits
from tf_fast_rcnn.serving.metrics import Metrics
from tf_fast_rcnn.serving.rest_api import rest_application
from tf_fast_rcnn.serving.versions import Model

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_log = logging.getLogger(__name__)

# Seconds that answers have to leave when nothing runs any more.
_LAST_ANSWERS = 0.5


@dataclasses.dataclass(frozen=True)
class ServerSettings:
    """Where and how a server listens.

    Attributes:
        host: address of the network interface; the loopback alone by default.
        grpc_port, rest_port: 0 takes a free one.
        concurrency: requests that run at a time; None: one a processor, or as many as batches can hold.
        queue: requests that wait; more are refused at once.
        max_message_bytes: of a request.
        poll_seconds: between two looks for new versions.
        grace_seconds: that requests have to end when the server stops.
        batching: `BatchingParameters`, or None: each request runs by itself.
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

    @property
    def threads(self) -> int:
        """Requests that run at a time."""
        if self.concurrency is not None:
            return self.concurrency
        if self.batching is not None:  # Those of batches that run, and of one that is being filled.
            return self.batching.max_batch_size * (self.batching.num_batch_threads + 1)
        return len(os.sched_getaffinity(0))


@contextlib.asynccontextmanager
async def embedded_server(
    name: str, directory: StrPath, server_settings: ServerSettings
) -> AsyncIterator[dict[str, int]]:
    """Serves a model as long as the context lasts; then answers what has been asked, and stops.

    Args:
        name: of the model.
        directory: folder of its versions, or a SavedModel.
        server_settings: `ServerSettings`.

    Yields:
        Dict of "grpc" and "rest", the ports.

    Raises:
        InputError: if there is no version that can be loaded, or a port is taken.

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
    application = rest_application(model, limits, metrics, server_settings.max_message_bytes)
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
        # Those who watch the health are told, and do not hold up the end as requests do.
        stopping = asyncio.create_task(server.stop(server_settings.grace_seconds))
        await limits.drain(server_settings.grace_seconds)
        await server.stop(_LAST_ANSWERS)
        await stopping


@contextlib.asynccontextmanager
async def listening(application: web.Application, host: str, port: int, grace_seconds: float) -> AsyncIterator[int]:
    """Serves an aiohttp application as long as the context lasts; yields the port.

    Raises:
        InputError: if the port is taken.
    """
    runner = web.AppRunner(
        application, access_log=None, handler_cancellation=True, shutdown_timeout=grace_seconds, keepalive_timeout=75
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise InputError(
                f"{socket_address(host, port)}: found a port that cannot be used ({error.strerror}); expected a free "
                "one; give another port"
            ) from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def socket_address(host: str, port: int) -> str:
    """ "HOST:PORT", with brackets around an address of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _poll(model, seconds):
    told = ""
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(model.poll)
        except (InputError, OSError) as error:
            if str(error) != told:
                _log.error("%s; the version that is loaded stays", error)
            told = str(error)


def _why_unavailable(model, directory):
    errors = model.errors
    if errors:
        return errors[0]
    return f"{directory}: found no version; expected folders 1, 2, ... or saved_model.pb; export a model there"
