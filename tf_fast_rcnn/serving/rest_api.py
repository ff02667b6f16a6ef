"""REST: TensorFlow Serving's API, version 1, with metrics and health beside it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import grpc
from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from tf_fast_rcnn.serving.grpc_api import model_metadata
from tf_fast_rcnn.serving.json_tensors import read_body, read_inputs, write_outputs
from tf_fast_rcnn.serving.metrics import CONTENT_TYPE
from tf_fast_rcnn.serving.status import ServingError, invalid_argument, to_serving_error

if TYPE_CHECKING:
    from tf_fast_rcnn.serving.limits import Limits
    from tf_fast_rcnn.serving.metrics import Metrics
    from tf_fast_rcnn.serving.versions import Model

# The path that TensorFlow Serving's own monitoring configuration has by default.
METRICS_PATH = "/monitoring/prometheus/metrics"

_MODEL = r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(_MODEL + r"(?:/(?P<method>metadata))?", re.IGNORECASE)
_log = logging.getLogger(__name__)


def rest_application(model: Model, limits: Limits, metrics: Metrics, max_message_bytes: int) -> web.Application:
    """The aiohttp application.

    Args:
        model: `Model`.
        limits: `Limits`.
        metrics: `Metrics`.
        max_message_bytes: larger bodies are refused (413).
    """
    api = _Api(model, limits, metrics)
    application = web.Application(client_max_size=max_message_bytes, middlewares=[errors_as_json])
    application.router.add_get(METRICS_PATH, api.metrics)
    application.router.add_get("/healthz", api.health)
    application.router.add_route("*", "/v1/{rest:.*}", api.answer)
    return application


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every error is `{"error": TEXT}` with the status of its code."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response({"error": error.text or error.reason}, status=error.status)
    except Exception as error:
        failure = to_serving_error(error)
        if failure.http_status == 500:
            _log.exception("%s failed", request.path)
        return web.json_response({"error": failure.message}, status=failure.http_status)


class _Api:
    def __init__(self, model, limits, metrics):
        self._model = model
        self._limits = limits
        self._metrics = metrics

    async def metrics(self, _):
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def health(self, _):
        if not self._model.available:
            raise ServingError(grpc.StatusCode.UNAVAILABLE, "no version is available")
        return web.json_response({"status": "SERVING"})

    async def answer(self, request):
        pattern = {"POST": _PREDICT, "GET": _STATUS}.get(request.method)
        match = pattern and pattern.fullmatch(request.path)
        if not match:
            raise invalid_argument(f"Malformed request: {request.method} {request.path}")
        method = (match["method"] or "status").lower()
        with self._metrics.observed("rest", method):
            spec = _model_spec(match)
            if method == "predict":
                body = await request.read()
                answer = await self._limits.run(predict_json, self._model, spec, body)
            elif method in ("metadata", "status"):
                answer = {"metadata": _metadata, "status": _status}[method](self._model, spec)
            else:
                raise ServingError(
                    grpc.StatusCode.UNIMPLEMENTED, f"{method}: expected predict; detectors have no other"
                )
        return web.Response(body=answer, content_type="application/json")


def _model_spec(match):
    if not match["name"]:
        raise invalid_argument("Missing model name in request.")
    spec = model_pb2.ModelSpec(name=match["name"])
    if match["version"]:
        if int(match["version"]) >= 1 << 63:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = match["label"]
    return spec


def predict_json(model: Model, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
    """The body of the answer to a body of a :predict request.

    Raises:
        ServingError: if it gets none.
    """
    with model.using(spec) as (_, servable):
        value = read_body(body)
        name = value.get("signature_name", "")
        if not isinstance(name, str):
            raise invalid_argument("'signature_name': expected a string")
        name, signature_def = servable.signature(name)
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
