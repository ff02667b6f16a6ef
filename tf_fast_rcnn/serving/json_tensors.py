"""JSON requests and answers by row ("instances", "predictions") and by column ("inputs", "outputs").

The shapes are those of TensorFlow Serving's REST API: bytes are {"b64": ...}, a signature with one tensor may leave its
name out, and outputs whose names end in _bytes are given as {"b64": ...}.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tf_fast_rcnn.serving.status import invalid_argument

if TYPE_CHECKING:
    from tensorflow.core.protobuf import meta_graph_pb2


def read_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request's body.

    Raises:
        ServingError: if it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(value, dict):
        raise invalid_argument(f"JSON Parse error: found a {type(value).__name__}; expected an object")
    return value


def read_inputs(
    value: Mapping[str, Any], signature_def: meta_graph_pb2.SignatureDef
) -> tuple[dict[str, np.ndarray], bool]:
    """The input tensors of a request.

    Args:
        value: what `read_body` gave.
        signature_def: the `SignatureDef` that is asked for.

    Returns:
        `(arrays, by_row)`: dict of names and arrays, and whether to answer by row.

    Raises:
        ServingError: if it does not hold the signature's inputs.
    """
    if ("instances" in value) == ("inputs" in value):
        found = "both" if "inputs" in value else "neither"
        raise invalid_argument(f"found {found} of 'inputs' and 'instances' keys; expected one of them")
    by_row = "instances" in value
    columns = _columns(value["instances"]) if by_row else value["inputs"]
    infos = signature_def.inputs
    if not isinstance(columns, dict) or "b64" in columns:
        if len(infos) != 1:
            raise invalid_argument(f"found values without names; expected the inputs {', '.join(sorted(infos))}")
        columns = {next(iter(infos)): columns}
    if columns.keys() != infos.keys():
        found, expected = (", ".join(sorted(names)) or "none" for names in (columns, infos))
        raise invalid_argument(f"found the inputs {found}; expected {expected}")
    return {name: _to_array(name, columns[name], infos[name]) for name in infos}, by_row


def _columns(instances):
    """The rows' values, by name where rows have names."""
    if not isinstance(instances, list) or not instances:
        raise invalid_argument("'instances': found no rows; expected a list of one or more")
    if not all(isinstance(row, dict) and "b64" not in row for row in instances):
        return instances
    if odd := [index for index, row in enumerate(instances) if row.keys() != instances[0].keys()]:
        raise invalid_argument(
            f"'instances': found other names in element {odd[0]} than in the first; expected the same"
        )
    return {name: [row[name] for row in instances] for name in instances[0]}


def _to_array(name, value, info):
    dtype = tf.dtypes.as_dtype(info.dtype)
    try:
        if dtype == tf.string:
            return _strings(value)
        array = np.array(value)
        if array.size and array.dtype.kind not in _KINDS[dtype.is_floating, dtype.is_bool]:
            raise ValueError("other values")
        if dtype.is_integer and array.size and not dtype.min <= array.min() <= array.max() <= dtype.max:
            raise ValueError("values out of range")
        with np.errstate(over="ignore"):
            return array.astype(dtype.as_numpy_dtype)
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
        reason = str(error).split("\n")[0]
        raise invalid_argument(f"input {name}: found {reason}; expected an array of {dtype.name}") from None


# (floating, boolean) -> NumPy's kinds of values that JSON has for it.
_KINDS = {(True, False): "fiu", (False, False): "iu", (False, True): "b"}


def _strings(value):
    """An object array of bytes: NumPy's own strings lose zeros at their ends."""
    leaves = []
    shape = _gather(value, leaves)
    array = np.empty(len(leaves), np.object_)
    array[:] = leaves
    return array.reshape(shape)


def _gather(value, leaves):
    """The shape of nested lists, whose strings are added to `leaves`."""
    if isinstance(value, list):
        shapes = {_gather(item, leaves) for item in value}
        if len(shapes) > 1:
            raise ValueError("lists of several lengths")
        return (len(value), *(shapes.pop() if shapes else ()))
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        leaves.append(base64.b64decode(value["b64"], validate=True))
    elif isinstance(value, str):
        leaves.append(value.encode())
    else:
        raise ValueError(f"a {type(value).__name__}")
    return ()


def write_outputs(outputs: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """The body of an answer, bytes.

    Args:
        outputs: dict of names and arrays.
        by_row: whether the request was.

    Raises:
        ServingError: if it is to be by row, and outputs have other numbers of rows than each other.
    """
    values = {name: _to_json(name, array) for name, array in outputs.items()}
    if not by_row:
        return json.dumps({"outputs": values if len(values) > 1 else next(iter(values.values()))}).encode()
    if len({array.shape[:1] for array in outputs.values()}) != 1 or not all(array.ndim for array in outputs.values()):
        raise invalid_argument("found outputs of several batch sizes; expected one; ask by column, with 'inputs'")
    rows = list(zip(*values.values(), strict=True))
    predictions = [dict(zip(values, row, strict=True)) for row in rows] if len(values) > 1 else [row[0] for row in rows]
    return json.dumps({"predictions": predictions}).encode()


def _to_json(name, array):
    if array.dtype != np.object_:
        return array.tolist()
    flat = [_string_to_json(name, item) for item in array.ravel()]
    nested = np.empty(len(flat), np.object_)
    nested[:] = flat
    return nested.reshape(array.shape).tolist()


def _string_to_json(name, value):
    if not name.endswith("_bytes"):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass  # JSON has no other way for these bytes either.
    return {"b64": base64.b64encode(value).decode()}
