"""The embedded server under load: version changes, limits, batches and shutdown."""

import concurrent.futures
import re
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servers import served
from tensorflow_serving.apis import get_model_status_pb2

from tf_fast_rcnn import InputError
from tf_fast_rcnn.serving.batching import BatchingParameters

X = {"x": np.float32([1])}


def work(server, steps, **options):
    return server.predict({"steps": np.int32([steps])}, "work", **options)["version"].tolist()


def waiting(server, path, **options):
    """The version that responds, after the test has created the file."""
    return server.predict({"path": np.array([str(path)], object)}, "wait", **{"timeout": 120} | options)[
        "version"
    ].tolist()


def states(server):
    """The name of the state of each version."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = server.name
    found = server.models.GetModelStatus(request).model_version_status
    return {row.version: get_model_status_pb2.ModelVersionStatus.State.Name(row.state) for row in found}


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def asked_until(stop, ask):
    """Sends requests in four threads until an event is set: the list of results, and the futures of the threads."""
    answers = []

    def run():
        while not stop.is_set():
            answers.append(ask())

    threads = concurrent.futures.ThreadPoolExecutor(4)
    return answers, [threads.submit(run) for _ in range(4)]


def publish(versions, number, folder):
    """Adds a version atomically, by renaming, like an export."""
    shutil.copytree(versions / str(number), folder / f".{number}")
    (folder / f".{number}").rename(folder / str(number))


@pytest.mark.parametrize("batching", [None, BatchingParameters(4, 1000)], ids=["alone", "batches"])
def test_versions_change_under_load_without_a_failure(example_versions, tmp_path, batching):
    folder = tmp_path / "example"
    folder.mkdir()
    publish(example_versions, 1, folder)
    with served("example", folder, batching=batching) as server:
        stop = threading.Event()
        over_grpc, grpc_threads = asked_until(stop, lambda: work(server, 300)[0])
        body = {"signature_name": "work", "instances": [300]}
        over_rest, rest_threads = asked_until(
            stop, lambda: requests.post(server.url(":predict"), json=body, timeout=60).json()["predictions"][0]
        )
        wait_for(lambda: over_grpc and over_rest)
        for number in (2, 3):
            publish(example_versions, number, folder)
            wait_for(lambda number=number: states(server).get(number) == "AVAILABLE")
        wait_for(lambda: states(server) == {3: "AVAILABLE", 2: "END", 1: "END"})
        wait_for(lambda: over_grpc[-1] == over_rest[-1] == 3)
        stop.set()
        for future in (*grpc_threads, *rest_threads):
            future.result()  # raises the exception of a request
        for answers in (over_grpc, over_rest):
            assert {1, 3} <= set(answers) <= {1, 2, 3}


def test_a_request_ends_in_the_version_that_it_began_in(example_versions, tmp_path):
    folder = tmp_path / "example"
    folder.mkdir()
    publish(example_versions, 1, folder)
    with served("example", folder) as server, concurrent.futures.ThreadPoolExecutor() as threads:
        long = threads.submit(waiting, server, tmp_path / "end")
        wait_for(lambda: numbers(server) == (1, 0))
        publish(example_versions, 2, folder)
        wait_for(lambda: states(server).get(2) == "AVAILABLE")
        assert not long.done()
        assert states(server)[1] in ("AVAILABLE", "UNLOADING")
        assert work(server, 1) == [2]
        (tmp_path / "end").touch()
        assert long.result() == [1]
        wait_for(lambda: states(server)[1] == "END")


def test_a_version_that_cannot_be_loaded_leaves_the_old_one(example_versions, tmp_path):
    folder = tmp_path / "example"
    folder.mkdir()
    publish(example_versions, 1, folder)
    with served("example", folder) as server:
        (folder / "2").mkdir()
        (folder / "2" / "saved_model.pb").write_bytes(b"half a mod")
        wait_for(lambda: states(server).get(2) == "END")
        assert work(server, 1) == [1]
        shutil.copytree(example_versions / "2", folder / "2", dirs_exist_ok=True)
        wait_for(lambda: states(server)[2] == "AVAILABLE")
        assert work(server, 1) == [2]
        shutil.rmtree(folder)
        time.sleep(0.3)
        assert work(server, 1) == [2]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda folder: None, "found no such folder"),
        (lambda folder: folder.mkdir(), "found no version; expected folders 1, 2"),
        (lambda folder: (folder / "1").mkdir(parents=True), "found no SavedModel"),
    ],
)
def test_what_cannot_be_served(tmp_path, make, text):
    make(tmp_path / "model")
    with pytest.raises(InputError, match=text), served("model", tmp_path / "model"):
        pass


def test_a_taken_port(example, example_versions):
    for port in ("grpc", "rest"):
        taken = {f"{port}_port": example.ports[port]}
        server = served("example", example_versions / "1", **taken)
        with pytest.raises(InputError, match="found a port that cannot be used"), server:
            pass


def numbers(server):
    """The numbers of running and waiting requests in the Prometheus metrics."""
    text = requests.get(f"http://127.0.0.1:{server.ports['rest']}/monitoring/prometheus/metrics", timeout=60).text
    return tuple(
        int(float(re.search(rf"^tf_fast_rcnn_requests_{what} (\S+)", text, re.M)[1])) for what in ("running", "waiting")
    )


def test_overload_is_refused_at_once(example_versions, tmp_path):
    with served("example", example_versions, concurrency=1, queue=2) as server:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            first = threads.submit(waiting, server, tmp_path / "end")
            wait_for(lambda: numbers(server) == (1, 0))
            others = [threads.submit(waiting, server, tmp_path / "end") for _ in range(2)]
            wait_for(lambda: numbers(server) == (1, 2))
            with pytest.raises(grpc.RpcError) as caught:
                work(server, 1)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            body = {"signature_name": "work", "instances": [1]}
            refused = requests.post(server.url(":predict"), json=body, timeout=60)
            assert refused.status_code == 503
            assert "queue is full" in refused.json()["error"]
            assert refused.headers["Retry-After"] == "1"
            assert states(server)[3] == "AVAILABLE"  # Status requests are not queued.
            assert not first.done()
            (tmp_path / "end").touch()
            assert [future.result() for future in (first, *others)] == [[3]] * 3
        assert work(server, 1) == [3]


def test_who_gives_up_leaves_the_queue(example_versions, tmp_path):
    limited = served("example", example_versions, concurrency=1, queue=2)
    with limited as server, concurrent.futures.ThreadPoolExecutor(8) as threads:
        first = threads.submit(waiting, server, tmp_path / "end")
        wait_for(lambda: numbers(server) == (1, 0))
        body = {"signature_name": "work", "instances": [1]}
        for _ in range(3):  # More requests than fit into the queue.
            with pytest.raises(grpc.RpcError) as caught:
                work(server, 1, timeout=0.1)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            with pytest.raises(requests.Timeout):
                requests.post(server.url(":predict"), json=body, timeout=0.1)
            wait_for(lambda: numbers(server)[1] == 0)
        assert not first.done()
        (tmp_path / "end").touch()
        assert first.result() == [3]
        assert work(server, 1) == [3]


def test_requests_that_have_come_are_answered_before_the_end(example_versions, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        with served("example", example_versions, concurrency=1, grace_seconds=120) as server:
            updates = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
            assert next(updates).status == health_pb2.HealthCheckResponse.SERVING
            running = [threads.submit(waiting, server, tmp_path / "end") for _ in range(3)]
            body = {"signature_name": "wait", "instances": [str(tmp_path / "end")]}
            running_rest = threads.submit(requests.post, server.url(":predict"), json=body, timeout=600)
            wait_for(lambda: numbers(server) == (1, 3))
            threading.Timer(0.5, (tmp_path / "end").touch).start()
        assert (tmp_path / "end").exists()
        assert [future.result() for future in running] == [[3]] * 3
        assert running_rest.result().json() == {"predictions": [3]}
        # The stream may end with the server before the status arrives.
        assert all(row.status == health_pb2.HealthCheckResponse.NOT_SERVING for row in drained(updates))
        with pytest.raises(grpc.RpcError):
            work(server, 1, timeout=5)


def drained(updates):
    try:
        yield from updates
    except grpc.RpcError:
        return
