"""Finds and loads the compiled ops, or says why it cannot.

setup.py compiles the library into this package. It uses TensorFlow's C++ interface, which changes with every minor
version of TensorFlow: loading a library that was built for another one may crash the process. So the library's file
name tells the version, and a library for another version is never opened.
"""

import functools
import pathlib
import warnings

import tensorflow as tf

from tf_fast_rcnn.errors import InputError

_PACKAGE = pathlib.Path(__file__).parent
_REINSTALL = (
    "install tf-fast-rcnn again where a C++17 compiler is found (`pip install -v` shows the compiler's messages)"
)


def native_ops_available():
    """Whether the compiled ops are loaded; loads them at the first call. `why_unavailable` tells the reason.

    Example:
        >>> implementation = "native" if native_ops_available() else "portable"
    """
    return _load()[0] is not None


def why_unavailable():
    """Why the compiled ops cannot be used, in one sentence; None where they can."""
    return _load()[1]


def native_ops():
    """The module of the compiled ops' Python functions.

    Raises:
        InputError: they cannot be used; says why.
    """
    ops, reason = _load()
    if ops is None:
        raise InputError(f"native ops: found {reason}; expected the compiled library; {_REINSTALL}")
    return ops


@functools.cache
def _load():
    """(ops, None) or (None, reason). Cached, so that a process looks for the library and warns once."""
    try:
        return tf.load_op_library(str(find_library(_PACKAGE, tf.__version__))), None
    except FileNotFoundError as error:
        reason = str(error)
    except (tf.errors.OpError, RuntimeError) as error:
        reason = f"a library that TensorFlow {tf.__version__} cannot load ({error})"
    warnings.warn(
        f"RoI pooling uses the slower portable implementation: found {reason}; {_REINSTALL}",
        RuntimeWarning,
        stacklevel=3,
    )
    return None, reason


def find_library(folder, tensorflow_version):
    """The path of the library in `folder` that was built for this minor version of TensorFlow.

    Args:
        folder: pathlib.Path.
        tensorflow_version: such as "2.21.0".

    Raises:
        FileNotFoundError: there is none; tells the versions that were found instead.
    """
    minor_version = ".".join(tensorflow_version.split(".")[:2])
    library = folder / f"_native_ops.tf{minor_version}.so"
    if library.exists():
        return library
    others = sorted(
        path.name.removeprefix("_native_ops.tf").removesuffix(".so") for path in folder.glob("_native_ops.tf*")
    )
    if others:
        raise FileNotFoundError(f"a library built for TensorFlow {', '.join(others)}, while {tensorflow_version} runs")
    raise FileNotFoundError(f"no compiled library for TensorFlow {minor_version} in {folder}")
