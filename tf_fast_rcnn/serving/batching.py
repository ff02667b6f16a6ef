"""Batching of concurrent requests with TensorFlow's batch function.

The parameters are those of --batching_parameters_file of TensorFlow Serving and are read from the same file.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tensorflow.core.protobuf import meta_graph_pb2

    from tf_fast_rcnn.files import StrPath

# Only requests of equal shapes are batched, so proposals are padded to a power of two, at least this number. Padding
# costs nothing, because rows beyond `num_proposals` are not computed.
_FEWEST_PROPOSALS = 64

# TensorFlow identifies a queue by its name scope. Without one, all models and signatures would share a queue.
_queues = itertools.count()

_WRAPPED = re.compile(r"\s*(\w+)\s*(?:\{\s*value\s*:\s*(\S+?)\s*\}|:\s*(\S+))\s*")
_IGNORED = {"thread_pool_name"}


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """Parameters of batching.

    Attributes:
        max_batch_size: maximum number of images in a batch.
        batch_timeout_micros: how long the first request of a batch waits for others, in microseconds.
        max_enqueued_batches: maximum number of waiting batches; further requests are rejected at once (UNAVAILABLE).
        num_batch_threads: number of batches that run concurrently.
        allowed_batch_sizes: batches are padded to one of these sizes; the last is `max_batch_size`. Empty: any size.
        pad_variable_length_inputs: as in TensorFlow Serving. The embedded server always pads proposals.
    """

    max_batch_size: int = 8
    batch_timeout_micros: int = 2000
    max_enqueued_batches: int = 16
    num_batch_threads: int = 2
    allowed_batch_sizes: tuple = ()
    pad_variable_length_inputs: bool = True


def read_batching_parameters(path: StrPath) -> BatchingParameters:
    """Reads `BatchingParameters` from a file in protobuf text format.

    Raises:
        InputError: if the file is malformed, or a parameter is unknown.

    Example:
        max_batch_size { value: 8 }
        batch_timeout_micros { value: 2000 }
        allowed_batch_sizes: 1
        allowed_batch_sizes: 8
        pad_variable_length_inputs: true
    """
    text = "\n".join(line.split("#")[0] for line in Path(path).read_text().splitlines()).strip()
    values: dict[str, Any] = {}
    position = 0
    while position < len(text):
        match = _WRAPPED.match(text, position)
        if match is None:
            raise _unreadable(path, text[position:].split("\n")[0], "NAME { value: NUMBER } or NAME: VALUE")
        _add_value(values, path, match[1], match[2] or match[3])
        position = match.end()
    values["allowed_batch_sizes"] = tuple(values.get("allowed_batch_sizes", ()))
    found = BatchingParameters(**values)
    sizes = found.allowed_batch_sizes
    if sizes and (sizes[-1] != found.max_batch_size or list(sizes) != sorted(set(sizes)) or sizes[0] < 1):
        raise _unreadable(path, f"allowed_batch_sizes {list(sizes)}", f"increasing sizes up to {found.max_batch_size}")
    return found


def _add_value(values, path, name, text):
    known = {field.name for field in dataclasses.fields(BatchingParameters)}
    if name in _IGNORED:
        return
    if name not in known:
        raise _unreadable(path, name, f"one of {', '.join(sorted(known))}")
    if name == "pad_variable_length_inputs":
        if text not in ("true", "false"):
            raise _unreadable(path, f"{name}: {text}", "true or false")
        values[name] = text == "true"
        return
    if not text.isdecimal():
        raise _unreadable(path, f"{name}: {text}", "a whole number")
    if name == "allowed_batch_sizes":
        values.setdefault(name, []).append(int(text))
    elif int(text) < (name != "batch_timeout_micros"):
        raise _unreadable(path, f"{name}: {text}", "a whole number from 1")
    else:
        values[name] = int(text)


def _unreadable(path, found, expected):
    return InputError(f"{path}: found {found!r}; expected {expected}; fix the batching parameters")


def batched(
    function: Callable[..., Any], signature_def: meta_graph_pb2.SignatureDef, parameters: BatchingParameters
) -> Callable[..., Any]:
    """The function of a signature with concurrent calls from several threads run as a batch, if its inputs allow that.

    Signatures can be batched if their rows are independent: those with `num_proposals`, and those in which only the
    first dimension of each input is unknown. Other functions are returned unchanged.

    Args:
        function: concrete function of named tensors that returns a dict of tensors.
        signature_def: its `SignatureDef`.
        parameters: `BatchingParameters`.
    """
    shapes = {name: tf.TensorShape(info.tensor_shape) for name, info in signature_def.inputs.items()}
    with_counts = {"proposals", "num_proposals"} <= set(shapes)
    open_rows = all(shape.rank and shape[1:].is_fully_defined() for shape in shapes.values())
    if not with_counts and not open_rows:
        return function
    names = list(shapes)

    @functools.cache
    def traced(rows):
        """A function with its own batch queue."""
        specs = [
            tf.TensorSpec([None, rows, 4] if rows and name == "proposals" else shapes[name], info.dtype, name)
            for name, info in signature_def.inputs.items()
        ]
        together = _batch_function(parameters)(functools.partial(_call, function, names))
        number = next(_queues)

        def run(*tensors):
            with tf.name_scope(f"queue_{number}"):
                return together(*tensors)

        return tf.function(run, specs, autograph=False)

    def call(**inputs):
        if not with_counts:
            return traced(None)(*(inputs[name] for name in names))
        rows = inputs["proposals"].shape[1]
        inputs["num_proposals"] = tf.clip_by_value(inputs["num_proposals"], 0, rows)
        inputs["proposals"] = _fill_up(inputs["proposals"])
        outputs = traced(inputs["proposals"].shape[1])(*(inputs[name] for name in names))
        of_proposals = {name for name, info in signature_def.outputs.items() if _has_open_rows(info)}
        return {name: values[:, :rows] if name in of_proposals else values for name, values in outputs.items()}

    return call


def _batch_function(parameters):
    return tf.nondifferentiable_batch_function(
        parameters.num_batch_threads,
        parameters.max_batch_size,
        parameters.batch_timeout_micros,
        list(parameters.allowed_batch_sizes) or None,
        parameters.max_enqueued_batches,
        autograph=False,
        # A request with more images than `max_batch_size` is split.
        enable_large_batch_splitting=True,
    )


def _call(function, names, *tensors):
    return function(**dict(zip(names, tensors, strict=True)))


def _fill_up(proposals):
    rows = proposals.shape[1]
    wanted = max(_FEWEST_PROPOSALS, 1 << math.ceil(math.log2(max(rows, 1))))
    return tf.pad(proposals, [[0, 0], [0, wanted - rows], [0, 0]])


def _has_open_rows(info):
    """Whether an output has one row per proposal; the number of detections is fixed."""
    shape = tf.TensorShape(info.tensor_shape)
    return shape.rank > 1 and shape[1] is None
