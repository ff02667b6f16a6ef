"""Reads the weights of `.caffemodel` files: Caffe's NetParameter message in protobuf's wire format.

The message is small, and its weights are long runs of floats. They are read from the memory-mapped file without copies,
whereas protobuf's Python classes would build a list of 138 million numbers. Every length is checked against the
enclosing message before anything is read, and the number of lengths is limited.

Fields (Caffe's src/caffe/proto/caffe.proto; wire format: protobuf.dev, "Encoding"):

    NetParameter       2: V1LayerParameter (Caffe before 2015), 100: LayerParameter
    V1LayerParameter   4: name, 6: blobs
    LayerParameter     1: name, 7: blobs
    BlobProto          1 to 4: num, channels, height, width (old), 7: shape, 5: float data, 8: double data
    BlobShape          1: dim
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: np.dtype("<f8"), _FIXED32: np.dtype("<f4")}

# Field of the layers in NetParameter -> fields of their name and their blobs.
_LAYER_FIELDS = {2: (4, 6), 100: (1, 7)}
# Fields of the numbers in BlobProto -> their dtype.
_DATA_FIELDS = {5: np.dtype("<f4"), 8: np.dtype("<f8")}
_OLD_SHAPE_FIELDS = (1, 2, 3, 4)
_SHAPE_FIELD, _DIM_FIELD = 7, 1

_MAX_AXES = 32  # Caffe's kMaxBlobAxes
_MAX_AXIS = 2**31 - 1
_MAX_NAME = 100

# Limit for tags and lengths. A network has a few thousand; a malicious file full of tiny fields is rejected within
# seconds.
_MAX_VARINTS = 200_000
_FIRST_SCAN = 16


class _DamagedError(Exception):
    """The bytes are not a NetParameter."""


@dataclasses.dataclass(frozen=True)
class CaffeModel:
    """The layers of a `.caffemodel` that have weights.

    Attributes:
        path: the file.
        layers: dict from layer name to its blobs, read-only float arrays with Caffe's shapes: outputs come first,
            convolutions are `[out, in, height, width]`.
    """

    path: str
    layers: dict

    def blobs(self, name: str, shapes: Sequence[Sequence[int]] | None = None) -> list[np.ndarray]:
        """The blobs of a layer as float32 arrays with the given shapes; None keeps the shapes in the file.

        Leading axes of length 1 are ignored, since old files have four axes for every blob.

        Raises:
            InputError: if the file does not have the layer, has it with other shapes, or its numbers are not finite.
        """
        if name not in self.layers:
            raise InputError(
                f"{self.path}: found no layer {name} among {', '.join(self.layers)}; expected a file of the chosen "
                "network; check the file and the network's name"
            )
        blobs = [np.asarray(blob, np.float32) for blob in self.layers[name]]
        found = [_without_leading_ones(blob.shape) for blob in blobs]
        shapes = found if shapes is None else shapes
        if found != [_without_leading_ones(shape) for shape in shapes]:
            raise InputError(
                f"{self.path}: found layer {name} with shapes {_list(found)}; expected {_list(shapes)}; check the file "
                "and the network's name"
            )
        if not all(np.isfinite(blob).all() for blob in blobs):
            raise InputError(f"{self.path}: found numbers that are not finite in layer {name}; get the file again")
        return [blob.reshape(shape) for blob, shape in zip(blobs, shapes, strict=True)]


def read_caffemodel(path: StrPath) -> CaffeModel:
    """Reads the weights of a `.caffemodel` file, by layer.

    Args:
        path: the file, as Caffe's `Net::ToProto` writes it, of any version since December 2013.

    Returns:
        `CaffeModel`. Its arrays are views of the file, which must not change while they are in use.

    Raises:
        InputError: if the file does not exist, is truncated, has another format, or contains no weights.

    Example:
        >>> read_caffemodel("VGG16.v2.caffemodel").layers["conv1_1"][0].shape       # doctest: +SKIP
        (64, 3, 3, 3)
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise _DamagedError("no bytes")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        layers = _Reader(content).layers()
    except OSError as error:
        raise InputError(f"{path}: found {error.strerror}; expected a .caffemodel file; check the path") from error
    except _DamagedError as error:
        raise InputError(
            f"{path}: found {error}; expected a complete .caffemodel (a binary NetParameter); get the file again"
        ) from None
    if not layers:
        raise InputError(f"{path}: found no layer with weights; expected a trained network; pass its .caffemodel")
    return CaffeModel(path, layers)


