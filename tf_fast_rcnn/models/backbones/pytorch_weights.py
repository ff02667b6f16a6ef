"""Reads PyTorch state dicts of the legacy format without PyTorch, and without running what a pickle asks for.

The format (PyTorch's `torch/serialization.py`, `_legacy_save`): four pickles one after the other (magic number,
protocol version, system information, the state dict), the pickled list of the storages' keys, then each storage: its
length as int64 and its raw elements. Tensors are calls of `_rebuild_tensor_v2` on a persistent id for the storage.
"""

from __future__ import annotations

import collections
import math
import os
import pickle
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001


class _Storage(NamedTuple):
    dtype: str
    key: str
    length: int


class _TensorView(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def _rebuild_tensor(storage, offset, shape, strides, requires_grad, backward_hooks, metadata=None):
    """Notes the tensor down: the storages stand after the pickle that refers to them."""
    return _TensorView(storage, offset, tuple(shape), tuple(strides))


# Every global that a state dict of float weights and int64 counters needs. The storage types are names of data types
# and not classes, so that a pickle gets nothing to call or to alter but the two functions.
_ALLOWED_GLOBALS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
}


class _StateDictUnpickler(pickle.Unpickler):
    """Unpickles the globals of a state dict and refuses all others before anything is called."""

    def __init__(self, file):
        super().__init__(file)
        self._path = file.name

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED_GLOBALS:
            raise InputError(
                f"{self._path}: found a pickle that asks for {module}.{name}; expected a state dict of tensors alone; "
                "do not trust this file"
            )
        return _ALLOWED_GLOBALS[module, name]

    def persistent_load(self, persistent_id):
        _kind, dtype, key, _location, length, _view = persistent_id
        return _Storage(dtype, key, length)


def read_pytorch_state_dict(path: StrPath) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict file (legacy, non-zip format).

    Args:
        path: the file, as `torch.save(state_dict, path, _use_new_zipfile_serialization=False)` writes it.

    Returns:
        dict from the tensors' names to float32 or int64 arrays, read-only.

    Raises:
        InputError: the file is absent, damaged, of another format, or asks for other globals than a state dict's.

    Example:
        >>> read_pytorch_state_dict("lite0.pth")["_fc.bias"].shape  # doctest: +SKIP
        (1000,)
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            return _read_state_dict(file)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: found {error.strerror}; expected a PyTorch state dict; check the path") from error
    except Exception as error:  # The opcodes of a damaged pickle can raise anything.
        raise InputError(
            f"{path}: found a damaged file ({type(error).__name__}); expected a PyTorch state dict; get the file again"
        ) from error


def _read_state_dict(file):
    if file.peek(2)[:2] == b"PK":
        raise InputError(
            f"{file.name}: found PyTorch's zip format; expected the legacy one; "
            "save it with torch.save(..., _use_new_zipfile_serialization=False), or as a Keras weights file"
        )
    magic_number, protocol, system = (_StateDictUnpickler(file).load() for _ in range(3))
    if (magic_number, protocol, system["little_endian"]) != (_MAGIC_NUMBER, _PROTOCOL_VERSION, True):
        raise InputError(
            f"{file.name}: found another header than PyTorch's; expected a little-endian state dict of protocol "
            f"{_PROTOCOL_VERSION}; get the file again"
        )
    views = _StateDictUnpickler(file).load()
    _check_views(file, views)
    storages = _read_storages(file, {view.storage.key: view.storage for view in views.values()})
    return {name: _tensor(file, name, view, storages) for name, view in views.items()}


def _check_views(file, views):
    if not isinstance(views, dict) or not all(isinstance(view, _TensorView) for view in views.values()):
        raise InputError(
            f"{file.name}: found other things than tensors in its dict; expected a state dict, name to tensor; "
            "save model.state_dict() alone"
        )


def _read_storages(file, declared):
    """Arrays by storage key; each length is compared with the file's size before memory is taken for it."""
    arrays = {}
    for key in _StateDictUnpickler(file).load():
        storage = declared[key]
        (length,) = struct.unpack("<q", file.read(8))
        dtype = np.dtype(storage.dtype)
        remaining = os.fstat(file.fileno()).st_size - file.tell()
        if length != storage.length or not 0 <= length * dtype.itemsize <= remaining:
            raise InputError(
                f"{file.name}: found {remaining} bytes where storage {key} has {storage.length} elements of "
                f"{dtype.itemsize} bytes; expected a complete file; get the file again"
            )
        arrays[key] = np.frombuffer(file.read(length * dtype.itemsize), dtype)
    return arrays


def _tensor(file, name, view, storages):
    """The array that a tensor is of its storage; its sizes and strides come from the file, so they are checked."""
    elements = storages[view.storage.key]
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
    numbers = (view.offset, *view.shape, *view.strides)
    if min(numbers) < 0 or last >= len(elements) or math.prod(view.shape) > len(elements):
        raise InputError(
            f"{file.name}: found tensor {name} of shape {view.shape} outside its storage of {len(elements)} elements; "
            "expected a consistent state dict; get the file again"
        )
    strides = [stride * elements.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(elements[view.offset :], view.shape, strides, writeable=False)
