"""Reads Detectron's pickled proposals without running arbitrary code.

A pickle is a program. Here it can only call the few functions below, which make arrays from bytes.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_fast_rcnn.data.proposals.tables import ProposalTable, one_line_errors, to_rows
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_EXPECTED = "Detectron's proposals: a pickled dict of boxes, scores and ids"
# Only numbers: other type strings could make NumPy interpret bytes as objects.
_NUMBER_TYPE = re.compile(r"[<>|=]?[fiu][1248]")
# Nesting of containers: the dict, its lists, and an image's boxes as lists of four numbers.
_MAX_DEPTH = 5


def read_detectron(path: StrPath) -> ProposalTable:
    """Reads Detectron's .pkl: a dict of lists with one item per image.

    The lists are `boxes` [P, 4], `ids` or `indexes` (the image's id, an integer or text) and optionally `scores` [P].
    Coordinates are 0-based x1 y1 x2 y2, both corners included (facebookresearch/Detectron,
    detectron/datasets/json_dataset.py).

    Returns:
        `ProposalTable`.

    Raises:
        InputError: for a damaged file, one that uses globals other than those of NumPy arrays, or unexpected content.
    """
    with one_line_errors(path, _EXPECTED):
        content = load_arrays(path)
        if not isinstance(content, dict):
            raise InputError(f"{path}: found {type(content).__name__}; expected {_EXPECTED}; write the file again")
        boxes, ids = content["boxes"], content["ids"] if "ids" in content else content["indexes"]
        names = [name if isinstance(name, str) else str(int(name)) for name in ids]
        scores = content.get("scores")
        if scores is None:
            scores = [None] * len(names)
        if not len(names) == len(boxes) == len(scores) or len(set(names)) != len(names):
            raise InputError(
                f"{path}: found {len(boxes)} arrays of boxes, {len(scores)} of scores and {len(set(names))} different "
                "ids; expected one of each for every image; write the file again"
            )
        images = zip(names, boxes, scores, strict=True)
        rows = {name: to_rows(f"{path}, image {name}", array, its_scores) for name, array, its_scores in images}
        return ProposalTable(rows, "xyxy-0based")


def load_arrays(path: StrPath) -> Any:
    """Loads a pickle of built-in containers, numbers and NumPy arrays, written by Python 2 or 3.

    Raises:
        InputError: if the pickle asks for anything else. A damaged file may raise other errors too, see
            `one_line_errors`.
    """
    data = Path(path).read_bytes()
    for opcode, argument, _ in pickletools.genops(data):
        # The unpickler allocates an array as long as the largest memo index, which a malicious file can make huge.
        if "PUT" in opcode.name and int(argument or 0) > len(data):
            raise InputError(f"{path}: found memo index {argument}; expected {_EXPECTED}; do not trust this file")
    # Python 2's strings are bytes, including the data of arrays; latin1 maps every byte to a character.
    return _Resolver(len(data)).resolve(_ArrayUnpickler(io.BytesIO(data), path).load())


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, file, path):
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module, name):
        function = _FUNCTIONS.get((module.replace("numpy._core", "numpy.core"), name))
        if function is None:
            raise InputError(
                f"{self._path}: found a pickle that asks for {module}.{name}; expected {_EXPECTED}; "
                "do not trust this file"
            )
        # A new function each time, because a pickle can set attributes of the object it gets.
        return lambda *arguments: function(*arguments)


class _Type:
    """Stands for a dtype during unpickling."""

    def __init__(self, name, *_):
        self._name, self._order = name, ""

    def __setstate__(self, state):
        self._order = state[1]

    def resolve(self):
        name = self._name if self._order == "|" else f"{self._order}{self._name}"
        if not _NUMBER_TYPE.fullmatch(name):
            raise ValueError(f"an array of type {name!r}")
        return np.dtype(name)


class _Array:
    """Stands for an array, or a scalar with shape (), during unpickling."""

    def __init__(self, *_):
        self._state = (None, (0,), _Type("f4"), False, b"")

    def __setstate__(self, state):
        self._state = state

    def resolve(self):
        _, shape, dtype, fortran, data = self._state
        if isinstance(data, list):
            # An array of Python objects, e.g. of arrays of different lengths.
            return data
        return np.frombuffer(_bytes(data), dtype.resolve()).reshape(shape, order="F" if fortran else "C")


def _scalar(dtype, data):
    array = _Array()
    array.__setstate__((None, (), dtype, False, data))
    return array


def _array_of_buffer(buffer, dtype, shape, order):
    array = _Array()
    array.__setstate__((None, shape, dtype, order == "F", bytes(buffer)))
    return array


def _bytes(data):
    return data.encode("latin1") if isinstance(data, str) else data


class _Resolver:
    """Creates the arrays of an unpickled value.

    A pickle may refer to one object a thousand times, in lists that it refers to a thousand times. The result is
    therefore limited to a few times the size of the pickle.
    """

    def __init__(self, pickle_bytes):
        self._left = 1024 + 8 * pickle_bytes

    def resolve(self, value, depth=0):
        if isinstance(value, _Array):
            value = value.resolve()
        self._take(getattr(value, "nbytes", 1) if not isinstance(value, str) else len(value), depth)
        if isinstance(value, dict):
            return {key: self.resolve(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.resolve(item, depth + 1) for item in value]
        return value

    def _take(self, size, depth):
        self._left -= size
        if self._left < 0 or depth > _MAX_DEPTH:
            raise ValueError("objects within objects that repeat without end")


_FUNCTIONS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_of_buffer,
    # Python 3 pickles bytes like this for Python 2.
    ("_codecs", "encode"): lambda text, _encoding: _bytes(text),
    ("__builtin__", "bytes"): lambda: b"",
}
