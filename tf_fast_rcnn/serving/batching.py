"""Requests that arrive together run together, by TensorFlow's own batch function.

Parameters are those of TensorFlow Serving's --batching_parameters_file, and are read from the same file.
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

# Images have any number of proposals, and only equal shapes make a batch: they are filled up to a power of two from
# here. What `num_proposals` does not count costs nothing.
_FEWEST_PROPOSALS = 64

# TensorFlow finds a queue by the name scope: without one, requests of all models and signatures would share a queue.
_queues = itertools.count()

_WRAPPED = re.compile(r"\s*(\w+)\s*(?:\{\s*value\s*:\s*(\S+?)\s*\}|:\s*(\S+))\s*")
_IGNORED = {"thread_pool_name"}


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """How requests are batched.

    Attributes:
        max_batch_size: images of a batch.
        batch_timeout_micros: how long the first request of a batch waits for others, in microseconds.
        max_enqueued_batches: batches that wait; a request beyond them is refused at once (UNAVAILABLE).
        num_batch_threads: batches that run at a time.
        allowed_batch_sizes: batches are filled up to one of these; the last is `max_batch_size`. Empty: any size.
        pad_variable_length_inputs: as in TensorFlow Serving. The embedded server always fills proposals up.
    """

    max_batch_size: int = 8
    batch_timeout_micros: int = 2000
    max_enqueued_batches: int = 16
    num_batch_threads: int = 2
    allowed_batch_sizes: tuple = ()
    pad_variable_length_inputs: bool = True


def read_batching_parameters(path: StrPath) -> BatchingParameters:
    """The `BatchingParameters` of a file in protobuf's text format.

    Raises:
        InputError: if it cannot be read, or says what is not known here.

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
        raise _unreadable(path, f"allowed_batch_sizes {list(sizes)}", f"rising ones that end in {found.max_batch_size}")
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
        raise _unreadable(path, f"{name}: {text}", "a number from 1")
    else:
        values[name] = int(text)


def _unreadable(path, found, expected):
    return InputError(f"{path}: found {found!r}; expected {expected}; correct the batching parameters")


def batched(
    function: Callable[..., Any], signature_def: meta_graph_pb2.SignatureDef, parameters: BatchingParameters
) -> Callable[..., Any]:
    """A signature's function whose calls from several threads run as one, where its inputs allow that.

    These are the signatures whose rows do not touch each other: with `num_proposals`, or with the first dimension alone
    left open. Others come back as they are.

    Args:
        function: concrete function of named tensors that gives a dict of tensors.
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
        """A function with a batch queue of its own."""
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
        # A request of more images than `max_batch_size` is run in parts.
        enable_large_batch_splitting=True,
    )


def _call(function, names, *tensors):
    return function(**dict(zip(names, tensors, strict=True)))


def _fill_up(proposals):
    rows = proposals.shape[1]
    wanted = max(_FEWEST_PROPOSALS, 1 << math.ceil(math.log2(max(rows, 1))))
    return tf.pad(proposals, [[0, 0], [0, wanted - rows], [0, 0]])


def _has_open_rows(info):
    """Whether an output has a row for each proposal: detections are of a fixed number."""
    shape = tf.TensorShape(info.tensor_shape)
    return shape.rank > 1 and shape[1] is None
