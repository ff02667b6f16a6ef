"""Arrays in messages: the TensorProtos of gRPC, and the JSON of REST in row format ("instances", "predictions") and
column format ("inputs", "outputs").

JSON is read by the rules of TensorFlow Serving (its `util/json_tensor.cc`, with RapidJSON) and errors have its words,
so that a request that works here also works there: bytes are {"b64": ...}, the name of the tensor may be omitted in a
signature with a single tensor, and outputs whose names end in _bytes are returned as {"b64": ...}.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.serving.json_values import (
    Repeated,
    decode_base64,
    format_error,
    is_base64,
    number_too_big,
    to_text,
    type_name,
)
from tf_fast_rcnn.serving.status import ServingError, invalid_argument

if TYPE_CHECKING:
    from tensorflow.core.framework import tensor_pb2
    from tensorflow.core.protobuf import meta_graph_pb2

# In bytes. A TensorProto may omit repeated values, so a small message can declare an array that exhausts the memory.
_LARGEST_TENSOR = 1 << 30
# The fields that TensorFlow Serving uses in responses, which clients may read without `tf.make_ndarray`.
_FIELDS = {
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.int16: "int_val",
    tf.uint16: "int_val",
    tf.int32: "int_val",
    tf.uint32: "uint32_val",
    tf.int64: "int64_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}

# As TensorFlow Serving calls types in errors; other names are those of TensorFlow.
_TYPE_NAMES = {tf.float32: "float", tf.float64: "double"}


def proto_to_array(name: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Converts a TensorProto to an array; strings become an object array of bytes.

    Raises:
        ServingError: if the TensorProto is malformed, has an unsupported type, or is larger than 1 GB.
    """
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    try:
        dtype = tf.dtypes.as_dtype(proto.dtype)
        if dtype not in _FIELDS or proto.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
            raise ValueError("unsupported type or shape")
        if math.prod(sizes) * max(dtype.size, 1) > _LARGEST_TENSOR:
            raise ValueError("too large")
        if len(getattr(proto, _FIELDS[dtype])) > math.prod(sizes):
            raise ValueError("more values than its shape allows")
        array = tf.make_ndarray(proto)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise invalid_argument(f"tensor parsing error: {name}: {error}") from None
    if dtype == tf.string and not (array.dtype == np.object_ and all(isinstance(item, bytes) for item in array.flat)):
        raise invalid_argument(f"tensor parsing error: {name}: fewer values than its shape requires")
    return array


def array_to_proto(array: np.ndarray, proto: tensor_pb2.TensorProto) -> None:
    """Writes an array to an empty TensorProto, in the same fields as TensorFlow Serving."""
    dtype = tf.string if array.dtype == np.object_ else tf.dtypes.as_dtype(array.dtype)
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    values = array.view(np.uint16) if _FIELDS[dtype] == "half_val" else array
    getattr(proto, _FIELDS[dtype]).extend(values.ravel().tolist())


