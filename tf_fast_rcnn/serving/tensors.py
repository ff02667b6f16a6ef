"""Arrays and TensorProtos: what gRPC requests hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tf_fast_rcnn.serving.status import invalid_argument

if TYPE_CHECKING:
    from tensorflow.core.framework import tensor_pb2

# Numbers that a TensorProto may leave out count as well: a small message can name an array that fills the memory.
_LARGEST_TENSOR = 1 << 30
# TensorFlow Serving answers in these fields, which clients read without `tf.make_ndarray`.
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


def proto_to_array(name: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The array in a TensorProto; strings are an object array of bytes.

    Raises:
        ServingError: if it is broken, of another type or larger than a gigabyte.
    """
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    try:
        dtype = tf.dtypes.as_dtype(proto.dtype)
        if dtype not in _FIELDS or proto.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
            raise ValueError("its type or shape")
        if math.prod(sizes) * max(dtype.size, 1) > _LARGEST_TENSOR:
            raise ValueError("its size")
        if len(getattr(proto, _FIELDS[dtype])) > math.prod(sizes):
            raise ValueError("more values than its shape holds")
        array = tf.make_ndarray(proto)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise invalid_argument(f"tensor parsing error: {name}: {error}") from None
    if dtype == tf.string and not (array.dtype == np.object_ and all(isinstance(item, bytes) for item in array.flat)):
        raise invalid_argument(f"tensor parsing error: {name}: fewer values than its shape holds")
    return array


def array_to_proto(array: np.ndarray, proto: tensor_pb2.TensorProto) -> None:
    """Writes an array into an empty TensorProto, as TensorFlow Serving writes its answers."""
    dtype = tf.string if array.dtype == np.object_ else tf.dtypes.as_dtype(array.dtype)
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    values = array.view(np.uint16) if _FIELDS[dtype] == "half_val" else array
    getattr(proto, _FIELDS[dtype]).extend(values.ravel().tolist())
