"""The same requests to the embedded server and to TensorFlow Serving, if it is installed."""

import shutil

import grpc
import pytest
import test_grpc_api
import test_rest_api
from servers import Served, in_thread

from tf_fast_rcnn.serving.model_server import PROGRAM, model_server
from tf_fast_rcnn.serving.server import ServerSettings


@pytest.fixture(scope="module")
def stock(example_versions):
    """TensorFlow Serving with the latest version of the example model."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"no {PROGRAM} on the PATH; other tests compare with its documentation")
    with in_thread(model_server("example", example_versions, ServerSettings(grpc_port=0, rest_port=0))) as (_, ports):
        yield Served("example", ports)


ANSWERED = test_rest_api.DOCUMENTED | test_rest_api.TAKEN


@pytest.mark.parametrize("what", ANSWERED)
def test_answers(stock, example, what):
    body, _ = ANSWERED[what]
    assert test_rest_api.post(stock, body) == test_rest_api.post(example, body)


@pytest.mark.parametrize("what", test_rest_api.REFUSED)
def test_statuses_of_what_is_refused(stock, example, what):
    body, _ = test_rest_api.REFUSED[what]
    assert test_rest_api.post(stock, body)[0] == test_rest_api.post(example, body)[0]


@pytest.mark.parametrize("path", ["", "/versions/3", "/versions/7", "/metadata", "x", "/labels/a"])
def test_states_and_metadata(stock, example, path):
    assert test_rest_api.get(stock, path) == test_rest_api.get(example, path)


@pytest.mark.parametrize("what", test_grpc_api.REFUSED)
def test_codes(stock, example, what):
    inputs, options, *_ = test_grpc_api.REFUSED[what]
    codes = [test_grpc_api.code_of(server.predict, inputs, **options)[0] for server in (stock, example)]
    assert codes[0] == codes[1] != grpc.StatusCode.OK.name
