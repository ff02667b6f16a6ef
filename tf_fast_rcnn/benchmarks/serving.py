"""The embedded server beside calling the model directly: one client, many clients, a rate, and hours of too much."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import io
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.benchmarks.load import OK, GrpcLoad, Load, RestLoad, closed_loop, detector_inputs, open_loop
from tf_fast_rcnn.benchmarks.roi_pooling import random_rois
from tf_fast_rcnn.demo.digits import generate_digits

CLASSES = 20
_IMAGE_SIZE = (640, 480)
_START_SECONDS = 300
_COMMAND = [
    sys.executable,
    "-c",
    "import sys; from tf_fast_rcnn.cli import main; sys.exit(main(sys.argv[1:]))",
    "serve",
]
_FREE_PORTS = ["--server", "embedded", "--grpc-port", "0", "--rest-port", "0"]
_BATCHING = """max_batch_size {{ value: {clients} }}
batch_timeout_micros {{ value: 2000 }}
num_batch_threads {{ value: 2 }}
"""


def measure_serving(
    network: str, proposals: int, clients: int, seconds: float, rounds: int, soak: float
) -> dict[str, Any]:
    """Measures a random detector on a JPEG of 640x480 pixels, over the loopback.

    To be called in a fresh process. The model is called directly in this process, and served by processes of their own,
    one of which batches; they take turns, so that what else the machine does meets all of them.

    Args:
        network: see `fast_rcnn`'s backbone.
        proposals: number of them, random over the image.
        clients: of the closed loop; direct calls come from as many threads.
        seconds: of each turn.
        rounds: how many turns each has, after one that does not count; one client asks for as long together.
        soak: seconds at twice the throughput; 0: none.

    Returns:
        Dict: "one_client" and "many_clients", dicts of contestants ("direct", "gRPC", "REST", "gRPC, batching") and
        `Load.summary`, of many clients with the medians over the rounds; "ratios": "overhead", the median by which one
        client's request takes longer than the direct call beside it, and "throughput" of many clients over that of
        direct calls; "open_loop", summaries at half the throughput; "soak", a summary at twice, or None.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        model = frcnn.fast_rcnn(network, CLASSES, weights=None)
        path = Path(folder) / "model" / "1"
        frcnn.export_saved_model(model, path, class_names=[f"class {number}" for number in range(CLASSES)])
        inputs = detector_inputs(_jpeg(Path(folder)), random_rois(proposals, np.random.default_rng(0), 1, 1)[0])
        parameters = Path(folder) / "batching_parameters.txt"
        parameters.write_text(_BATCHING.format(clients=clients))
        plain = stack.enter_context(_server(path, folder, "plain"))
        batching = stack.enter_context(_server(path, folder, "batching", "--batching", str(parameters)))
        return asyncio.run(_measure(path, inputs, plain, batching, (clients, seconds, rounds, soak)))


async def _measure(path, inputs, plain, batching, options):
    clients, seconds, rounds, soak = options
    async with (
        _Direct(path, inputs, clients) as direct,
        GrpcLoad(plain["grpc"], plain["model"], inputs) as over_grpc,
        RestLoad(plain["rest"], inputs) as over_rest,
        GrpcLoad(batching["grpc"], batching["model"], inputs) as batched,
    ):
        asked = {"direct": direct, "gRPC": over_grpc, "REST": over_rest}
        one = await _one_by_one(asked, seconds * rounds)
        many = await _in_turns(asked | {"gRPC, batching": batched}, clients, seconds, rounds)
        capacity = statistics.median(turn["throughput"] for turn in many["gRPC"])
        asked_of = {"gRPC": (over_grpc, plain), "gRPC, batching": (batched, batching)}
        open_loops = {
            name: (await open_loop(ask, capacity / 2, seconds * rounds, pid=server["pid"])).summary()
            for name, (ask, server) in asked_of.items()
        }
        soaked = (await open_loop(over_grpc, 2 * capacity, soak, pid=plain["pid"])).summary() if soak else None
    return {
        "one_client": {name: load.summary() for name, load in one.items()},
        "many_clients": {name: _medians(turns) for name, turns in many.items()},
        "ratios": {
            "overhead": {
                name: float(np.median(load.latencies / one["direct"].latencies)) - 1
                for name, load in one.items()
                if name != "direct"
            },
            "throughput": {name: _ratio(many[name], many["direct"]) for name in many if name != "direct"},
        },
        "open_loop": open_loops,
        "soak": soaked,
    }


async def _one_by_one(asked, seconds):
    """`Load` by contestant: one request of each in turn, until the time is over. The first of each does not count."""
    latencies, counts = {name: [] for name in asked}, {name: collections.Counter() for name in asked}
    for ask in asked.values():
        await ask()
    started = time.perf_counter()
    while time.perf_counter() < started + seconds * len(asked):
        for name, ask in asked.items():
            sent = time.perf_counter()
            counts[name][await ask()] += 1
            latencies[name].append(time.perf_counter() - sent)
    return {name: Load(sum(taken), np.array(taken), dict(counts[name]), []) for name, taken in latencies.items()}


async def _in_turns(asked, clients, seconds, rounds):
    """Lists of summaries by contestant; the first turn of each does not count."""
    turns = {name: [] for name in asked}
    for number in tqdm(range(rounds + 1), f"{clients} client(s)", unit="round", delay=2, leave=False):
        for name, ask in asked.items():
            load = (await closed_loop(ask, clients, seconds)).summary()
            if number:
                turns[name].append(load)
    return turns


def _medians(turns):
    """One summary of several: medians of rates and times, sums of counts."""
    middle = {
        name: statistics.median(turn[name] for turn in turns) for name in ("throughput", "p50_ms", "p95_ms", "p99_ms")
    }
    return middle | {name: sum(turn[name] for turn in turns) for name in ("answered", "refused", "failed")}


def _ratio(turns, direct):
    """Median of the ratios of throughputs within a round."""
    pairs = zip(turns, direct, strict=True)
    return statistics.median(mine["throughput"] / of_direct["throughput"] for mine, of_direct in pairs)


class _Direct:
    """Calls the SavedModel's signature in threads of this process."""

    def __init__(self, path, inputs, threads):
        self._loaded = tf.saved_model.load(str(path))
        self._call = self._loaded.signatures["serving_default"]
        self._inputs = inputs
        self._threads = concurrent.futures.ThreadPoolExecutor(threads)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self._threads.shutdown()

    async def __call__(self):
        await asyncio.get_running_loop().run_in_executor(self._threads, self._run)
        return OK

    def _run(self):
        outputs = self._call(**{name: tf.constant(value) for name, value in self._inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}


@contextlib.contextmanager
def _server(path, folder, name, *options):
    """Runs `tf-fast-rcnn serve` in a process; gives its addresses and "pid"."""
    addresses = Path(folder) / f"{name}.json"
    with open(Path(folder) / f"{name}.log", "w") as log:
        command = [*_COMMAND, str(path), *_FREE_PORTS, "--json", str(addresses), *options]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not addresses.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {(Path(folder) / f'{name}.log').read_text()}")
            time.sleep(0.1)
        yield json.loads(addresses.read_text()) | {"pid": process.pid}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _jpeg(folder):
    generate_digits(folder / "digits", {"test": 1})
    (source,) = (folder / "digits" / "JPEGImages").iterdir()
    file = io.BytesIO()
    Image.open(source).resize(_IMAGE_SIZE).save(file, "JPEG", quality=90)
    return file.getvalue()
