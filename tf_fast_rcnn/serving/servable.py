"""A SavedModel loaded for serving, with its signatures as functions of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.ops import native
from tf_fast_rcnn.serving.batching import batched
from tf_fast_rcnn.serving.status import ServingError, invalid_argument, to_serving_error
from tf_fast_rcnn.serving.tensors import proto_to_array

if TYPE_CHECKING:
    from tensorflow.core.protobuf import meta_graph_pb2

    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.serving.batching import BatchingParameters

DEFAULT_SIGNATURE = "serving_default"
_PREDICT_METHOD = "tensorflow/serving/predict"
# Prefix of the names of native ops.
_NATIVE_OPS = "TfFastRcnn>"
_WARMUP_REQUESTS = "assets.extra/tf_serving_warmup_requests"


class Servable:
    """A loaded SavedModel; thread-safe.

    Args:
        directory: folder with saved_model.pb.
        batching: `BatchingParameters`; None to run each request separately.

    Attributes:
        signature_defs: dict from signature names to their stored `SignatureDef`s.

    Raises:
        InputError: if the folder is not a SavedModel, or the SavedModel cannot be loaded or warmed up.
    """

    def __init__(self, directory: StrPath, batching: BatchingParameters | None = None) -> None:
        directory = Path(directory)
        graph = _read_graph(directory)
        self.signature_defs = dict(graph.signature_def)
        if _uses_native_ops(graph.graph_def):
            native.native_ops()
        try:
            self._loaded = tf.saved_model.load(str(directory))
            self._functions = {
                name: function if batching is None else batched(function, self.signature_defs[name], batching)
                for name, function in self._loaded.signatures.items()
            }
            for request in _warmup_requests(directory / _WARMUP_REQUESTS):
                arrays = {name: proto_to_array(name, proto) for name, proto in request.inputs.items()}
                self.run(request.model_spec.signature_name, arrays)
        except Exception as error:  # TensorFlow raises exceptions of many types for broken files.
            raise InputError(
                f"{directory}: found a SavedModel that cannot be loaded ({to_serving_error(error).message}); expected "
                "one that runs on this machine; export the model again"
            ) from None

    def signature(self, name: str) -> tuple[str, meta_graph_pb2.SignatureDef]:
        """`(name, SignatureDef)` of a signature; "" means serving_default.

        Raises:
            ServingError: if there is no such signature.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self._functions:
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        return name, self.signature_defs[name]

    def refuse_method(self, name: str, method: str) -> NoReturn:
        """Raises the error of TensorFlow Serving for a method that detectors do not have.

        Args:
            name: name of the signature; "" for serving_default.
            method: "classify" or "regress".

        Raises:
            ServingError: always.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signature_defs:
            raise invalid_argument(f"No signature was found with the name: {name}")
        found, expected = self.signature_defs[name].method_name, f"tensorflow/serving/{method}"
        if found != expected:
            kind = {"classify": "classification", "regress": "regression"}[method]
            raise invalid_argument(f"Expected {kind} signature method_name to be {expected}. Was: {found}")
        raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"{method}: expected predict, the only method of detectors")

    def run(
        self, signature_name: str, inputs: Mapping[str, np.ndarray], output_names: Iterable[str] = ()
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature_name: "" for serving_default.
            inputs: dict from names to arrays; strings are object arrays of bytes.
            output_names: outputs to return; empty for all.

        Returns:
            Dict from names to arrays.

        Raises:
            ServingError: if the inputs do not match the signature, or TensorFlow raises an error.
        """
        name, signature = self.signature(signature_name)
        _check_names(inputs, signature)
        for key, array in inputs.items():
            _check_tensor(key, array, signature.inputs[key])
        if unknown := [key for key in output_names if key not in signature.outputs]:
            raise invalid_argument(
                f"output tensor alias not found in signature: {unknown[0]} Outputs expected to be in the set "
                f"{{{','.join(sorted(signature.outputs))}}}."
            )
        try:
            outputs = self._functions[name](**{key: tf.constant(array) for key, array in inputs.items()})
            return {key: _to_array(outputs[key].numpy()) for key in output_names or outputs}
        except tf.errors.OpError as error:
            raise to_serving_error(error) from None


def _to_array(value):
    """TensorFlow returns bytes, not an array, for a scalar string."""
    return np.array(value, np.object_) if isinstance(value, bytes) else value


def _read_graph(directory):
    stored = saved_model_pb2.SavedModel()
    try:
        stored.ParseFromString((directory / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise InputError(
            f"{directory}: found no SavedModel ({error}); expected a folder with saved_model.pb; check the path"
        ) from None
    for graph in stored.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    raise InputError(f"{directory}: found no graph tagged 'serve'; expected one; export the model again")


def _uses_native_ops(graph):
    """Whether a graph or one of its functions contains native ops."""
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return any(node.op.startswith(_NATIVE_OPS) for node in nodes)


def _warmup_requests(path):
    """The PredictRequests that TensorFlow Serving runs before a version counts as available."""
    if not path.exists():
        return
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.HasField("predict_log"):
            yield log.predict_log.request


def _check_names(inputs, signature):
    """The message is that of TensorFlow Serving."""
    sent, required = set(inputs), set(signature.inputs)
    if sent != required:
        lists = [",".join(sorted(names)) for names in (sent, required, sent - required, required - sent)]
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(required)} len({{{lists[0]}}}) != "
            f"len({{{lists[1]}}}). Sent extra: {{{lists[2]}}}. Missing but required: {{{lists[3]}}}."
        )


def _check_tensor(name, array, info):
    expected = tf.TensorShape(info.tensor_shape)
    dtype = tf.dtypes.as_dtype(info.dtype)
    found = tf.string if array.dtype == np.object_ else tf.dtypes.as_dtype(array.dtype)
    if found != dtype or not expected.is_compatible_with(array.shape):
        raise invalid_argument(
            f"input {name}: found {found.name} {list(array.shape)}; expected {dtype.name} {expected}; fix the request"
        )
