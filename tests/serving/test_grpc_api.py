"""gRPC on the loopback interface, with the client stubs of TensorFlow Serving."""

import io

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from servers import SETTINGS
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from tf_fast_rcnn import detect

AVAILABLE = get_model_status_pb2.ModelVersionStatus.State.AVAILABLE


def code_of(call, *arguments, **options):
    """Code and details of the status of a call."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def test_detections_are_those_of_detect(detector, tiny_model, two_images):
    found = detector.predict(two_images)
    for index, image_bytes in enumerate(two_images["image_bytes"]):
        image = np.asarray(Image.open(io.BytesIO(image_bytes)).convert("RGB"))
        expected = detect(tiny_model, image, two_images["proposals"][index], SETTINGS)
        count = found["num_detections"][index]
        assert count == len(expected.scores) > 0
        np.testing.assert_array_equal(found["detection_classes"][index, :count], expected.class_ids)
        np.testing.assert_allclose(found["detection_scores"][index, :count], expected.scores, atol=1e-4)
        np.testing.assert_allclose(found["detection_boxes"][index, :count], expected.boxes, atol=1e-4)


def test_half_plus_two_answers_in_fields_that_clients_read(example):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "example"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0, 5.0]))
    response = example.prediction.Predict(request)
    assert list(response.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert response.outputs["y"].dtype == tf.float32.as_datatype_enum
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("example", 3, "serving_default")


def test_strings_keep_every_byte(example):
    values = np.array([b"\x00\xff\x00", b""], object)
    found = example.predict({"image_bytes": values}, "images")
    assert found["reversed_bytes"].tolist() == values.tolist()
    assert found["length"].tolist() == [3, 0]


def test_the_output_filter(example):
    request = predict_pb2.PredictRequest(output_filter=["length"])
    request.model_spec.name, request.model_spec.signature_name = "example", "images"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([b"abc"]))
    assert list(example.prediction.Predict(request).outputs) == ["length"]
    request.output_filter.append("width")
    code, text = code_of(example.prediction.Predict, request)
    assert code == "INVALID_ARGUMENT"
    assert "output tensor alias not found in signature: width" in text


X = {"x": np.float32([1])}
# The status codes and messages of TensorFlow Serving, from its sources.
REFUSED = {
    "unknown model": (X, {"name": "other"}, "NOT_FOUND", "Servable not found for request: Latest(other)"),
    "unknown version": (X, {"version": 9}, "NOT_FOUND", "Servable not found for request: Specific(example, 9)"),
    "old version": (X, {"version": 1}, "NOT_FOUND", "Servable not found for request: Specific(example, 1)"),
    "no name": (X, {"name": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    "signature": (X, {"signature": "no"}, "FAILED_PRECONDITION", 'Serving signature key "no" not found.'),
    "missing": ({}, {}, "INVALID_ARGUMENT", "Missing but required: {x}."),
    "extra": (X | {"z": 1.0}, {}, "INVALID_ARGUMENT", "Sent extra: {z}."),
    "dtype": ({"x": np.int64([1])}, {}, "INVALID_ARGUMENT", "found int64 [1]; expected float32"),
    "shape": ({"x": np.float32([[1]])}, {}, "INVALID_ARGUMENT", "found float32 [1, 1]"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(example, what):
    inputs, options, code, text = REFUSED[what]
    found_code, found_text = code_of(example.predict, inputs, **options)
    assert found_code == code
    assert text in found_text


def test_an_image_that_is_none(detector, two_images):
    inputs = two_images | {"image_bytes": np.array([b"no image", b""], object)}
    code, text = code_of(detector.predict, inputs)
    assert code == "INVALID_ARGUMENT"
    assert "image" in text
    assert "File " not in text
    assert len(text.splitlines()) == 1


def test_a_message_beyond_the_limit(detector, two_images):
    inputs = two_images | {"image_bytes": np.array([bytes(1 << 20), b""], object)}
    assert code_of(detector.predict, inputs)[0] == "RESOURCE_EXHAUSTED"


def test_a_deadline(example):
    assert code_of(example.predict, {"steps": np.int32([10**6])}, "work", timeout=0.1)[0] == "DEADLINE_EXCEEDED"


def test_metadata_is_what_the_saved_model_says(detector, detector_versions):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    response = detector.prediction.GetModelMetadata(request)
    assert response.model_spec.version.value == 1
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    graph = tf.compat.v1.saved_model.load(
        tf.compat.v1.Session(graph=tf.Graph()), ["serve"], str(detector_versions / "1")
    )
    assert dict(signatures.signature_def)["regions"] == graph.signature_def["regions"]
    request.metadata_field.append("assets")
    assert code_of(detector.prediction.GetModelMetadata, request) == (
        "INVALID_ARGUMENT",
        "Metadata field assets is not supported",
    )


def test_status_of_versions(example):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "example"
    (status,) = example.models.GetModelStatus(request).model_version_status
    assert (status.version, status.state, status.status.error_code) == (3, AVAILABLE, 0)
    request.model_spec.version.value = 8
    assert code_of(example.models.GetModelStatus, request) == ("NOT_FOUND", "Could not find version 8 of model example")


def test_health(example):
    stub = health_pb2_grpc.HealthStub(example.channel)
    assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    for service in ("ModelService", "PredictionService"):  # as in TensorFlow Serving
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for service in ("other", "tensorflow.serving.PredictionService"):
        assert code_of(stub.Check, health_pb2.HealthCheckRequest(service=service))[0] == "NOT_FOUND"


def test_what_detectors_do_not_have(example):
    call = example.channel.unary_unary("/tensorflow.serving.PredictionService/MultiInference", lambda _: b"", bytes)
    assert code_of(call, b"")[0] == "UNIMPLEMENTED"
    request = classification_pb2.ClassificationRequest()
    assert code_of(example.prediction.Classify, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "other"
    assert code_of(example.prediction.Classify, request) == (
        "NOT_FOUND",
        "Servable not found for request: Latest(other)",
    )
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "example"
    assert code_of(example.prediction.Regress, request) == (
        "INVALID_ARGUMENT",
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict",
    )


def test_labels(example):
    """As in TensorFlow Serving without labels in its configuration: unknown in predictions, ignored in the status."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.version_label = "example", "stable"
    assert code_of(example.prediction.Predict, request) == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: stable",
    )
    status = get_model_status_pb2.GetModelStatusRequest(model_spec=request.model_spec)
    assert [row.version for row in example.models.GetModelStatus(status).model_version_status] == [3]
    assert code_of(example.models.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()) == (
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    )


