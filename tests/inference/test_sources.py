"""Detections of TF Lite files and of servers, against those of the run that they were made of."""

import concurrent.futures
import json

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError
from tf_fast_rcnn.inference.sources import open_source


class Server(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers as TensorFlow Serving does: by `serving_default` of a SavedModel, or NOT_FOUND for another name."""

    def __init__(self, saved_model):
        self.model = tf.saved_model.load(str(saved_model))

    def Predict(self, request, context):  # noqa: N802
        if request.model_spec.name != "digits":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request.model_spec.name}")
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for name, value in self.model.signatures["serving_default"](**inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


@pytest.fixture(scope="module")
def settings(tiny_run):
    return frcnn.detection_settings(frcnn.load_run(tiny_run[0]), max_detections=20)


@pytest.fixture(scope="module")
def server(tiny_run, settings, tmp_path_factory):
    """Address of a server of the small run's export."""
    run = frcnn.load_run(tiny_run[0])
    folder = tmp_path_factory.mktemp("served") / "1"
    frcnn.export_saved_model(run.model, folder, class_names=run.class_names, settings=settings)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Server(folder), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"grpc://127.0.0.1:{port}"
        server.stop(None)


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine.scores) == len(theirs.scores) > 0
        # Hardly trained, it scores many boxes nearly alike: the first are unmistakable.
        np.testing.assert_allclose(mine.scores[:5], theirs.scores[:5], atol=1e-4)
        np.testing.assert_allclose(mine.boxes[0], theirs.boxes[0], atol=1e-4)


def test_a_server_detects_what_the_run_does(server, tiny_run, prepared_digits, settings):
    model, test = frcnn.load_run(tiny_run[0]).model, prepared_digits[1]
    expected = [frcnn.detect(model, record.image(), record.proposals(), settings) for record in test]
    assert_same(list(open_source(f"{server}/digits").detect(test, progress=False)), expected)


def test_a_tflite_file_detects_what_the_run_does(tiny_run, prepared_digits, settings, tmp_path):
    run, test = frcnn.load_run(tiny_run[0]), prepared_digits[1]
    path = tmp_path / "digits.tflite"
    frcnn.export_tflite(run.model, path, class_names=run.class_names, settings=settings, proposals=run.proposals)
    source = open_source(path)
    expected = [frcnn.detect(run.model, record.image(), record.proposals(), settings) for record in test]
    assert_same(list(source.detect(test, progress=False)), expected)
    assert source.class_names == tuple(run.class_names)
    assert source.proposals == run.proposals


def test_a_saved_model_knows_the_proposals_of_training(tiny_run, tmp_path):
    from tf_fast_rcnn import cli

    assert cli.main(["export", str(tiny_run[0]), "--out", str(tmp_path / "1")]) == 0
    run, source = frcnn.load_run(tiny_run[0]), open_source(tmp_path / "1")
    assert source.class_names == tuple(run.class_names)
    assert source.proposals == run.proposals


def test_a_server_without_the_model(server, prepared_digits):
    source = open_source(f"{server}/letters")
    with pytest.raises(
        InputError, match=r"/letters: found NOT_FOUND \(Servable not found .*\); expected detections of"
    ):
        next(iter(source.detect(prepared_digits[1], progress=False)))


def test_no_server(prepared_digits):
    source = open_source("grpc://127.0.0.1:1/digits")
    with pytest.raises(InputError, match=r"^grpc://127.0.0.1:1/digits: found UNAVAILABLE"):
        next(iter(source.detect(prepared_digits[1], progress=False)))


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:8500", "grpc:///digits", "grpc://host:8500/a/b"])
def test_no_address(url):
    with pytest.raises(InputError, match=r"found no server's model; expected grpc://HOST:PORT/NAME"):
        open_source(url)


def test_evaluate_asks_a_server(server, prepared_digits, capsys):
    from tf_fast_rcnn import cli

    folder = prepared_digits[1].records.sources[0].paths[0].rsplit("/", 1)[0]
    assert cli.main(["evaluate", f"{server}/digits", "--data", f"prepared:{folder}", "--json", "-"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["mean_ap"] <= 1