def read_inputs(
    value: Mapping[str, Any], signature_def: meta_graph_pb2.SignatureDef
) -> tuple[dict[str, np.ndarray], bool]:
    """The input tensors of a request.

    Args:
        value: the result of `read_body`.
        signature_def: the requested `SignatureDef`.

    Returns:
        `(arrays, by_row)`: dict from names to arrays, and whether the response is in row format.

    Raises:
        ServingError: if the request does not contain the inputs of the signature.
    """
    infos = dict(signature_def.inputs)
    if "instances" not in value and "inputs" not in value:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    if "instances" not in value:
        return _read_columns(value["inputs"], infos), False
    if "inputs" in value:
        raise format_error(
            value, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if not isinstance(value["instances"], list):
        raise format_error(value, "Excepting 'instances' to be an list/array")
    if not value["instances"]:
        raise format_error(value, "No values in 'instances' array")
    return _read_rows(value["instances"], infos), True


def _read_columns(columns, infos):
    """Inputs that the signature does not have are ignored, as in TensorFlow Serving."""
    if not _is_named(columns):
        if len(infos) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        columns = {next(iter(infos)): columns}
    if missing := [name for name in sorted(infos) if name not in columns]:
        raise invalid_argument(f"Missing named input: {missing[0]} in 'inputs' object.")
    return {name: _to_array(columns[name], infos[name]) for name in infos}


def _read_rows(rows, infos):
    if not isinstance(rows[0], dict) and len(infos) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    named = _is_named(rows[0])
    if odd := [index for index, row in enumerate(rows) if _is_named(row) != named]:
        what = "object but got list" if named else "value/list but got object"
        raise invalid_argument(f"Expecting {what} at item {odd[0]} of input list")
    if not named:
        name = next(iter(infos))
        return {name: _rows_to_array(rows, infos[name], "")}
    _check_row_names(rows, infos)
    return {name: _rows_to_array([row[name] for row in rows], infos[name], f" key: {name}") for name in infos}


def _check_row_names(rows, infos):
    for index, row in enumerate(rows):
        if unknown := [name for name in row if name not in infos]:
            raise _row_error(index, f" key: {unknown[0]}", f"JSON object: does not have named input: {unknown[0]}")
        if row.keys() != infos.keys():
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {to_text(row)} keys must be "
                f"equal to: {','.join(sorted(infos))}"
            )
        if isinstance(row, Repeated) and len(rows) > 1:  # TensorFlow Serving mixes such rows with the next ones.
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {to_text(row)} has a key more "
                "than once"
            )


def _rows_to_array(rows, info, key):
    """The array of all rows at once; if that fails, the error of the row at fault."""
    try:
        return _to_array(rows, info)
    except ServingError as error:
        failed = error
    first = None
    for index, row in enumerate(rows):
        try:
            array = _to_array(row, info)
        except ServingError as error:
            raise _row_error(index, key, error.message) from None
        first = array if first is None else first
        if array.size != first.size:
            raise _row_error(index, key, f"Expecting tensor size: {first.size} but got: {array.size}")
        if array.shape != first.shape:
            expected, found = (f"[{','.join(map(str, each.shape))}]" for each in (first, array))
            raise _row_error(index, key, f"Expecting shape {expected} but got: {found}")
    raise failed


def _row_error(index, key, message):
    return invalid_argument(
        f"Failed to process element: {index}{key} of 'instances' list. Error: INVALID_ARGUMENT: {message}"
    )


def _is_named(value):
    """Whether a JSON value is an object of named values, not one that represents bytes."""
    return isinstance(value, dict) and not is_base64(value)


def _to_array(value, info):
    """The array of a JSON value: a number, string or object for bytes, or nested lists of them."""
    dtype = tf.dtypes.as_dtype(info.dtype)
    leaves, shape = _flatten(value)
    if dtype == tf.string:
        array = np.empty(len(leaves), np.object_)  # NumPy strings lose trailing zeros.
        array[:] = [_to_bytes(leaf) for leaf in leaves]
    elif dtype in (tf.float32, tf.float64):
        array = _floats(leaves, dtype)
    elif dtype.is_integer or dtype.is_bool:
        array = _integers(leaves, dtype)
    else:
        message = f"Conversion of JSON Value: {to_text(value)} to type: {_type_name(dtype)}"
        raise ServingError(grpc.StatusCode.UNIMPLEMENTED, message)
    return array.reshape(shape)


def _flatten(value):
    """`(leaves, shape)` of nested lists. The first item of each level gives the shape."""
    shape = []
    item = value
    while isinstance(item, list):
        shape.append(len(item))
        item = item[0] if item else None
    leaves = [value]
    for level, size in enumerate(shape):
        _check_level(leaves, level, size, len(shape))
        leaves = list(itertools.chain.from_iterable(leaves))
    if list in set(map(type, leaves)):
        raise invalid_argument(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return leaves, shape


def _check_level(items, level, size, rank):
    if set(map(type, items)) - {list}:
        odd = next(item for item in items if not isinstance(item, list))
        raise invalid_argument(
            f"JSON Value: {to_text(odd)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: "
            f"{rank}"
        )
    if set(map(len, items)) - {size}:
        odd = next(item for item in items if len(item) != size)
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(odd)} at level: {level} expected size: {size}"
        )


