"""serving/prediction.py and serving/client.py over the loopback, against a server that the tests script."""

import ast
import asyncio
import base64
import contextlib
import http.server
import importlib
import io
import json
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

SERVING = Path(__file__).parents[2] / "serving"


@pytest.fixture(scope="module", autouse=True)
def modules():
    """`prediction` and `client`, found as where client.py is run."""
    sys.path.insert(0, str(SERVING))
    yield importlib.import_module("prediction"), importlib.import_module("client")
    sys.path.remove(str(SERVING))


@pytest.fixture
def prediction(modules):
    return modules[0]


@pytest.fixture
def client(modules):
    return modules[1]


class Script:
    """What the server answers: refusals first, then one detection an image, whose score says what was received."""

    def __init__(self, unavailable=0, delay=0.0, refusal=None, names=True, padding=0):
        self.unavailable, self.delay, self.refusal = unavailable, delay, refusal
        self.names, self.padding = names, padding
        self.requests = []

    def answer(self, signature, inputs):
        """(outputs as arrays, None) or (None, "UNAVAILABLE" or "INVALID_ARGUMENT")."""
        self.requests.append((signature, inputs))
        time.sleep(self.delay)
        if len(self.requests) <= self.unavailable:
            return None, "UNAVAILABLE"
        if self.refusal:
            return None, self.refusal
        images = len(inputs["image_bytes"])
        rows = 2 + self.padding
        boxes, classes = np.zeros((images, rows, 4), np.float32), np.zeros((images, rows), np.int32)
        boxes[:, 0], classes[:, 0] = [0.25, 0.5, 0.75, 1.0], 2
        scores = np.zeros((images, rows), np.float32)
        scores[:, 0] = [len(contents) / 1000 for contents in inputs["image_bytes"]]
        outputs = {
            "detection_boxes": boxes,
            "detection_scores": scores,
            "detection_classes": classes,
            "num_detections": np.ones(images, np.int32),
        }
        if self.names:
            outputs["detection_class_names"] = np.array([["dög"] + [""] * (rows - 1)] * images)
        return outputs, None


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, script):
        self._script = script

    def Predict(self, request, context):  # noqa: N802
        assert request.model_spec.name == "cells"
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        outputs, refusal = self._script.answer(request.model_spec.signature_name, inputs)
        if refusal:
            context.abort(grpc.StatusCode[refusal], f"because of {refusal}")
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


@contextlib.contextmanager
def grpc_server(script):
    # As large as TensorFlow Serving takes; what is sent is not limited.
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(script), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0)


def handler(script):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/models/cells/versions/3:predict"
            inputs = body["inputs"]
            inputs["image_bytes"] = [base64.b64decode(each["b64"]) for each in inputs["image_bytes"]]
            outputs, refusal = script.answer(body["signature_name"], inputs)
            if refusal:
                self._send({"UNAVAILABLE": 503, "INVALID_ARGUMENT": 400}[refusal], {"error": f"because of {refusal}"})
            else:
                self._send(200, {"outputs": {name: value.tolist() for name, value in outputs.items()}})

        def _send(self, code, value):
            content = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Handler


@contextlib.contextmanager
def rest_server(script):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(script)) as server:
        thread = threading.Thread(target=server.serve_forever)
        # Connections that clients keep open do not hold up the end.
        server.daemon_threads = True
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


