"""Load on a server: clients that wait for each response (closed loop), and requests at a fixed rate (open loop).

Every request is counted once: as answered, refused (UNAVAILABLE or 503: the server is full) or failed.
"""

from __future__ import annotations

import asyncio
import collections
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tf_fast_rcnn.benchmarks.measure import resident_bytes
from tf_fast_rcnn.serving.tensors import write_outputs

OK, REFUSED = "ok", "refused"
_TIMEOUT = 60.0
_ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Load(NamedTuple):
    """The result of a load.

    Attributes:
        seconds: time from the first request to the last response.
        latencies: float64, seconds of each request that was answered.
        counts: number of requests by status: "ok", "refused" or another one.
        memory: the server's resident bytes, once per second; empty if they were not measured.
    """

    seconds: float
    latencies: np.ndarray
    counts: dict
    memory: list

    def summary(self) -> dict[str, Any]:
        """A JSON dict: requests per second, percentiles of latency in milliseconds, counts, memory in MB."""
        failed = sum(count for status, count in self.counts.items() if status not in (OK, REFUSED))
        percentiles = np.percentile(self.latencies, [50, 95, 99]) * 1e3 if len(self.latencies) else [np.nan] * 3
        return {
            "asked": sum(self.counts.values()),
            "answered": self.counts.get(OK, 0),
            "refused": self.counts.get(REFUSED, 0),
            "failed": failed,
            "statuses": dict(self.counts),
            "seconds": self.seconds,
            "throughput": self.counts.get(OK, 0) / self.seconds,
            **{f"p{share}_ms": float(value) for share, value in zip((50, 95, 99), percentiles, strict=True)},
            "memory_mb": [round(held / 1e6, 1) for held in self.memory],
        }


async def closed_loop(ask: Callable[[], Awaitable[str]], clients: int, seconds: float, pid: int | None = None) -> Load:
    """Clients that each send the next request when the previous one is answered.

    Args:
        ask: coroutine function that sends one request and returns "ok", "refused" or another status.
        clients: number of clients.
        seconds: time after which no new requests are sent.
        pid: process whose memory is measured, or None.

    Returns:
        The `Load`.
    """
    end = time.perf_counter() + seconds

    async def client(record):
        while time.perf_counter() < end:
            await record(time.perf_counter())

    return await _observed(ask, lambda record: [client(record) for _ in range(clients)], pid)


async def open_loop(
    ask: Callable[[], Awaitable[str]], rate: float, seconds: float, seed: int = 0, pid: int | None = None
) -> Load:
    """Requests at random times (a Poisson process), sent whether or not earlier ones are answered.

    Latency is measured from the time a request was due, so a slow server cannot hide by delaying the next request.

    Args:
        ask: see `closed_loop`.
        rate: average number of requests per second.
        seconds: for how long requests are sent.
        seed: random seed of the times.
        pid: process whose memory is measured, or None.

    Returns:
        The `Load`.
    """
    rng = np.random.default_rng(seed)
    started = time.perf_counter()
    due = started + np.sort(rng.uniform(0, seconds, rng.poisson(rate * seconds)))

    async def request(record, at):
        await asyncio.sleep(at - time.perf_counter())
        await record(at)

    return await _observed(ask, lambda record: [request(record, at) for at in due], pid)


async def _observed(ask, senders, pid):
    """Runs the coroutines `senders(record)`, where `record(due)` sends one request; returns the `Load`."""
    latencies, counts = [], collections.Counter()

    async def record(due):
        status = await ask()
        counts[status] += 1
        if status == OK:
            latencies.append(time.perf_counter() - due)

    started, memory = time.perf_counter(), []
    watching = asyncio.create_task(_watch(pid, memory))
    try:
        await asyncio.gather(*senders(record))
    finally:
        watching.cancel()
    return Load(time.perf_counter() - started, np.array(latencies), dict(counts), memory)


async def _watch(pid, memory):
    while pid is not None:
        memory.append(resident_bytes(pid))
        await asyncio.sleep(1)


def detector_inputs(image_bytes: bytes, proposals: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of a detector's `serving_default` signature for one image.

    Args:
        image_bytes: an encoded image file.
        proposals: float32 `[P, 4]`, relative `[y1, x1, y2, x2]`.
    """
    return {
        "image_bytes": np.array([image_bytes], np.object_),
        "proposals": np.asarray(proposals, np.float32)[None],
        "num_proposals": np.array([len(proposals)], np.int32),
    }


class GrpcLoad:
    """Sends a request over gRPC when called; use it within `async with`.

    Args:
        address: "HOST:PORT".
        model: the model's name.
        inputs: dict from input names to arrays.
    """

    def __init__(self, address: str, model: str, inputs: Mapping[str, np.ndarray]) -> None:
        self._address = address
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = model
        for name, value in inputs.items():
            self._request.inputs[name].CopyFrom(tf.make_tensor_proto(value))

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._address, options=_ANY_SIZE)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def __call__(self) -> str:
        try:
            await self._stub.Predict(self._request, timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            return REFUSED if error.code() == grpc.StatusCode.UNAVAILABLE else error.code().name
        return OK


class RestLoad:
    """Sends a request in columnar format over REST when called; use it within `async with`.

    Args:
        url: URL of the model, up to its name.
        inputs: dict from input names to arrays.
    """

    def __init__(self, url: str, inputs: Mapping[str, np.ndarray]) -> None:
        self._url = f"{url}:predict"
        # Columnar requests and responses have the same format.
        self._body = json.dumps({"inputs": json.loads(write_outputs(inputs, by_row=False))["outputs"]}).encode()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(_TIMEOUT)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def __call__(self) -> str:
        try:
            async with self._session.post(self._url, data=self._body) as response:
                await response.read()
                return {200: OK, 503: REFUSED}.get(response.status, str(response.status))
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__


def server_process(port: int) -> int | None:
    """The id of the process on this machine that listens on a TCP port; None if no such process is visible."""
    listening = {
        f"socket:[{fields[9]}]"
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in map(str.split, Path(table).read_text().splitlines()[1:])
        if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == port
    }
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) in listening:
                return int(link.parts[2])
        except OSError:
            continue  # the process belongs to another user or has ended
    return None
