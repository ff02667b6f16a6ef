"""gRPC: PredictionService and ModelService of TensorFlow Serving, and the standard health service.

Messages are parsed here instead of by gRPC, so that only accepted requests are parsed, in their own threads, and
malformed messages get an error that describes the problem.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.serving.status import invalid_argument, to_serving_error
from tf_fast_rcnn.serving.tensors import array_to_proto, proto_to_array

if TYPE_CHECKING:
    from tensorflow_serving.apis import model_pb2

    from tf_fast_rcnn.serving.limits import Limits, Metrics
    from tf_fast_rcnn.serving.versions import Model

_log = logging.getLogger(__name__)

# What health checks may ask for in TensorFlow Serving: the server, and two services without their package.
_HEALTH_NAMES = ("", "ModelService", "PredictionService")


def start_grpc(
    model: Model, limits: Limits, metrics: Metrics, address: str, max_message_bytes: int
) -> tuple[grpc.aio.Server, int, health.HealthServicer]:
    """Creates a `grpc.aio` server without starting it.

    Args:
        model: `Model`.
        limits: `Limits`.
        metrics: `Metrics`.
        address: "HOST:PORT"; port 0 selects a free port.
        max_message_bytes: maximum size of a request; larger ones are rejected (RESOURCE_EXHAUSTED).

    Returns:
        The server, its port, and its health servicer.

    Raises:
        InputError: if the port cannot be used.
    """
    options = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # Otherwise two servers could silently share a port.
    ]
    server = grpc.aio.server(options=options)
    for service, methods in _services(model, limits, metrics).items():
        handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        return server, server.add_insecure_port(address), servicer
    except RuntimeError:
        raise InputError(
            f"{address}: found a port that cannot be used; expected a free one; choose another --grpc-port"
        ) from None


async def set_health(servicer: health.HealthServicer, serving: bool) -> None:
    """Sets the result of health checks, of the server and of its services: SERVING or NOT_SERVING."""
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in _HEALTH_NAMES:
        await servicer.set(name, status)


def _services(model, limits, metrics):
    """Dict from service names to their methods, each of which takes the bytes of a message and a context."""

    def answered(method, function, in_thread):
        async def answer(message, context):
            try:
                with metrics.observed("grpc", method):
                    run = limits.run if in_thread else asyncio.to_thread
                    return await run(function, model, message)
            except Exception as error:
                failure = to_serving_error(error)
                if failure.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                    _log.exception("%s failed", method)
                await context.abort(failure.code, failure.message)

        return answer

    return {
        "tensorflow.serving.PredictionService": {
            "Predict": answered("predict", _predict, True),
            "Classify": answered("classify", _classify, False),
            "Regress": answered("regress", _regress, False),
            "GetModelMetadata": answered("metadata", _metadata, False),
        },
        "tensorflow.serving.ModelService": {"GetModelStatus": answered("status", _status, False)},
    }


def _parsed(kind, message):
    try:
        request = kind.FromString(message)
    except DecodeError as error:
        raise invalid_argument(
            f"found a message that cannot be parsed ({error}); expected a {kind.DESCRIPTOR.name}"
        ) from None
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return request


def _predict(model, message):
    request = _parsed(predict_pb2.PredictRequest, message)
    with model.using(request.model_spec) as (number, servable):
        name, _ = servable.signature(request.model_spec.signature_name)
        inputs = {key: proto_to_array(key, proto) for key, proto in request.inputs.items()}
        outputs = servable.run(name, inputs, list(request.output_filter))
    response = predict_pb2.PredictResponse()
    response.model_spec.name, response.model_spec.signature_name = model.name, name
    response.model_spec.version.value = number
    for key, array in outputs.items():
        array_to_proto(array, response.outputs[key])
    return response.SerializeToString()


def _classify(model, message):
    refuse_method(model, _parsed(classification_pb2.ClassificationRequest, message).model_spec, "classify")


def _regress(model, message):
    refuse_method(model, _parsed(regression_pb2.RegressionRequest, message).model_spec, "regress")


def refuse_method(model: Model, spec: model_pb2.ModelSpec, method: str) -> NoReturn:
    """Raises the error of TensorFlow Serving for a method that detectors do not have, "classify" or "regress".

    Raises:
        ServingError: always; NOT_FOUND if the model or version is not available.
    """
    with model.using(spec) as (_, servable):
        servable.refuse_method(spec.signature_name, method)


def _metadata(model, message):
    request = _parsed(get_model_metadata_pb2.GetModelMetadataRequest, message)
    return model_metadata(model, request.model_spec, request.metadata_field).SerializeToString()


def _status(model, message):
    request = _parsed(get_model_status_pb2.GetModelStatusRequest, message)
    statuses = model.statuses(request.model_spec)
    return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses).SerializeToString()


def model_metadata(
    model: Model, spec: model_pb2.ModelSpec, fields: Collection[str] = ("signature_def",)
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The GetModelMetadataResponse for a ModelSpec.

    Raises:
        ServingError: if the model or version is not available, or a metadata field is not supported.
    """
    if not fields:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    if unknown := [field for field in fields if field != "signature_def"]:
        raise invalid_argument(f"Metadata field {unknown[0]} is not supported")
    with model.using(spec) as (number, servable):
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = model.name
        response.model_spec.version.value = number
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
        response.metadata["signature_def"].Pack(signatures)
    return response
