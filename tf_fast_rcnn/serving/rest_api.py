"""REST: version 1 of the TensorFlow Serving API, plus metrics and a health check.

Paths, bodies and errors are read and written by the rules of TensorFlow Serving (its `model_servers/http_server.cc` and
`http_rest_api_util.cc`): a request that it refuses is refused here too.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import grpc
from aiohttp import hdrs, web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from tf_fast_rcnn.serving.grpc_api import model_metadata, refuse_method
from tf_fast_rcnn.serving.json_values import check_examples, read_body, signature_name
from tf_fast_rcnn.serving.limits import CONTENT_TYPE
from tf_fast_rcnn.serving.servable import DEFAULT_SIGNATURE
from tf_fast_rcnn.serving.status import ServingError, invalid_argument, to_serving_error
from tf_fast_rcnn.serving.tensors import read_inputs, write_outputs

if TYPE_CHECKING:
    from tf_fast_rcnn.serving.limits import Limits, Metrics
    from tf_fast_rcnn.serving.versions import Model

# The default path of the monitoring configuration of TensorFlow Serving.
METRICS_PATH = "/monitoring/prometheus/metrics"

# Paths are matched as they were sent: with the query, and before %3A is decoded.
_API = re.compile(r"/v1/.*", re.IGNORECASE)
_VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<method>metadata))?", re.IGNORECASE)
_NONE = re.compile(r"(?!)")
_ANY_PAGE = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
_RETRY_SECONDS = "1"
_GZIP = 16 + zlib.MAX_WBITS
_log = logging.getLogger(__name__)


def rest_application(
    model: Model, limits: Limits, metrics: Metrics, max_message_bytes: int, *, enable_cors: bool = False
) -> web.Application:
    """The aiohttp application.

    Args:
        model: `Model`.
        limits: `Limits`.
        metrics: `Metrics`.
        max_message_bytes: maximum size of a request body, also after it is decompressed; larger ones are rejected
            (413).
        enable_cors: whether pages of any site may read the responses.
    """
    api = _Api(model, limits, metrics, max_message_bytes, _ANY_PAGE if enable_cors else {})
    application = web.Application(client_max_size=max_message_bytes, middlewares=[errors_as_json])
    application.on_response_prepare.append(without_server_version)
    application.on_response_prepare.append(api.add_headers)
    application.router.add_get(METRICS_PATH, api.metrics)
    application.router.add_get("/healthz", api.health)
    application.router.add_route("*", "/{rest:.*}", api.answer)
    return application


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Middleware that returns every error as `{"error": TEXT}` with the HTTP status for its code."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response({"error": error.text or error.reason}, status=error.status)
    except Exception as error:
        failure = to_serving_error(error)
        if failure.http_status == 500:
            _log.exception("%s failed", request.path)
        headers = {hdrs.RETRY_AFTER: _RETRY_SECONDS} if failure.http_status == 503 else None
        return web.json_response({"error": failure.message}, status=failure.http_status, headers=headers)


async def without_server_version(_: web.Request, response: web.StreamResponse) -> None:
    """Signal handler: responses do not tell which software and version wrote them, like those of TensorFlow Serving."""
    response.headers.popall(hdrs.SERVER, None)


def decoded_body(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body of a request without its compression.

    Like TensorFlow Serving, this only knows gzip, and takes a body that is not what its encoding says as empty.

    Args:
        body: the body as sent.
        encoding: the Content-Encoding header.
        max_bytes: maximum size of the result.

    Raises:
        web.HTTPRequestEntityTooLarge: if the result is larger.
    """
    if "gzip" not in encoding:
        return body
    stream = zlib.decompressobj(_GZIP)
    try:
        content = stream.decompress(body, max_bytes + 1)
    except zlib.error:
        return b""
    if len(content) > max_bytes:
        raise web.HTTPRequestEntityTooLarge(max_bytes)
    return content if stream.eof and not stream.unused_data else b""