@st.composite
def tensor_protos(draw):
    """TensorProtos of any type, shape and content, most of which are inconsistent."""
    proto = tf.compat.v1.TensorShape(draw(st.lists(st.integers(0, 4), max_size=4))).as_proto()
    found = predict_pb2.PredictRequest().inputs["x"]
    found.dtype = draw(st.integers(0, 30))
    found.tensor_shape.CopyFrom(proto)
    for size in draw(st.lists(st.sampled_from([-2, -1, 0, 1, 2**31, 2**62]), max_size=2)):
        found.tensor_shape.dim.add(size=size)
    found.tensor_shape.unknown_rank = draw(st.sampled_from([False, False, True]))
    found.tensor_content = draw(st.binary(max_size=20))
    found.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
    found.string_val.extend(draw(st.lists(st.binary(max_size=5), max_size=3)))
    found.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["image_bytes", "proposals", "num_proposals"]), tensor_protos())
def test_no_tensor_is_a_fault(detector, two_images, name, proto):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    for key, value in two_images.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    request.inputs[name].CopyFrom(proto)
    code, text = code_of(detector.prediction.Predict, request, timeout=20)
    assert code in ("OK", "INVALID_ARGUMENT"), text


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_are_a_fault(example, message):
    call = example.channel.unary_unary("/tensorflow.serving.PredictionService/Predict", bytes, bytes)
    code, text = code_of(call, message, timeout=20)
    assert code in ("INVALID_ARGUMENT", "NOT_FOUND"), text
    assert example.predict(X)["y"].tolist() == [2.5]