class _Reader:
    """Iterates over the fields of the messages in a file, and counts their tags and lengths."""

    def __init__(self, content):
        self._content = content
        self._varints_read = 0
        self._place = "at its start"

    def layers(self):
        """Dict from layer name to its blobs; of two layers with the same name the last is used, as in Caffe."""
        layers = {}
        for number, kind, value in self._fields(0, len(self._content)):
            if kind == _BYTES and number in _LAYER_FIELDS:
                name, blobs = self._layer(*value, *_LAYER_FIELDS[number])
                if blobs:
                    layers[name] = blobs
        return layers

    def _layer(self, start, end, name_field, blobs_field):
        name, blobs = "", []
        for number, kind, value in self._fields(start, end):
            if kind == _BYTES and number == name_field:
                name = self._content[value[0] : min(value[1], value[0] + _MAX_NAME)].decode("utf-8", errors="replace")
                self._place = f"in layer {name!r}"
            elif kind == _BYTES and number == blobs_field:
                blobs.append(self._blob(*value))
        self._place = f"after layer {name!r}"
        return name, tuple(blobs)

    def _blob(self, start, end):
        """The array of a BlobProto. Its numbers may be packed, stored one by one, or in several parts."""
        shape, old_shape, parts = None, {}, []
        for number, kind, value in self._fields(start, end):
            if kind == _BYTES and number == _SHAPE_FIELD:
                shape = self._shape(*value)
            elif kind == _VARINT and number in _OLD_SHAPE_FIELDS:
                old_shape[number] = value
            elif kind in _FIXED and number in _DATA_FIELDS:
                parts.append(value)
            elif kind == _BYTES and number in _DATA_FIELDS:
                parts.append(self._numbers(*value, _DATA_FIELDS[number]))
        if shape is None:
            shape = tuple(old_shape.get(number, 0) for number in _OLD_SHAPE_FIELDS)
        if max(shape, default=0) > _MAX_AXIS:
            raise _DamagedError(f"a shape of {list(shape)} {self._place}")
        numbers = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])
        if math.prod(shape) != len(numbers):
            raise _DamagedError(f"{len(numbers)} numbers for a shape of {list(shape)} {self._place}")
        return numbers.reshape(shape)

    def _shape(self, start, end):
        dims = []
        for number, kind, value in self._fields(start, end):
            if number == _DIM_FIELD and kind == _VARINT:
                dims.append(value)
            elif number == _DIM_FIELD and kind == _BYTES:
                position = value[0]
                while position < value[1]:
                    dim, position = self._varint(position, value[1])
                    dims.append(dim)
        if len(dims) > _MAX_AXES:
            raise _DamagedError(f"{len(dims)} axes {self._place}")
        return tuple(dims)

    def _numbers(self, start, end, dtype):
        if (end - start) % dtype.itemsize:
            raise _DamagedError(f"{end - start} bytes for numbers of {dtype.itemsize} bytes {self._place}")
        return np.frombuffer(self._content, dtype, (end - start) // dtype.itemsize, start)

    def _fields(self, position, end):
        """Yields `(number, kind, value)` for the fields between two positions.

        The value is an int for a varint, `(start, end)` for bytes, and for numbers of fixed size an array of all
        consecutive ones with the same field number.
        """
        while position < end:
            tag_position = position
            tag, position = self._varint(position, end)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, position = self._varint(position, end)
            elif kind == _BYTES:
                length, position = self._varint(position, end)
                value = position, position + length
                position += length
            elif kind in _FIXED:
                value, position = self._run(tag_position, position, end, _FIXED[kind])
            else:
                raise _DamagedError(f"bytes of another format {self._place}")
            if not number:
                raise _DamagedError(f"bytes of another format {self._place}")
            if position > end:
                missing = f"{end - tag_position} bytes left for a field of {position - tag_position} bytes"
                raise _DamagedError(f"{missing} {self._place}")
            yield number, kind, value

    def _run(self, tag_position, position, end, dtype):
        """The consecutive numbers of fixed size with the same tag from here on, and their end position."""
        record = np.dtype([("tag", "u1", (position - tag_position,)), ("value", dtype)])
        count = (end - tag_position) // record.itemsize
        if not count:
            return np.zeros(0, dtype), position + dtype.itemsize
        records = np.frombuffer(self._content, record, count, tag_position)
        length = _FIRST_SCAN
        # The scanned length doubles each time, so that a short run does not scan the rest of the file.
        while (same := _leading_equal(records["tag"][:length])) == length < count:
            length *= 2
        return records["value"][:same], tag_position + same * record.itemsize

    def _varint(self, position, end):
        """An unsigned number, stored with seven bits per byte, and its end position."""
        self._varints_read += 1
        if self._varints_read > _MAX_VARINTS:
            raise _DamagedError(f"more than {_MAX_VARINTS} tags and lengths")
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise _DamagedError(f"the end of the data inside a number {self._place}")
            byte = self._content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise _DamagedError(f"bytes of another format {self._place}")


def _leading_equal(tags):
    """How many tags at the start are equal."""
    differ = (tags != tags[0]).any(axis=1)
    return int(differ.argmax()) if differ.any() else len(tags)


def _without_leading_ones(shape):
    first = next((axis for axis, length in enumerate(shape) if length != 1), len(shape))
    return tuple(shape[first:])


def _list(shapes):
    return " and ".join(str(list(shape)) for shape in shapes) or "none"