def _floats(leaves, dtype):
    _check_types(leaves, dtype, {int, float})
    # RapidJSON reads integers of more than 64 bits as doubles, which may be rounded. Smaller ones that might be rounded
    # are refused, as in older versions of TensorFlow Serving; newer ones round them silently.
    integers = [leaf for leaf in leaves if isinstance(leaf, int) and -(1 << 63) <= leaf < 1 << 64]
    if odd := _beyond(integers, 2 ** (24 if dtype == tf.float32 else 53) - 1):
        raise _lossy(odd, dtype)
    try:
        array = np.array(leaves, np.float64)
    except OverflowError:
        raise number_too_big() from None
    for index in np.flatnonzero(np.isfinite(array) & (np.abs(array) > dtype.max)):
        raise _lossy(leaves[index], dtype)
    return array.astype(dtype.as_numpy_dtype)


def _beyond(integers, largest):
    """The first integer whose absolute value is above `largest`, or None."""
    if not integers or (max(integers) <= largest and -largest <= min(integers)):
        return None
    return next(value for value in integers if abs(value) > largest)


def _lossy(value, dtype):
    return invalid_argument(
        f"Cannot convert JSON value: {to_text(value)} to {_type_name(dtype)} without loss of precision."
    )


def _integers(leaves, dtype):
    """Of integers or booleans."""
    _check_types(leaves, dtype, {bool if dtype.is_bool else int})
    if dtype.is_integer and leaves and not dtype.min <= min(leaves) <= max(leaves) <= dtype.max:
        raise _type_error(next(leaf for leaf in leaves if not dtype.min <= leaf <= dtype.max), dtype)
    return np.array(leaves, dtype.as_numpy_dtype)


def _check_types(leaves, dtype, kinds):
    if set(map(type, leaves)) - kinds:
        raise _type_error(next(leaf for leaf in leaves if type(leaf) not in kinds), dtype)


def _to_bytes(value):
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if not isinstance(value, dict):
        raise _type_error(value, tf.string)
    if not is_base64(value):
        raise format_error(value, "not formatted correctly for base64 data")
    return decode_base64(value["b64"])


def _type_error(value, dtype):
    return format_error(value, f"Type: {type_name(value)} is not of expected type: {_type_name(dtype)}")


def _type_name(dtype):
    return _TYPE_NAMES.get(dtype, dtype.name)


def write_outputs(outputs: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """The body of a response.

    Args:
        outputs: dict from names to arrays.
        by_row: whether to use the row format.

    Raises:
        ServingError: if `by_row` is set and the outputs have different numbers of rows.
    """
    values = {name: _to_json(name, array) for name, array in outputs.items()}
    if not by_row:
        return json.dumps({"outputs": values if len(values) > 1 else next(iter(values.values()))}).encode()
    _check_rows(outputs)
    rows = list(zip(*values.values(), strict=True))
    predictions = [dict(zip(values, row, strict=True)) for row in rows] if len(values) > 1 else [row[0] for row in rows]
    return json.dumps({"predictions": predictions}).encode()


def _check_rows(outputs):
    sizes = {name: len(array) if array.ndim else None for name, array in outputs.items()}
    for name, size in sizes.items():
        if size is None:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if size < 1:
            raise invalid_argument(f"Tensor name: {name} has invalid batch size: {size}")
        if size != (expected := next(iter(sizes.values()))):
            raise invalid_argument(f"Tensor name: {name} has inconsistent batch size: {size} expecting: {expected}")


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
            pass  # JSON cannot represent these bytes otherwise.
    return {"b64": base64.b64encode(value).decode()}
