"""The gateway: takes an image, computes its proposals, and gets the detections from a server over gRPC.

The server is the embedded one or TensorFlow Serving. A web page displays the detections.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import tensorflow as tf
from aiohttp import web
from joblib.externals.loky.process_executor import BrokenProcessPool
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tf_fast_rcnn.inference.signature import signature_detections, signature_inputs
from tf_fast_rcnn.serving.json_values import decode_base64, read_body
from tf_fast_rcnn.serving.limits import CONTENT_TYPE, Metrics
from tf_fast_rcnn.serving.rest_api import METRICS_PATH, decoded_body, errors_as_json, without_server_version
from tf_fast_rcnn.serving.sites import Sites
from tf_fast_rcnn.serving.status import ServingError, invalid_argument
from tf_fast_rcnn.visualization.drawing import PALETTE
from tf_fast_rcnn.visualization.pages import render_page

if TYPE_CHECKING:
    from tf_fast_rcnn.serving.limits import Limits
    from tf_fast_rcnn.serving.proposal_workers import ProposalWorkers

_AVAILABLE = get_model_status_pb2.ModelVersionStatus.State.AVAILABLE
_POLICY = "default-src 'none'; img-src blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
_ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Gateway:
    """Detects objects in images with a detector on a server.

    Args:
        name: name of the model.
        address: "HOST:PORT" of the server's gRPC endpoint.
        workers: `ProposalWorkers`.
        limits: `Limits` of the images whose proposals are computed concurrently.
        class_names: function from a version number to the names of its classes 1..K; a class without a name is
            reported by its id. Not called if the model returns class names itself.
        timeout: timeout of a request to the server, in seconds.
    """

    def __init__(
        self,
        name: str,
        address: str,
        workers: ProposalWorkers,
        limits: Limits,
        class_names: Callable[[int], Sequence[str]] = lambda version: (),
        timeout: float = 60.0,
    ) -> None:
        self.name = name
        self._class_names = class_names
        self._workers = workers
        self._limits = limits
        self._timeout = timeout
        self._channel = grpc.aio.insecure_channel(address, options=_ANY_SIZE)

    async def close(self) -> None:
        """Closes the connection to the server."""
        await self._channel.close()

    async def detect(self, contents: bytes) -> dict[str, Any]:
        """Detects objects in an image.

        Args:
            contents: bytes of an image file.

        Returns:
            JSON-serialisable dict: "detections" with "class", "class_id", "score" and "box" (`[ymin, xmin, ymax,
            xmax]`, relative to the upright image), sorted by decreasing score; "image" with "height" and "width" in
            pixels; "proposals", their number; "model_version"; "seconds" with "proposals" and "model".

        Raises:
            InputError: if the bytes are not an image.
            ServingError: with the status of the server; UNAVAILABLE if the queue is full or a worker was killed.
        """
        started = time.perf_counter()
        try:
            image = await self._limits.run(self._workers.compute, contents)
        except BrokenProcessPool:
            text = "a worker process was killed, probably out of memory; try again"
            raise ServingError(grpc.StatusCode.UNAVAILABLE, text) from None
        computed = time.perf_counter()
        response = await self._predict(image)
        outputs = {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
        [found] = signature_detections(outputs, self._class_names(response.model_spec.version.value))
        return {
            "detections": found.to_dicts(),
            "image": {"height": image.height, "width": image.width},
            "proposals": len(image.proposals),
            "model_version": response.model_spec.version.value,
            "seconds": {"proposals": computed - started, "model": time.perf_counter() - computed},
        }

    async def _predict(self, image):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.name
        for name, value in signature_inputs([image.image_bytes], [image.proposals]).items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        return await _of_server(stub.Predict(request, timeout=self._timeout))

    async def check(self) -> None:
        """Raises a ServingError if the server has no available version of the model."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.name
        stub = model_service_pb2_grpc.ModelServiceStub(self._channel)
        status = await _of_server(stub.GetModelStatus(request, timeout=5))
        if not any(version.state == _AVAILABLE for version in status.model_version_status):
            raise ServingError(grpc.StatusCode.UNAVAILABLE, f"no version of {self.name} is available")


async def _of_server(call):
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise ServingError(error.code(), error.details()) from None


def gateway_application(
    gateway: Gateway, limits: Limits, max_message_bytes: int, sites: Sites | None = None
) -> web.Application:
    """The aiohttp application.

    Args:
        gateway: `Gateway`.
        limits: the `Limits` of the gateway.
        max_message_bytes: maximum size of a request body; larger ones are rejected (413).
        sites: `Sites` whose pages may send requests; None: only those of the gateway itself, on the loopback interface.
    """
    sites = sites or Sites()
    metrics = Metrics(limits)
    page = render_page("serving/page.html", model=gateway.name, palette=list(PALETTE)).encode()

    async def show(_):
        return web.Response(body=page, content_type="text/html", headers={"Content-Security-Policy": _POLICY})

    async def detect(request):
        with metrics.observed("rest", "detect"):
            if request.match_info["name"] != gateway.name:
                raise ServingError(grpc.StatusCode.NOT_FOUND, f"found no model named {request.match_info['name']}")
            return web.json_response(await gateway.detect(await _image_of(request, max_message_bytes)))

    async def health(_):
        await gateway.check()
        return web.json_response({"status": "SERVING"})

    async def counts(_):
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application(client_max_size=max_message_bytes, middlewares=[errors_as_json, sites.check])
    application.on_response_prepare.extend([without_server_version, sites.add_headers])
    application.router.add_get("/", show)
    application.router.add_post("/v1/models/{name}:detect", detect)
    application.router.add_get("/healthz", health)
    application.router.add_get(METRICS_PATH, counts)
    return application


async def _image_of(request, max_bytes):
    """The bytes of the image: the body, or for JSON the content of {"image_bytes": {"b64": ...}}."""
    body = decoded_body(await request.read(), request.headers.get("Content-Encoding", ""), max_bytes)
    if request.content_type != "application/json":
        return body
    try:
        return decode_base64(read_body(body)["image_bytes"]["b64"])
    except (KeyError, TypeError, AttributeError):
        raise invalid_argument('expected {"image_bytes": {"b64": TEXT}}, or an image file as the body') from None
