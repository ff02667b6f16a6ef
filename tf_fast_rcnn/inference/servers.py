"""Clients for models on servers that speak TensorFlow Serving's protocols, gRPC and REST.

These protocols report neither class names nor proposals nor settings. Models exported with --class-names-output return
the class name of each detection.
"""

import base64
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf

from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.errors import InputError, missing_package
from tf_fast_rcnn.inference.signature import signature_detections, signature_inputs
from tf_fast_rcnn.inference.sources import Source

# Timeout of a request.
_ANSWER_SECONDS = 300
_ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class _Server(Source):
    """Base of both protocols. `_predict` sends the inputs of a signature and returns its outputs."""

    encoded = True

    def __init__(self, url: str) -> None:
        super().__init__(url, description={"server": url})

    def detect(self, images: Sequence, proposals: Sequence[np.ndarray]) -> list[Detections]:
        return signature_detections(self._predict("serving_default", signature_inputs(images, proposals)))

    def classify_regions(self, image: Any, regions: np.ndarray) -> np.ndarray:
        outputs = self._predict("regions", signature_inputs([image], [regions]))
        return np.asarray(outputs["class_probabilities"][0], np.float32)[: len(regions)]

    def _predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        raise NotImplementedError

    def _refused(self, reason: str) -> InputError:
        return InputError(
            f"{self.name}: found {reason}; expected an answer from a model that `export` wrote; check the server and "
            "the model name"
        )


class GrpcSource(_Server):
    """A model at grpc://HOST:PORT/NAME.

    Raises:
        InputError: if the address has another form or the packages of the extra "serving" are not installed; and from
            `detect`, if the server does not answer like one that serves an exported model.
    """

    def __init__(self, url: str) -> None:
        super().__init__(str(url))
        parts = urlsplit(self.name)
        self._model_name = parts.path.strip("/")
        if parts.scheme != "grpc" or not parts.netloc or not self._model_name or "/" in self._model_name:
            raise InputError(
                f"{url}: not the address of a model; expected grpc://HOST:PORT/NAME, e.g. grpc://[::1]:8500/cells"
            )
        self._grpc = _import_extra("grpc", url)
        self._messages = _import_extra("tensorflow_serving.apis.predict_pb2", url)
        services = _import_extra("tensorflow_serving.apis.prediction_service_pb2_grpc", url)
        channel = self._grpc.insecure_channel(parts.netloc, options=_ANY_SIZE)
        self._stub = services.PredictionServiceStub(channel)

    def _predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        request = self._messages.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._model_name, signature
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        try:
            response = self._stub.Predict(request, timeout=_ANSWER_SECONDS)
        except self._grpc.RpcError as error:
            raise self._refused(f"{error.code().name} ({error.details()[:200]})") from None
        return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}


class RestSource(_Server):
    """A model at http://HOST:PORT/v1/models/NAME, or https; "/versions/N" may follow.

    Raises:
        InputError: as for `GrpcSource`.
    """

    def __init__(self, url: str) -> None:
        super().__init__(str(url).rstrip("/"))
        parts = urlsplit(self.name)
        if not parts.netloc or not parts.path.partition("/v1/models/")[2]:
            raise InputError(
                f"{url}: not the address of a model; expected http://HOST:PORT/v1/models/NAME, e.g. "
                "http://localhost:8501/v1/models/cells"
            )
        self._httpx = _import_extra("httpx", url)
        self._client = self._httpx.Client(timeout=_ANSWER_SECONDS)

    def _predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        body = {"signature_name": signature, "inputs": {key: _to_json(value) for key, value in inputs.items()}}
        try:
            response = self._client.post(f"{self.name}:predict", json=body)
            answer = response.json()
        except (self._httpx.HTTPError, ValueError) as error:
            raise self._refused(f"no answer ({str(error)[:200] or type(error).__name__})") from None
        if response.status_code != 200 or "outputs" not in answer:
            raise self._refused(f"HTTP {response.status_code} ({str(answer.get('error', ''))[:200]})")
        return answer["outputs"]


def _to_json(value: np.ndarray) -> list:
    if value.dtype == object:
        return [{"b64": base64.b64encode(each).decode()} for each in value]
    return value.tolist()


def _import_extra(module: str, url: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_package(url, error, "serving") from None