class _Api:
    def __init__(self, model, limits, metrics, max_message_bytes, cors_headers):
        self._model = model
        self._limits = limits
        self._metrics = metrics
        self._max_message_bytes = max_message_bytes
        self._cors_headers = cors_headers

    async def metrics(self, request):
        if request.raw_path != METRICS_PATH:
            raise invalid_argument(f"Unexpected path: {request.raw_path}. Should be {METRICS_PATH}")
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def health(self, _):
        if not self._model.available:
            raise ServingError(grpc.StatusCode.UNAVAILABLE, "no version is available")
        return web.json_response({"status": "SERVING"})

    async def add_headers(self, request, response):
        if _API.fullmatch(_sent_path(request)):
            response.headers.update(self._cors_headers)

    async def answer(self, request):
        path = _sent_path(request)
        if not _API.fullmatch(path):
            raise web.HTTPNotFound
        if request.method == "OPTIONS":
            return _preflight(request)
        match = {"POST": _PREDICT, "GET": _STATUS}.get(request.method, _NONE).fullmatch(path)
        # The names of methods are not matched regardless of case, although their paths are.
        if not match or (request.method == "POST" and not match["method"].islower()):
            raise invalid_argument(f"Malformed request: {request.method} {path}")
        method = "metadata" if match["method"] == "metadata" else "status"
        if request.method == "POST":
            method = match["method"]
        with self._metrics.observed("rest", method):
            spec = _model_spec(match)
            if request.method == "GET":
                answer = {"metadata": _metadata, "status": _status}[method](self._model, spec)
            else:
                sent = await request.read(), request.headers.get(hdrs.CONTENT_ENCODING, "")
                answer = await self._limits.run(self._post, method, spec, *sent)
        return web.Response(body=answer, content_type="application/json")

    def _post(self, method, spec, body, encoding):
        body = decoded_body(body, encoding, self._max_message_bytes)
        if method == "predict":
            return predict_json(self._model, spec, body)
        value = read_body(body)
        spec.signature_name = signature_name(value)
        check_examples(value)
        return refuse_method(self._model, spec, method)


def _sent_path(request):
    """The path and query of a request as they were sent, for a URL of a proxy without its host."""
    path = request.raw_path
    if path.startswith("/"):
        return path
    parts = urlsplit(path)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _preflight(request):
    """The answer to a browser's question whether a page may send a request; the CORS headers are added later."""
    if not re.match("https?://", request.headers.get(hdrs.ORIGIN, "")):
        raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, "Origin header is missing in CORS preflight")
    return web.Response(content_type="application/json")


def _model_spec(match):
    if not match["name"]:
        raise invalid_argument("Missing model name in request.")
    spec = model_pb2.ModelSpec(name=unquote(match["name"]))
    if match["version"]:
        if int(match["version"]) >= 1 << 63:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = unquote(match["label"])
    return spec


def predict_json(model: Model, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
    """Runs a :predict request; returns the body of the response.

    Raises:
        ServingError: if the request is invalid or the model is not available.
    """
    value = read_body(body)
    name = signature_name(value) or DEFAULT_SIGNATURE
    with model.using(spec) as (_, servable):
        if name not in servable.signature_defs:
            raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
        signature_def = servable.signature_defs[name]
        if not signature_def.inputs:
            raise invalid_argument(f"Failed to get input map for signature: {signature_name(value) or 'DEFAULT'}")
        inputs, by_row = read_inputs(value, signature_def)
        return write_outputs(servable.run(name, inputs), by_row)


def _status(model, spec):
    response = get_model_status_pb2.GetModelStatusResponse(model_version_status=model.statuses(spec))
    value = _to_dict(response)
    for version in value["model_version_status"]:
        status = version.setdefault("status", {"error_code": "OK", "error_message": ""})
        status.setdefault("error_message", "")
    return json.dumps(value, indent=1).encode()


def _metadata(model, spec):
    response = model_metadata(model, spec)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    spec = {"name": model.name, "signature_name": "", "version": str(response.model_spec.version.value)}
    return json.dumps({"model_spec": spec, "metadata": {"signature_def": _to_dict(signatures)}}, indent=1).encode()


def _to_dict(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
