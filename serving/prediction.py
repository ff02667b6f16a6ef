"""Clients of a detector that TensorFlow Serving, or `tf-fast-rcnn serve`, has loaded.

They speak the servers' public protocol alone, and need nothing of tf_fast_rcnn:

    pip install tensorflow-serving-api==2.21.* httpx tenacity

    with GrpcClient("localhost:8500", "cells") as client:
        [found] = client.detect([image_bytes])                      # the model finds proposals itself
        [found] = client.detect([image_bytes], [proposals])         # float32 [P, 4], relative
    async with AsyncRestClient("http://localhost:8501", "cells") as client:
        found = await client.detect(images)

Those over REST do without TensorFlow.
"""

import base64
import contextlib
import functools
import time
from typing import NamedTuple

import httpx
import numpy as np
import tenacity

# A batch of photographs, and the answer of `regions` for it, are larger than gRPC's 4 MB.
MAX_MESSAGE_BYTES = 256 << 20


class Detections(NamedTuple):
    """What was found in an image, by falling score.

    Attributes:
        boxes: float32 `[D, 4]`, [ymin, xmin, ymax, xmax] relative to the image.
        scores: float32 `[D]`.
        class_ids: int32 `[D]`, ids from 1.
        names: the classes' names, where the model was exported with --class-names-output; else None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    names: list | None


class ServingError(RuntimeError):
    """The server refused a request, or did not answer in time.

    Attributes:
        unavailable: whether another try may succeed: the server is overloaded, or not there.
    """

    def __init__(self, message, unavailable=False):
        super().__init__(message)
        self.unavailable = unavailable


def _request(images, proposals):
    """`(signature, inputs as arrays)` for encoded images and, if any, their proposals."""
    image_bytes = np.array([*images, None], object)[:-1]
    if proposals is None:
        return "detect_image_bytes", {"image_bytes": image_bytes}
    counts = np.array([len(each) for each in proposals], np.int32)
    # A row at least: in JSON an array without rows has lost its shape.
    padded = np.zeros((len(images), max(1, *counts), 4), np.float32)
    for row, each in zip(padded, proposals, strict=True):
        row[: len(each)] = each
    return "serving_default", {"image_bytes": image_bytes, "proposals": padded, "num_proposals": counts}


def _detections(outputs):
    """A `Detections` for each image, of the outputs as arrays."""
    names = outputs.get("detection_class_names")
    return [
        Detections(
            np.asarray(outputs["detection_boxes"][image], np.float32).reshape(-1, 4)[:count],
            np.asarray(outputs["detection_scores"][image], np.float32)[:count],
            np.asarray(outputs["detection_classes"][image], np.int32)[:count],
            None if names is None else [_text(name) for name in names[image][:count]],
        )
        for image, count in enumerate(np.asarray(outputs["num_detections"], int))
    ]


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)


class _Client:
    """What all clients share.

    Args:
        address: of the server.
        model: its name there.
        version: of the model; None for the latest.
        deadline: seconds that `detect` may take, all its tries together.
        tries: of a request while the server is unavailable, with growing, random pauses.
    """

    def __init__(self, address, model, *, version=None, deadline=60.0, tries=6):
        self._address, self._model, self._version = address, model, version
        self._deadline, self._tries = deadline, tries

    def _tries_until(self, end, kind):
        return kind(
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "unavailable", False)),
            stop=tenacity.stop_after_attempt(self._tries) | tenacity.stop_before_delay(end - time.monotonic()),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            reraise=True,
        )


class _Blocking(_Client):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def detect(self, images, proposals=None):
        """`Detections` of each image.

        Args:
            images: bytes of image files (see `encode`).
            proposals: float32 `[P, 4]` for each image, [ymin, xmin, ymax, xmax] relative to it; None where the model
                was exported to find them itself.

        Raises:
            ServingError: where the server refuses the request, or does not answer in time.
        """
        signature, inputs = _request(images, proposals)
        end = time.monotonic() + self._deadline
        for attempt in self._tries_until(end, tenacity.Retrying):
            with attempt:
                return _detections(self._send(signature, inputs, end - time.monotonic()))


class _Asynchronous(_Client):
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def detect(self, images, proposals=None):
        """As `GrpcClient.detect`."""
        signature, inputs = _request(images, proposals)
        end = time.monotonic() + self._deadline
        async for attempt in self._tries_until(end, tenacity.AsyncRetrying):
            with attempt:
                return _detections(await self._send(signature, inputs, end - time.monotonic()))


class _Grpc:
    """Requests and answers of gRPC, of both kinds of clients."""

    @functools.cached_property
    def _channel(self):
        """Made when it is first used: one of grpc.aio belongs to the event loop that then runs."""
        import grpc

        options = [
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # A name that stands for several servers: by turns.
            ("grpc.lb_policy_name", "round_robin"),
        ]
        module = grpc.aio if isinstance(self, _Asynchronous) else grpc
        return module.insecure_channel(self._address, options=options)

    @functools.cached_property
    def _stub(self):
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        return prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def _message(self, signature, inputs):
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._model, signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return request

    @staticmethod
    def _outputs(response):
        import tensorflow as tf

        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}

    @contextlib.contextmanager
    def _errors(self):
        import grpc

        try:
            yield
        except grpc.RpcError as error:
            message = f"{self._address}: {error.code().name}: {error.details()}"
            raise ServingError(message, error.code() == grpc.StatusCode.UNAVAILABLE) from None


class GrpcClient(_Grpc, _Blocking):
    """Over gRPC; `address` is host:port. See `_Client` for arguments."""

    def _send(self, signature, inputs, seconds):
        with self._errors():
            return self._outputs(self._stub.Predict(self._message(signature, inputs), timeout=seconds))

    def close(self):
        self._channel.close()


class AsyncGrpcClient(_Grpc, _Asynchronous):
    """Over gRPC, with asyncio; `address` is host:port. See `_Client` for arguments."""

    async def _send(self, signature, inputs, seconds):
        with self._errors():
            return self._outputs(await self._stub.Predict(self._message(signature, inputs), timeout=seconds))

    async def close(self):
        await self._channel.close()


class _Rest:
    """Requests and answers of REST, of both kinds of clients."""

    def _url(self):
        version = "" if self._version is None else f"/versions/{self._version}"
        return f"{self._address.rstrip('/')}/v1/models/{self._model}{version}:predict"

    @staticmethod
    def _body(signature, inputs):
        values = {name: value.tolist() for name, value in inputs.items()}
        values["image_bytes"] = [{"b64": base64.b64encode(each).decode()} for each in inputs["image_bytes"]]
        return {"signature_name": signature, "inputs": values}

    def _outputs(self, response):
        try:
            content = response.json()
        except ValueError:
            content = {"error": response.text[:200]}
        if response.status_code != 200:
            message = f"{self._address}: {response.status_code}: {content.get('error', '')}"
            raise ServingError(message, response.status_code == httpx.codes.SERVICE_UNAVAILABLE)
        return content["outputs"]

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except httpx.TransportError as error:
            # Without an answer nothing is known but that asking again does no harm, unless time is over.
            over = isinstance(error, httpx.TimeoutException)
            raise ServingError(f"{self._address}: {type(error).__name__}: {error}", not over) from None


class RestClient(_Rest, _Blocking):
    """Over HTTP; `address` is http://host:port. See `_Client` for arguments."""

    def __init__(self, address, model, **options):
        super().__init__(address, model, **options)
        self._http = httpx.Client()

    def _send(self, signature, inputs, seconds):
        with self._errors():
            return self._outputs(self._http.post(self._url(), json=self._body(signature, inputs), timeout=seconds))

    def close(self):
        self._http.close()


class AsyncRestClient(_Rest, _Asynchronous):
    """Over HTTP, with asyncio; `address` is http://host:port. See `_Client` for arguments."""

    def __init__(self, address, model, **options):
        super().__init__(address, model, **options)
        self._http = httpx.AsyncClient()

    async def _send(self, signature, inputs, seconds):
        with self._errors():
            body = self._body(signature, inputs)
            return self._outputs(await self._http.post(self._url(), json=body, timeout=seconds))

    async def close(self):
        await self._http.aclose()
