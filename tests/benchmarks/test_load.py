"""Load on servers with known response times."""

import asyncio
import json
import os
import runpy
import time
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from PIL import Image
from servers import served

from tf_fast_rcnn import export_saved_model
from tf_fast_rcnn.benchmarks.load import Load, RestLoad, closed_loop, open_loop, server_process
from tf_fast_rcnn.serving.server import listening

LOAD_TEST = Path(__file__).parents[2] / "serving" / "load_test.py"


def test_clients_wait_for_their_answers():
    running, most = 0, 0

    async def ask():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return "ok"

    found = asyncio.run(closed_loop(ask, clients=3, seconds=0.3)).summary()
    assert most == 3
    assert 3 <= found["answered"] <= 3 * 16
    assert found["asked"] == found["answered"]
    assert found["p50_ms"] >= 20
    assert found["throughput"] == pytest.approx(found["answered"] / found["seconds"])


def test_in_an_open_loop_waiting_counts_from_when_a_request_was_due():
    """The queue of a server grows that handles one request at a time, in 10 ms, and gets twice as many."""

    async def main():
        one_at_a_time = asyncio.Lock()

        async def ask():
            async with one_at_a_time:
                await asyncio.sleep(0.01)
            return "ok"

        return await open_loop(ask, rate=200, seconds=0.5, seed=1)

    load = asyncio.run(main())
    assert 60 < len(load.latencies) < 140
    assert load.latencies[-1] > 0.2
    assert load.latencies[-1] > 5 * load.latencies[:5].mean()


def test_every_request_is_counted_once():
    statuses = iter(["ok", "refused", "INTERNAL", "ok", "refused"] * 1000)

    async def ask():
        await asyncio.sleep(0)
        return next(statuses)

    load = asyncio.run(open_loop(ask, rate=500, seconds=0.2, seed=0))
    found = load.summary()
    assert found["asked"] == found["answered"] + found["refused"] + found["failed"] > 50
    assert found["failed"] == load.counts["INTERNAL"] > 0
    assert len(load.latencies) == found["answered"]


def test_percentiles():
    found = Load(10.0, np.arange(1, 101) / 1e3, {"ok": 100}, [1_000_000, 2_500_000]).summary()
    assert (found["p50_ms"], found["p99_ms"]) == (pytest.approx(50.5), pytest.approx(99.01))
    assert found["memory_mb"] == [1.0, 2.5]


def test_over_rest_and_its_process_is_found():
    async def main():
        seen = []

        async def predict(request):
            seen.append(await request.json())
            return web.json_response({}, status=[200, 503, 500][len(seen) % 3])

        application = web.Application()
        application.router.add_post("/v1/models/m:predict", predict)
        inputs = {"image_bytes": np.array([b"\xff\x00"], object), "num_proposals": np.int32([3])}
        async with listening(application, "127.0.0.1", 0, 1) as port:
            assert server_process(port) == os.getpid()
            async with RestLoad(f"http://127.0.0.1:{port}/v1/models/m", inputs) as ask:
                return [await ask() for _ in range(3)], seen[0]

    statuses, body = asyncio.run(main())
    assert statuses == ["refused", "500", "ok"]
    assert body == {"inputs": {"image_bytes": [{"b64": "/wA="}], "num_proposals": [3]}}


def test_a_port_without_a_server():
    assert server_process(1) is None


@pytest.fixture(scope="module")
def detector_server(tiny_model, tmp_path_factory):
    """The small detector's `(folder, Served)`."""
    folder = tmp_path_factory.mktemp("load") / "tiny"
    export_saved_model(tiny_model, folder / "1", class_names=("cat", "dog", "ox"))
    with served("tiny", folder) as server:
        yield folder, server


def test_the_script(detector_server, tmp_path, capsys):
    _, server = detector_server
    main = runpy.run_path(str(LOAD_TEST))["main"]
    Image.new("RGB", (60, 40)).save(tmp_path / "image.png")
    options = ["--model", "tiny", "--image", str(tmp_path / "image.png"), "--proposals", "20", "--seconds"]
    assert main([*options, "1", "--grpc", f"127.0.0.1:{server.ports['grpc']}", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answered"] == found["asked"] > 0
    assert found["memory_mb"][0] > 100
    rest = f"http://127.0.0.1:{server.ports['rest']}"
    assert main([*options, "0.5", "--rest", rest, "--rate", "20", "--model", "none"]) == 1
    assert " x 404" in capsys.readouterr().out


def test_what_benchmark_serving_measures(detector_server):
    from tf_fast_rcnn.benchmarks.load import detector_inputs
    from tf_fast_rcnn.benchmarks.serving import _jpeg, _measure  # measure_serving would start two more servers

    folder, server = detector_server
    addresses = {
        "model": "tiny",
        "grpc": f"127.0.0.1:{server.ports['grpc']}",
        "rest": server.url(),
        "pid": os.getpid(),
    }
    inputs = detector_inputs(_jpeg(folder.parent), np.float32([[0, 0, 0.5, 0.5], [0.2, 0.1, 0.9, 1]]))
    started = time.perf_counter()
    found = asyncio.run(_measure(folder / "1", inputs, addresses, addresses, (2, 0.3, 2, 1.0)))
    assert time.perf_counter() - started > (2 * 3 + 3 * 4) * 0.3 + 2 * 0.6 + 1.0 - 0.5
    assert set(found["one_client"]) == {"direct", "gRPC", "REST"}
    assert set(found["many_clients"]) == {"direct", "gRPC", "REST", "gRPC, batching"}
    for load in (*found["one_client"].values(), *found["many_clients"].values(), *found["open_loop"].values()):
        assert load["answered"] > 0
        assert load["failed"] == 0
    soak = found["soak"]
    assert soak["asked"] == soak["answered"] + soak["refused"]
    # Requests take at least as long as direct calls, apart from background load on the machine.
    assert found["ratios"]["overhead"]["gRPC"] > -0.5
