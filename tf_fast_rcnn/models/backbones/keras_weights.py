"""Loads weights from Keras files, with one-line errors for files that do not fit."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

import h5py

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    import keras

    from tf_fast_rcnn.files import StrPath

_SUFFIXES = (".weights.h5", ".h5", ".hdf5", ".keras")


def load_keras_weights(network: keras.Model, path: StrPath) -> None:
    """Loads a network's weights from a `.weights.h5`, `.h5` or `.keras` file of the same architecture, in place.

    From a `.keras` file only the weights are read: no code in it is executed.

    Args:
        network: a built `keras.Model`.
        path: the file.

    Raises:
        InputError: if the file is missing or unreadable, or its weights are those of another network.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise InputError(f"{path}: found no such file; expected a weights file of {network.name}; check the path")
    if not path.endswith(_SUFFIXES):
        raise InputError(f"{path}: found an unknown kind of weights file; expected one of {', '.join(_SUFFIXES)}")
    try:
        network.load_weights(path)
        _check_for_more_layers(network, path)
    except (ValueError, OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: found weights that do not load ({first_line(error)}); expected those of {network.name}; "
            "pass a file of this architecture including its top, or pass the keras.Model itself as the backbone"
        ) from error


def _check_for_more_layers(network, path):
    """Raises ValueError if a file has more layers than the network: Keras would silently ignore them."""
    stored = []

    def note_size(name, item):
        if isinstance(item, h5py.Dataset) and name.startswith("layers/") and "seed_generator" not in name:
            stored.append(item.size)

    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as weights:
            weights.visititems(note_size)
    elif path.endswith(".weights.h5"):
        with h5py.File(path) as weights:
            weights.visititems(note_size)
    if sum(stored) > network.count_params():
        raise ValueError(f"{sum(stored)} numbers in the file for {network.count_params()} in the network")


def first_line(error: BaseException, limit: int = 160) -> str:
    """The first line of an error's message, at most `limit` characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:limit]
