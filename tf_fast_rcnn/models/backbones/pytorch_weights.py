"""Reads PyTorch state dicts in the legacy format without PyTorch, and without executing code from the pickle.

The format (`_legacy_save` in PyTorch's `torch/serialization.py`): four consecutive pickles (magic number, protocol
version, system information, the state dict), the pickled list of the storage keys, then each storage: its length as
int64 and its raw elements. Tensors are calls of `_rebuild_tensor_v2` with a persistent id for the storage.
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
    """Only records the tensor, because the storages come after the pickle that refers to them."""
    return _TensorView(storage, offset, tuple(shape), tuple(strides))


# All globals that a state dict of float weights and int64 counters needs. The storage types are mapped to dtype names
# instead of classes, so that a pickle cannot call or change anything but the two functions.
_ALLOWED_GLOBALS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
}


class _StateDictUnpickler(pickle.Unpickler):
    """Allows only the globals of a state dict and rejects all others before anything is called."""

    def __init__(self, file):
        super().__init__(file)
        self._path = file.name

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED_GLOBALS:
            raise InputError(
                f"{self._path}: found a pickle that refers to {module}.{name}; expected a state dict of tensors only; "
                "do not trust this file"
            )
        return _ALLOWED_GLOBALS[module, name]

    def persistent_load(self, persistent_id):
        _kind, dtype, key, _location, length, _view = persistent_id
        return _Storage(dtype, key, length)


def read_pytorch_state_dict(path: StrPath) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch state dict file (legacy, non-zip format).

    Args:
        path: the file, as `torch.save(state_dict, path, _use_new_zipfile_serialization=False)` writes it.

    Returns:
        dict from tensor name to float32 or int64 array, read-only.

    Raises:
        InputError: if the file is missing, damaged or in another format, or refers to globals that no state dict needs.

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
    except Exception as error:  # A damaged pickle can raise any exception.
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
            f"{file.name}: found a header that is not PyTorch's; expected a little-endian state dict of protocol "
            f"{_PROTOCOL_VERSION}; get the file again"
        )
    views = _StateDictUnpickler(file).load()
    _check_views(file, views)
    storages = _read_storages(file, {view.storage.key: view.storage for view in views.values()})
    return {name: _tensor(file, name, view, storages) for name, view in views.items()}


def _check_views(file, views):
    if not isinstance(views, dict) or not all(isinstance(view, _TensorView) for view in views.values()):
        raise InputError(
            f"{file.name}: found entries that are not tensors; expected a state dict from names to tensors; save only "
            "model.state_dict()"
        )


def _read_storages(file, declared):
    """Arrays by storage key. Each length is checked against the file size before memory is allocated for it."""
    arrays = {}
    for key in _StateDictUnpickler(file).load():
        storage = declared[key]
        (length,) = struct.unpack("<q", file.read(8))
        dtype = np.dtype(storage.dtype)
        remaining = os.fstat(file.fileno()).st_size - file.tell()
        if length != storage.length or not 0 <= length * dtype.itemsize <= remaining:
            raise InputError(
                f"{file.name}: found {remaining} bytes left for storage {key}, which has {storage.length} elements of "
                f"{dtype.itemsize} bytes; expected a complete file; get the file again"
            )
        arrays[key] = np.frombuffer(file.read(length * dtype.itemsize), dtype)
    return arrays


def _tensor(file, name, view, storages):
    """The tensor as an array view of its storage. Its sizes and strides come from the file, so they are checked."""
    elements = storages[view.storage.key]
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
    numbers = (view.offset, *view.shape, *view.strides)
    if min(numbers) < 0 or last >= len(elements) or math.prod(view.shape) > len(elements):
        raise InputError(
            f"{file.name}: found tensor {name} with shape {view.shape} outside its storage of {len(elements)} elements"
            "; expected a consistent state dict; get the file again"
        )
    strides = [stride * elements.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(elements[view.offset :], view.shape, strides, writeable=False)
