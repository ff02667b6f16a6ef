"""REST on the loopback interface: the examples in TensorFlow Serving's documentation, and rejected requests."""

import base64
import contextlib
import gzip
import http.client
import json
import zlib

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import served


def post(server, body, path=":predict"):
    """`(status, response)`; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body)
    response = requests.post(server.url(path), data=data, timeout=60)
    return response.status_code, response.json()


def sent(server, method, path, body=b"", **headers):
    """`(status, headers, response)` of a request whose path is sent as it is; `_` in names of headers means `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["rest"], timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
        return response.status, response.headers, json.loads(content) if content else None


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
# What TensorFlow Serving takes too, by its sources, and by RapidJSON and Abseil, with which it reads JSON and base64.
TAKEN = {
    "Inf": (b'{"instances": [-Inf, Inf]}', {"predictions": [float("-inf"), float("inf")]}),
    "Inf in a string": (
        b'{"signature_name": "images", "instances": ["Inf", "\\"Inf"], "x": Inf}',
        {
            "predictions": [
                {"reversed_bytes": {"b64": "SW5m"}, "length": 3},
                {"reversed_bytes": {"b64": "IkluZg=="}, "length": 4},
            ]
        },
    ),
    "extra input": ({"inputs": {"x": [1.0], "id": [7]}}, {"outputs": [2.5]}),
    "extra key": ({"instances": [1.0], "id": 7}, {"predictions": [2.5]}),
    "text after the JSON": (b'{"instances": [1.0]} {', {"predictions": [2.5]}),
    "instances twice": (b'{"instances": [1.0], "instances": [5.0]}', {"predictions": [2.5]}),
    "an input twice": (b'{"inputs": {"x": [1.0], "x": [5.0]}}', {"outputs": [2.5]}),
    "a name twice in the only row": (b'{"instances": [{"x": 1, "x": 2}]}', {"predictions": [2.5]}),
    "byte order mark": (b'\xef\xbb\xbf{"instances": [1.0]}', {"predictions": [2.5]}),
    "surrogate pair": (
        b'{"signature_name": "images", "instances": ["\\\\ud800 \\ud83d\\ude00"], "\\uD83D\\uDE00": 1}',
        {"predictions": [{"reversed_bytes": {"b64": "XHVkODAwIPCfmIA="}, "length": 11}]},
    ),
    "integer of 80 bits": ({"instances": [1 << 80]}, {"predictions": [float(1 << 79)]}),
    "largest integer of a float": ({"instances": [(1 << 24) - 1]}, {"predictions": [8388610.0]}),
    "base64 with line breaks": (
        {"signature_name": "images", "instances": [{"b64": base64.encodebytes(b"image bytes " * 9).decode()}]},
        {"predictions": [{"reversed_bytes": {"b64": base64.b64encode(b"image bytes " * 9).decode()}, "length": 108}]},
    ),
    "base64 without padding": (
        {"signature_name": "images", "instances": [{"b64": IMAGE["b64"].rstrip("=")}]},
        {"predictions": [OF_IMAGE]},
    ),
    "bytes that are not UTF-8": (
        b'{"signature_name": "images", "instances": ["\xff"]}',
        {"predictions": [{"reversed_bytes": {"b64": "/w=="}, "length": 1}]},
    ),
}


@pytest.mark.parametrize("what", DOCUMENTED)
def test_documented_requests(example, what):
    body, answer = DOCUMENTED[what]
    assert post(example, body) == (200, answer)


@pytest.mark.parametrize("what", TAKEN)
def test_what_tensorflow_serving_takes_too(example, what):
    body, answer = TAKEN[what]
    assert post(example, body) == (200, answer)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/example/versions/3:predict",
        "/V1/Models/example:predict",
        "/v1/models/example/VERSIONS/003:predict",
        "/v1/models/ex%61mple:predict",
        "http://other/v1/models/example:predict",  # as a proxy is asked
    ],
)
def test_other_paths_of_the_same(example, path):
    assert sent(example, "POST", path, b'{"instances": [1.0]}')[::2] == (200, {"predictions": [2.5]})


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
    "true among numbers": ({"instances": [1.0, True]}, 400),
    "UTF-16": ('{"instances": [1.0]}'.encode("utf-16"), 400),
    "number beyond a double": (b'{"instances": [1e400]}', 400),
    "number beyond a double where it is ignored": (b'{"instances": [1.0], "id": -1e400}', 400),
    "integer beyond a double": (b'{"instances": [1' + b"0" * 309 + b"]}", 400),
    "integer of 5000 digits": (b'{"instances": [' + b"9" * 5000 + b"]}", 400),
    "extra name in a row": ({"instances": [{"x": 1.0, "id": 7}]}, 400),
    "half a surrogate pair": (b'{"signature_name": "images", "instances": ["\\ud800"]}', 400),
    "half a surrogate pair where it is ignored": (b'{"instances": [1.0], "id": "\\\\\\ud83d\\u0041"}', 400),
    "bytes twice": (b'{"signature_name": "images", "inputs": [{"b64": "aGk=", "b64": "aGk="}]}', 400),
    "too much padding": ({"signature_name": "images", "instances": [{"b64": "aGk=="}]}, 400),
}
# What versions of TensorFlow Serving take: they round numbers silently, or mix values up.
STRICTER = {
    "number beyond a float": ({"instances": [1e39]}, 400),
    "integer that no float is": ({"instances": [(1 << 24) + 1]}, 400),
    "a name twice in rows": (b'{"instances": [{"x": 1, "x": 2}, {"x": 3}]}', 400),
    "second half of a surrogate pair": (b'{"signature_name": "images", "instances": ["\\udc80"]}', 400),
}


@pytest.mark.parametrize("what", REFUSED | STRICTER)
def test_what_is_refused(example, what):
    body, status = (REFUSED | STRICTER)[what]
    found, answer = post(example, body)
    assert found == status
    assert list(answer) == ["error"]
    assert answer["error"]


# The words of TensorFlow Serving, from its sources; those of RapidJSON were compared with it, compiled.
WORDS = {
    "empty": (b"", "JSON Parse error: The document is empty"),
    "blanks": (b" \n", "JSON Parse error: The document is empty. at offset: 2"),
    "no value": (b'{"a":x}', "JSON Parse error: Invalid value. at offset: 5"),
    "byte order mark": (b'\xef\xbb\xbf{"a":x}', "JSON Parse error: Invalid value. at offset: 8"),
    "byte order mark and blanks": (b"\xef\xbb\xbf ", "JSON Parse error: The document is empty. at offset: 4"),
    "half a surrogate pair": (
        b'{"a":"\\ud800"}',
        "JSON Parse error: The surrogate pair in string is invalid. at offset: 6",
    ),
    "half a literal": (b'{"a":nul}', "JSON Parse error: Invalid value. at offset: 8"),
    "no name": (b"{1:2}", "JSON Parse error: Missing a name for object member. at offset: 1"),
    "no colon": (b'{"a" 1}', "JSON Parse error: Missing a colon after a name of object member. at offset: 5"),
    "no comma": (b'{"a":1 "b":2}', "JSON Parse error: Missing a comma or '}' after an object member. at offset: 7"),
    "no comma in a list": (
        '{"ä":"]","b":[1 2]}'.encode(),
        "JSON Parse error: Missing a comma or ']' after an array element. at offset: 17",
    ),
    "no quotation mark": (b'{"a":"b', "JSON Parse error: Missing a closing quotation mark in string. at offset: 7"),
    "no such escape": (b'{"a":"\\q"}', "JSON Parse error: Invalid escape character in string. at offset: 6"),
    "no fraction": (b'{"a":1.}', "JSON Parse error: Miss fraction part in number. at offset: 7"),
    "no exponent": (b'{"a":1e}', "JSON Parse error: Miss exponent in number. at offset: 7"),
    "no object": (b"[1]", "JSON Value: [\n    1\n] Is not object"),
    "neither": ({}, "Missing 'inputs' or 'instances' key"),
    "rows of no list": (
        {"instances": 1},
        "JSON Value: {\n    \"instances\": 1\n} Excepting 'instances' to be an list/array",
    ),
    "names": (
        {"instances": [{}]},
        "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: x",
    ),
    "no rows": ({"instances": []}, "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
    "signature": ({"signature_name": "x", "instances": [1]}, 'Serving signature name: "x" not found in signature def'),
    "type": ({"inputs": [1.0, True]}, "JSON Value: true Type: True is not of expected type: float"),
    "type in a row": (
        {"instances": [1.0, "1"]},
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"1\" Type: String is "
        "not of expected type: float",
    ),
    "integer": ({"inputs": [1 << 24]}, "Cannot convert JSON value: 16777216 to float without loss of precision."),
    "missing": ({"inputs": {"z": [1.0]}}, "Missing named input: x in 'inputs' object."),
    "extra in a row": (
        {"instances": [{"x": 1.0}, {"z": 1.0}]},
        "Failed to process element: 1 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have "
        "named input: z",
    ),
    "sizes": (
        {"instances": [[1.0], [1.0, 2.0]]},
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 1 but got: "
        "2",
    ),
    "shapes": (
        {"instances": [[1.0], [[1.0]]]},
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [1] but got: [1,1]",
    ),
    "ragged": (
        {"inputs": [[1.0], [1.0, 2.0]]},
        "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
    ),
    "base64": ({"signature_name": "images", "inputs": [{"b64": "?"}]}, "Unable to base64 decode"),
}


@pytest.mark.parametrize("what", WORDS)
def test_errors_have_the_words_of_tensorflow_serving(example, what):
    body, text = WORDS[what]
    assert post(example, body) == (400, {"error": text})


def test_errors_of_the_graph_say_nothing_of_python(detector, two_images):
    body = {"signature_name": "serving_default", "inputs": {"image_bytes": ["no image"], "num_proposals": [1]}}
    body["inputs"]["proposals"] = [[[0.1, 0.1, 0.5, 0.5]]]
    status, answer = post(detector, body)
    assert status == 400
    for foreign in ("stack traces", "[Op:", "function_node", "Graph execution error", "name: "):
        assert foreign not in answer["error"]


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/versions/9:predict", 404, "Servable not found for request: Specific(example, 9)"),
        ("/versions/99999999999999999999:predict", 400, "Failed to convert version"),
        ("/labels/stable:predict", 400, "Unrecognized servable version label: stable"),
        (":PREDICT", 400, "Malformed request: POST /v1/models/example:PREDICT"),
        (":predict?x=1", 400, "Malformed request: POST /v1/models/example:predict?x=1"),
        ("?x=1:predict", 404, "Servable not found for request: Latest(example?x=1)"),
        ("%3Apredict", 400, "Malformed request: POST /v1/models/example%3Apredict"),
        (":explain", 400, "Malformed request: POST /v1/models/example:explain"),
    ],
)
def test_paths_that_are_refused(example, path, status, text):
    found, _, answer = sent(example, "POST", f"/v1/models/example{path}", b'{"instances": [1.0]}')
    assert found == status
    assert text in answer["error"]


@pytest.mark.parametrize(
    ("model", "body", "status", "text"),
    [
        ("example", {"examples": [{"x": 1}]}, 400, "method_name to be tensorflow/serving/classify. Was: tensorflow/se"),
        ("example", {"signature_name": "no", "examples": [{}]}, 400, "No signature was found with the name: no"),
        ("example", {"instances": [1]}, 400, "key 'examples' is expected and was not found"),
        ("example", {"examples": [1]}, 400, "Example must be JSON object but got JSON Number"),
        ("example", b"{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("other", {"examples": [{"x": 1}]}, 404, "Servable not found for request: Latest(other)"),
    ],
)
def test_classify(example, model, body, status, text):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found, _, answer = sent(example, "POST", f"/v1/models/{model}:classify", data)
    assert found == status
    assert text in answer["error"]
    assert sent(example, "POST", f"/v1/models/{model}:regress", data)[0] == status


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_compressed_bodies(example, encoding):
    body = b'{"instances": [1.0]}'
    path = "/v1/models/example:predict"
    assert sent(example, "POST", path, gzip.compress(body), Content_Encoding=encoding)[::2] == (
        200,
        {"predictions": [2.5]},
    )
    empty = (400, {"error": "JSON Parse error: The document is empty"})
    for damaged in (body, gzip.compress(body)[:-4], gzip.compress(body) + b"x"):
        assert sent(example, "POST", path, damaged, Content_Encoding=encoding)[::2] == empty


def test_other_encodings_are_not_decoded_and_bombs_are_refused(example, detector):
    status, _, answer = sent(
        example, "POST", "/v1/models/example:predict", zlib.compress(b'{"instances": [1]}'), Content_Encoding="deflate"
    )
    assert (status, answer) == (400, {"error": "JSON Parse error: Invalid value. at offset: 0"})
    bomb = gzip.compress(bytes(50 << 20))
    assert len(bomb) < 1 << 20
    assert sent(detector, "POST", "/v1/models/tiny:predict", bomb, Content_Encoding="gzip")[0] == 413


CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


def cors_headers(headers):
    return {name: value for name, value in headers.items() if name.startswith("Access-Control")}


def test_preflight_requests(example, example_versions):
    path = "/v1/models/example:predict"
    origin = {"Origin": "http://localhost:3000"}
    status, headers, content = sent(example, "OPTIONS", path, **origin)
    assert (status, cors_headers(headers), content) == (200, {}, None)
    assert sent(example, "OPTIONS", path)[::2] == (400, {"error": "Origin header is missing in CORS preflight"})
    with served("example", example_versions / "3", enable_cors=True) as server:
        for method, body in (("OPTIONS", b""), ("POST", b'{"instances": [1.0]}')):
            status, headers, _ = sent(server, method, path, body, **origin)
            assert (status, cors_headers(headers)) == (200, CORS)
        status, headers, _ = sent(server, "POST", path, b"{", **origin)
        assert (status, cors_headers(headers)) == (400, CORS)
        assert cors_headers(sent(server, "GET", "/healthz", **origin)[1]) == {}


def test_headers_do_not_tell_the_software(example):
    for method, path in (("GET", "/v1/models/example"), ("GET", "/none"), ("POST", "/v1/x"), ("GET", "/healthz")):
        assert "Server" not in sent(example, method, path)[1]


def test_paths_outside_of_the_api(example):
    for method in ("GET", "POST", "OPTIONS"):
        assert sent(example, method, "/v2/models/example")[0] == 404
    status, _, answer = sent(example, "GET", "/monitoring/prometheus/metrics?x=1")
    assert (status, answer["error"]) == (
        400,
        "Unexpected path: /monitoring/prometheus/metrics?x=1. Should be /monitoring/prometheus/metrics",
    )


def test_a_body_beyond_the_limit(detector):
    assert post(detector, bytes(2 << 20))[0] == 413


def test_status(example):
    version = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert get(example) == (200, {"model_version_status": [version]})
    assert get(example, "/versions/3") == get(example)
    assert get(example, "/labels/stable") == get(example)
    assert get(example, "/METADATA") == get(example)  # TensorFlow Serving only matches the path regardless of case.
    assert get(example, "?x=1") == (404, {"error": "Could not find any versions of model example?x=1"})
    assert sent(example, "GET", "/v1/models")[::2] == (400, {"error": "Missing model name in request."})
    assert sent(example, "POST", "/v1/models:predict")[::2] == (
        400,
        {"error": "Malformed request: POST /v1/models:predict"},
    )
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