KINDS = {
    "GrpcClient": grpc_server,
    "AsyncGrpcClient": grpc_server,
    "RestClient": rest_server,
    "AsyncRestClient": rest_server,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def detect(prediction, kind, script, images, proposals=None, **options):
    """What a client of this kind gets of a scripted server."""
    with KINDS[kind](script) as address:
        made = getattr(prediction, kind)(address, "cells", version=3, **options)
        if not kind.startswith("Async"):
            with made as client:
                return client.detect(images, proposals)

        async def run():
            async with made as client:
                return await client.detect(images, proposals)

        return asyncio.run(run())


@every_kind
def test_proposals_are_sent_and_detections_come_back(prediction, kind):
    script = Script()
    proposals = [np.float32([[0, 0, 0.5, 1], [0.25, 0, 1, 1]]), np.zeros((0, 4), np.float32)]
    found = detect(prediction, kind, script, [b"\xff\x00" * 250, b"b" * 250], proposals)
    ((signature, inputs),) = script.requests
    assert signature == "serving_default"
    assert list(inputs["image_bytes"]) == [b"\xff\x00" * 250, b"b" * 250]
    assert np.asarray(inputs["num_proposals"]).tolist() == [2, 0]
    assert np.asarray(inputs["proposals"]).tolist() == [proposals[0].tolist(), [[0.0] * 4] * 2]
    assert [each.scores.tolist() for each in found] == [[0.5], [0.25]]
    assert found[0].boxes.tolist() == [[0.25, 0.5, 0.75, 1.0]]
    assert found[0].class_ids.tolist() == [2]
    assert found[0].names == ["dög"]


@every_kind
def test_an_image_alone(prediction, kind):
    script = Script(names=False)
    (found,) = detect(prediction, kind, script, [b"image"])
    assert [signature for signature, _ in script.requests] == ["detect_image_bytes"]
    assert set(script.requests[0][1]) == {"image_bytes"}
    assert found.names is None


@every_kind
def test_an_overloaded_server_is_asked_again(prediction, kind):
    script = Script(unavailable=2)
    (found,) = detect(prediction, kind, script, [b"image"])
    assert len(script.requests) == 3
    assert len(found.scores) == 1


@every_kind
def test_the_tries_end(prediction, kind):
    script = Script(unavailable=100)
    with pytest.raises(prediction.ServingError, match="because of UNAVAILABLE") as error:
        detect(prediction, kind, script, [b"image"], tries=3)
    assert error.value.unavailable
    assert len(script.requests) == 3


@every_kind
def test_a_bad_request_is_not_repeated(prediction, kind):
    script = Script(refusal="INVALID_ARGUMENT")
    with pytest.raises(prediction.ServingError, match="because of INVALID_ARGUMENT"):
        detect(prediction, kind, script, [b"image"])
    assert len(script.requests) == 1


@every_kind
def test_the_deadline_holds(prediction, kind):
    started = time.monotonic()
    with pytest.raises(prediction.ServingError, match=r"DEADLINE_EXCEEDED|Timeout"):
        detect(prediction, kind, Script(delay=2.0), [b"image"], deadline=0.5)
    # The server is waited for when it is stopped.
    assert time.monotonic() - started < 4.0


@every_kind
def test_nobody_listens(prediction, kind):
    with KINDS[kind](Script()) as address:
        pass
    made = getattr(prediction, kind)(address, "cells", deadline=1.0, tries=2)

    def ask():
        return asyncio.run(made.detect([b"image"])) if kind.startswith("Async") else made.detect([b"image"])

    with pytest.raises(prediction.ServingError, match=r"UNAVAILABLE|ConnectError"):
        ask()


@pytest.mark.parametrize("kind", ["GrpcClient", "AsyncGrpcClient"])
def test_messages_beyond_grpcs_default(prediction, kind):
    (found,) = detect(prediction, kind, Script(names=False, padding=400_000), [bytes(6 << 20)])
    assert len(found.scores) == 1


def image_file(path, **options):
    image = np.zeros((20, 40, 3), np.uint8)
    image[:10] = [250, 20, 20]
    Image.fromarray(image).save(path, **options)
    return path


def test_files_are_sent_as_they_are_or_upright(client, tmp_path):
    path = image_file(tmp_path / "plain.jpg")
    assert client.encode(path) == path.read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(client.encode(image_file(tmp_path / "turned.png", exif=exif))))
    # A quarter turn clockwise: what was at the top is at the right.
    assert turned.size == (20, 40)
    assert turned.getpixel((15, 20)) == (250, 20, 20)
    assert turned.getpixel((5, 20)) == (0, 0, 0)
    assert Image.open(io.BytesIO(client.encode(image_file(tmp_path / "image.bmp")))).format == "PNG"


@pytest.mark.parametrize("kind", ["--grpc", "--rest"])
def test_the_command_line(client, tmp_path, kind, capsys):
    path = image_file(tmp_path / "image.png")
    np.save(tmp_path / "boxes.npy", np.float32([[0, 0, 1, 1]]))
    script = Script()
    with (grpc_server if kind == "--grpc" else rest_server)(script) as address:
        options = [kind, address, "--model", "cells", "--version", "3", "--proposals", str(tmp_path / "boxes.npy")]
        assert client.main([str(path), *options, "--json"]) == 0
        (result,) = json.loads(capsys.readouterr().out)
        drawing = ["--draw", str(tmp_path / "drawn"), "--draw-threshold", "0"]
        assert client.main([str(path), *options, *drawing]) == 0
    size = len(path.read_bytes())
    assert result["detections"] == [
        {"class": "dög", "score": pytest.approx(size / 1000), "box": [0.25, 0.5, 0.75, 1.0]}
    ]
    assert capsys.readouterr().out.startswith(f"{path}: 1 detections\n  dög {size / 1000:.3f}")
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "image.png"))
    assert drawn[15, 20:].tolist() == [[255, 0, 0]] * 20 or drawn[14, 20].tolist() == [255, 0, 0]
    assert drawn[19, 0].tolist() == [0, 0, 0]


def test_the_command_line_tells_of_errors(client, tmp_path, capsys):
    path = image_file(tmp_path / "image.png")
    with rest_server(Script(refusal="INVALID_ARGUMENT")) as address:
        assert client.main([str(path), "--rest", address, "--model", "cells", "--version", "3"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"client: error: {address}: 400: because of INVALID_ARGUMENT"


def test_proposals_as_in_training(client, tmp_path):
    from tf_fast_rcnn.data import proposals

    settings = proposals.ProposalSettings(dense=proposals.dense_grid())
    (tmp_path / "run.json").write_text(json.dumps({"proposals": settings.to_json()}))
    metadata = {"training": {"run": {"proposals": settings.to_json()}}}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    image = client.encode(image_file(tmp_path / "image.png"))
    pixels = np.asarray(Image.open(io.BytesIO(image)))
    expected = proposals.compute_proposals(pixels, settings)
    for name in ("run.json", "metadata.json"):
        np.testing.assert_array_equal(client.compute_proposals(image, str(tmp_path / name)), expected)
    searched = client.compute_proposals(image, "selective-search")
    np.testing.assert_array_equal(searched, proposals.selective_search(pixels, min_size=0.054))


def test_without_this_package(tmp_path):
    """What stands in serving/ is copied to clients that have the public packages alone."""
    code = f"import sys; sys.path.insert(0, {str(SERVING)!r}); import client; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    loaded = ast.literal_eval(done.stdout)
    assert not [name for name in loaded if name.split(".")[0] in ("tf_fast_rcnn", "tensorflow", "keras")]
