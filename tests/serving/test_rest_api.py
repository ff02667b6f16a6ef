"""REST on the loopback interface: the examples in TensorFlow Serving's documentation, and rejected requests."""

import base64
import json

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st


def post(server, body, path=":predict"):
    """`(status, response)`; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body)
    response = requests.post(server.url(path), data=data, timeout=60)
    return response.status_code, response.json()


def get(server, path=""):
    response = requests.get(server.url(path), timeout=60)
    return response.status_code, response.json()


# https://www.tensorflow.org/tfx/serving/api_rest: requests by row and by column, with the answers of `save_example`.
ROWS = [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
ANSWERS = [
    {"tag": "foo", "signal": 15, "sensor": [[1, 3], [2, 4]]},
    {"tag": "bar", "signal": 15, "sensor": [[4, 6], [5, 8]]},
]
IMAGE = {"b64": base64.b64encode(b"image bytes").decode()}
OF_IMAGE = {"reversed_bytes": IMAGE, "length": 11}
DOCUMENTED = {
    "values": ({"instances": [1.0, 2.0, 5.0]}, {"predictions": [2.5, 3.0, 4.5]}),
    "whole numbers for floats": ({"instances": [1, 2, 5]}, {"predictions": [2.5, 3.0, 4.5]}),
    "one name": ({"instances": [{"x": 1.0}]}, {"predictions": [2.5]}),
    "column": ({"inputs": [1.0, 2.0]}, {"outputs": [2.5, 3.0]}),
    "named column": ({"inputs": {"x": [1.0]}}, {"outputs": [2.5]}),
    "rows": ({"signature_name": "mixed", "instances": ROWS}, {"predictions": ANSWERS}),
    "columns": (
        {"signature_name": "mixed", "inputs": COLUMNS},
        {"outputs": {name: [row[name] for row in ANSWERS] for name in ANSWERS[0]}},
    ),
    "bytes": ({"signature_name": "images", "instances": [IMAGE]}, {"predictions": [OF_IMAGE]}),
    "named bytes": ({"signature_name": "images", "instances": [{"image_bytes": IMAGE}]}, {"predictions": [OF_IMAGE]}),
    "NaN": (b'{"instances": [Infinity]}', {"predictions": [float("inf")]}),
}


@pytest.mark.parametrize("what", DOCUMENTED)
def test_documented_requests(example, what):
    body, answer = DOCUMENTED[what]
    assert post(example, body) == (200, answer)


@pytest.mark.parametrize("path", ["/versions/3:predict", ":PREDICT"])
def test_other_paths_of_the_same(example, path):
    assert post(example, {"instances": [1.0]}, path) == (200, {"predictions": [2.5]})


def test_detections_are_those_over_grpc(detector, two_images):
    expected = detector.predict(two_images)
    rows = [
        {
            "image_bytes": {"b64": base64.b64encode(two_images["image_bytes"][index]).decode()},
            "proposals": two_images["proposals"][index].tolist(),
            "num_proposals": int(two_images["num_proposals"][index]),
        }
        for index in range(2)
    ]
    status, answer = post(detector, {"instances": rows})
    assert status == 200
    for name, values in expected.items():
        np.testing.assert_array_equal([row[name] for row in answer["predictions"]], values)
    status, answer = post(detector, {"inputs": {name: [row[name] for row in rows] for name in rows[0]}})
    assert status == 200
    for name, values in expected.items():
        np.testing.assert_array_equal(answer["outputs"][name], values)


REFUSED = {
    "empty": (b"", 400),
    "no JSON": (b"{", 400),
    "a list": ([1], 400),
    "neither": ({}, 400),
    "both": ({"inputs": [1.0], "instances": [1.0]}, 400),
    "no rows": ({"instances": []}, 400),
    "rows of no list": ({"instances": 1}, 400),
    "other name": ({"instances": [{"z": 1.0}]}, 400),
    "names differ": ({"signature_name": "mixed", "instances": [ROWS[0], {"tag": "a"}]}, 400),
    "no names": ({"signature_name": "mixed", "instances": [1]}, 400),
    "string for number": ({"instances": ["1.0"]}, 400),
    "bool for number": ({"instances": [True]}, 400),
    "ragged": ({"instances": [[1.0], [1.0, 2.0]]}, 400),
    "float for int": ({"signature_name": "work", "instances": [1.5]}, 400),
    "int beyond int32": ({"signature_name": "work", "instances": [1 << 40]}, 400),
    "int beyond int64": ({"signature_name": "work", "instances": [1 << 80]}, 400),
    "bad base64": ({"signature_name": "images", "instances": [{"b64": "?"}]}, 400),
    "number for bytes": ({"signature_name": "images", "instances": [1]}, 400),
    "rank": ({"inputs": 1.0}, 400),
    "signature": ({"signature_name": "no", "instances": [1.0]}, 400),
    "signature of no string": ({"signature_name": 1, "instances": [1.0]}, 400),
    "deep": (b'{"instances": ' + b"[" * 100_000, 400),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(example, what):
    body, status = REFUSED[what]
    found, answer = post(example, body)
    assert found == status
    assert list(answer) == ["error"]
    assert answer["error"]


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/versions/9:predict", 404, "Servable not found for request: Specific(example, 9)"),
        ("/versions/99999999999999999999:predict", 400, "Failed to convert version"),
        ("/labels/stable:predict", 400, "Unrecognized servable version label: stable"),
        (":classify", 501, "expected predict"),
        (":explain", 400, "Malformed request: POST /v1/models/example:explain"),
    ],
)
def test_paths_that_are_refused(example, path, status, text):
    found, answer = post(example, {"instances": [1.0]}, path)
    assert found == status
    assert text in answer["error"]


def test_a_body_beyond_the_limit(detector):
    assert post(detector, bytes(2 << 20))[0] == 413


def test_status(example):
    version = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert get(example) == (200, {"model_version_status": [version]})
    assert get(example, "/versions/3") == get(example)
    assert get(example, "/versions/7") == (404, {"error": "Could not find version 7 of model example"})
    assert get(example, "x") == (404, {"error": "Could not find any versions of model examplex"})


def test_metadata(detector):
    status, answer = get(detector, "/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    proposals = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["proposals"]
    assert proposals["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in proposals["tensor_shape"]["dim"]] == ["-1", "-1", "4"]


def test_health_and_metrics(example):
    base = f"http://127.0.0.1:{example.ports['rest']}"
    assert requests.get(f"{base}/healthz", timeout=60).status_code == 200

    def counted():
        lines = requests.get(f"{base}/monitoring/prometheus/metrics", timeout=60).text.splitlines()
        label = 'tf_fast_rcnn_requests_total{method="predict",protocol="rest",status="INVALID_ARGUMENT"} '
        return sum(float(line.removeprefix(label)) for line in lines if line.startswith(label))

    before = counted()
    post(example, {"instances": ["one"]})
    assert counted() == before + 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(IMAGE),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*COLUMNS, "b64", "x"]), inner),
    max_leaves=8,
)
BODIES = st.fixed_dictionaries(
    {}, optional={"instances": JSON, "inputs": JSON, "signature_name": st.sampled_from(["mixed", "images", "", None])}
)


@settings(max_examples=80, deadline=None)
@given(BODIES)
def test_no_json_is_a_fault(example, body):
    status, answer = post(example, body)
    assert status in (200, 400), answer


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20), st.sampled_from(["GET", "POST", "PUT"])
)
def test_no_path_is_a_fault(example, path, method):
    response = requests.request(method, example.url(path), data=b"{}", timeout=60)
    assert response.status_code in (200, 400, 404, 405, 501), response.text


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 400), st.binary(max_size=3))
def test_no_damaged_body_is_a_fault(example, position, bytes_):
    body = json.dumps({"signature_name": "mixed", "instances": ROWS}).encode()
    status, answer = post(example, body[:position] + bytes_ + body[position + len(bytes_) :])
    assert status in (200, 400), answer
